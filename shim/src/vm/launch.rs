//! From nothing to an agent that answers.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cella_attest::measure::{HashTable, MeasureError};
use cella_protos::SIM_PLATFORM_PORT;
use slog::{Logger, debug, info, o};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::console::ConsoleLog;
use super::machine::Machine;
use super::network::{GuestNetwork, plug_in};
use super::programs::{Paths, backend_program, launch, platform_program, text};
use super::rundir::{About, PodName, RunDir, RunDirError, RunDirKey};
use super::supervisor::Supervisor;
use super::{Death, State, Vm};
use crate::agent::{Agent, AgentError, Hello};
use crate::config::{Config, GuestImage, SimPrograms, Tee};
use crate::initdata::{CarryError, Initdata};
use crate::metrics::{self, ServerError, VmFacts};
use crate::network::{Forwarder, NetworkError, PodNetwork};
use crate::process::{Child, Program, SpawnError, Spawner};
use crate::qemu::{HashTableLoader, Vsock};
use crate::qmp::{Monitor, MonitorError};
use crate::trace;
use crate::vsock::{GuestCid, Hybrid, Kernel as KernelVsock, Transport, VsockError};

/// How long a helper may take to make its socket.
const HELPER_READY: Duration = Duration::from_secs(10);
/// How long QEMU may take to connect console and monitor.
const QEMU_READY: Duration = Duration::from_secs(20);
/// Between two looks at something that is not there yet.
const RETRY: Duration = Duration::from_millis(20);
/// One try at the agent. The backend queues a connection until the guest's driver is up, so a try may take a while; a guest
/// that dropped it never answers, so it must end.
const AGENT_TRY: Duration = Duration::from_secs(5);
/// Longest wait for the agent's word on the console.
const HUSH: Duration = Duration::from_secs(30);
/// What the agent logs when its port is open.
const AGENT_LISTENS: &str = "agent ready";

/// What to launch.
pub struct LaunchRequest<'a> {
    /// The settled configuration.
    pub config: &'a Config,
    /// Names the run directory.
    pub key: RunDirKey,
    /// Whose VM it is, for people.
    pub pod: PodName,
    /// Where the link to the run directory goes.
    pub bundle: &'a Path,
    /// The pod's initdata.
    pub initdata: &'a Initdata,
    /// What the guest is connected to.
    pub network: GuestNetwork,
    /// Starts programs.
    pub spawner: &'a Spawner,
}

/// A VM that did not come up. Whatever had been started is gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The run directory.
    #[error("preparing the VM's run directory")]
    RunDir(#[from] RunDirError),
    /// The initdata device.
    #[error("preparing the VM's initdata")]
    Initdata(#[from] CarryError),
    /// The pod's network.
    #[error("connecting the VM to the pod's network")]
    Network(#[from] NetworkError),
    /// A listener or file in the run directory.
    #[error("cannot {action} {path}")]
    Io {
        /// "listen on", "create", …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The table of kernel hashes.
    #[error("computing the table of kernel hashes (sim-firmware-boot)")]
    HashTable(#[from] MeasureError),
    /// The shim ends while the table is computed.
    #[error("the table of kernel hashes was not computed to its end")]
    HashTableTask,
    /// The socket for metrics.
    #[error("preparing the VM's metrics")]
    Metrics(#[from] ServerError),
    /// No address for the guest.
    #[error("no random bytes for the guest's vsock address")]
    Random,
    /// A program that does not start.
    #[error("starting the VM's programs")]
    Spawn(#[from] SpawnError),
    /// A program that ended.
    #[error("the VM died while it booted: {death}")]
    Died {
        /// Which, and its last words.
        death: Box<Death>,
    },
    /// A program that runs and does nothing.
    #[error("{program} was not ready within {after:?}")]
    NotReady {
        /// Which.
        program: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// QEMU's monitor.
    #[error("talking to QEMU's monitor")]
    Monitor(#[from] MonitorError),
    /// The agent is not heard of.
    #[error("the agent did not answer within {after:?} (boot-timeout-s); the console's last lines: {}", console.join(" | "))]
    NoAgent {
        /// The deadline.
        after: Duration,
        /// The guest's last lines.
        console: Vec<String>,
        /// The last try's error.
        #[source]
        source: AgentError,
    },
    /// The agent answered something that no honest agent does.
    #[error("the agent's first answer is not acceptable")]
    Agent(#[source] AgentError),
    /// Another document than the pod's.
    #[error("the agent obeys another initdata than the pod's")]
    OtherInitdata,
}

impl Vm {
    /// Brings a VM up: run directory, simulated platform, vsock backend, QEMU, then the agent's first answer. Takes as long as
    /// the guest boots; may be cancelled, which undoes everything.
    ///
    /// # Errors
    /// See [`LaunchError`]. Everything that was started has ended when it returns.
    pub async fn launch(request: LaunchRequest<'_>, log: &Logger) -> Result<Self, LaunchError> {
        let log = log.new(o!("vm" => request.key.dir_name()));
        let run_dir = RunDir::create(&request.config.run_dir, &request.key, request.bundle)?;
        let mut machine = Machine::new(run_dir);
        match bring_up(&mut machine, &request, &log).await {
            Ok(up) => Ok(up.supervise(machine, request.config.guest_timeout, log)),
            Err(error) => {
                machine.destroy().await;
                Err(error)
            }
        }
    }
}

/// What a machine that is up has besides programs and files.
struct Up {
    agent: Agent,
    transport: Arc<dyn Transport>,
    network: Option<PodNetwork>,
    monitor: Monitor,
    events: mpsc::Receiver<crate::qmp::codec::Event>,
    qemu_pid: u32,
}

impl Up {
    fn supervise(self, machine: Machine, patience: Duration, log: Logger) -> Vm {
        let (sender, state) = watch::channel(State::Ready);
        let (stop, stop_requests) = mpsc::channel(1);
        let supervisor = Supervisor {
            machine,
            monitor: self.monitor,
            events: self.events,
            agent: self.agent.clone(),
            patience,
            stop_requests,
            state: sender,
            log,
        };
        let supervisor = tokio::spawn(supervisor.run());
        Vm {
            agent: self.agent,
            transport: self.transport,
            network: self.network,
            qemu_pid: self.qemu_pid,
            state,
            stop,
            supervisor,
        }
    }
}

async fn bring_up(machine: &mut Machine, request: &LaunchRequest<'_>, log: &Logger) -> Result<Up, LaunchError> {
    let started = Instant::now();
    let step = trace::global().step("prepare-vm", "");
    let config = request.config;
    machine.run_dir.describe(about(request))?;
    let metrics = metrics::Server::start(machine.run_dir.path(), metrics::global(), facts(config), log.clone())?;
    let metrics = machine.metrics.insert(metrics).handle();
    let initdata_path = machine.run_dir.file("initdata.img");
    request.initdata.write_device(&initdata_path)?;
    let plugged = plug_in(machine, &request.network, log).await?;

    // QEMU connects to these, so they come first.
    let (monitor_path, monitor_listener) = listen(&machine.run_dir, "qmp.sock")?;
    let (console_path, console_listener) = listen(&machine.run_dir, "console.sock")?;

    let pid_file = machine.run_dir.file("qemu.pid");
    let (vsock, transport) = match &config.tee {
        Tee::Sim(programs) => start_helpers(machine, request, programs, &pid_file, log).await?,
        Tee::Snp(_) | Tee::Tdx(_) => {
            let cid = GuestCid::random().map_err(|_| LaunchError::Random)?;
            machine.run_dir.note_cid(cid)?;
            (
                Vsock::Vhost { cid },
                Arc::new(KernelVsock::new(cid)) as Arc<dyn Transport>,
            )
        }
    };

    let paths = Paths {
        initdata: text(&initdata_path),
        console: console_path,
        monitor: monitor_path,
        pid: text(&pid_file),
        hash_table: hash_table(machine, config).await?,
    };
    let program = Program {
        name: "qemu",
        path: config.qemu.clone(),
        arguments: launch(request, vsock, plugged.nics, paths).arguments(),
    };
    debug!(log, "QEMU starts"; "arguments" => program.arguments.join(" "));
    drop(step);
    let step = trace::global().step("qemu", "");
    let qemu = start(machine, request, &program, plugged.inherited, log).await?;
    let qemu_pid = qemu.identity().pid.unsigned_abs();
    machine.qemu = Some(qemu);
    metrics.qemu(qemu_pid);

    let console_log =
        ConsoleLog::create(machine.run_dir.path(), config.console_log_bytes).map_err(|source| LaunchError::Io {
            action: "create",
            path: machine.run_dir.file("console.log"),
            source,
        })?;
    let tail = console_log.tail();
    let console = accept(machine, &console_listener).await?;
    machine.console = Some((tail, tokio::spawn(console_log.record(console, log.clone()))));
    let monitor = accept(machine, &monitor_listener).await?;
    let (monitor, events) = Monitor::start(monitor, log.clone()).await?;

    drop(step);
    let step = trace::global().step("guest-boot", "");
    let (agent, hello) = wait_for_agent(machine, transport.as_ref(), config.boot_timeout, started).await?;
    if hello.initdata_digest != request.initdata.sha256 {
        return Err(LaunchError::OtherInitdata);
    }
    drop(step);
    metrics.agent(agent.clone());
    machine.run_dir.note_ready()?;
    if let Some(listeners) = plugged.listeners {
        let forwarder = Forwarder::start(listeners, transport.clone(), log.clone());
        machine.forwarder = Some(forwarder.map_err(NetworkError::Listen)?);
    }
    info!(log, "the agent is ready"; "version" => hello.version, "qemu-pid" => qemu_pid,
        "initdata" => hex::encode(hello.initdata_digest), "boot-ms" => started.elapsed().as_millis());
    Ok(Up {
        agent,
        transport,
        network: plugged.network,
        monitor,
        events,
        qemu_pid,
    })
}

fn about(request: &LaunchRequest<'_>) -> About {
    About {
        pod: request.pod.clone(),
        tee: request.config.tee.name().to_owned(),
        vcpus: request.config.vcpus,
        memory_mib: request.config.memory_mib,
        ..About::now()
    }
}

fn facts(config: &Config) -> VmFacts {
    VmFacts {
        tee: config.tee.name(),
        accel: config.accel.to_string(),
        vcpus: config.vcpus,
        memory_mib: config.memory_mib,
    }
}

/// The simulated platform and the vsock backend, in this order: the guest connects to the platform through the backend, which
/// must find its socket, and QEMU must find the backend's.
async fn start_helpers(
    machine: &mut Machine,
    request: &LaunchRequest<'_>,
    programs: &SimPrograms,
    pid_file: &Path,
    log: &Logger,
) -> Result<(Vsock, Arc<dyn Transport>), LaunchError> {
    let vsock_path = machine.run_dir.file("vsock");
    let backend_path = machine.run_dir.file("vhost.sock");
    let platform_path = machine.run_dir.file(&format!("vsock_{SIM_PLATFORM_PORT}"));
    let platform = platform_program(programs, &platform_path, pid_file, &request.config.firmware);
    machine.platform = Some(start(machine, request, &platform, Vec::new(), log).await?);
    wait_for_socket(machine, platform.name, &platform_path).await?;

    let backend = backend_program(programs, &backend_path, &vsock_path);
    machine.vsock = Some(start(machine, request, &backend, Vec::new(), log).await?);
    wait_for_socket(machine, backend.name, &backend_path).await?;
    Ok((
        Vsock::VhostUser {
            socket: text(&backend_path),
        },
        Arc::new(Hybrid::new(&vsock_path)),
    ))
}

/// Writes the table of kernel hashes where a simulated machine boots the firmware that enforces it: with SNP, QEMU does that.
async fn hash_table(machine: &Machine, config: &Config) -> Result<Option<HashTableLoader>, LaunchError> {
    if !matches!(&config.tee, Tee::Sim(programs) if programs.firmware_boot) {
        return Ok(None);
    }
    let (config, path) = (config.clone(), machine.run_dir.file("hashes.bin"));
    let written = tokio::task::spawn_blocking(move || {
        let GuestImage {
            kernel,
            initrd,
            cmdline,
        } = &config.guest;
        let table = HashTable::of(config.firmware.as_ref(), kernel.as_ref(), initrd.as_ref(), cmdline)?;
        std::fs::write(&path, table.bytes).map_err(|source| LaunchError::Io {
            action: "write",
            path: path.clone(),
            source,
        })?;
        Ok(HashTableLoader {
            path: text(&path),
            gpa: table.gpa,
        })
    });
    written.await.map_err(|_| LaunchError::HashTableTask)?.map(Some)
}

async fn start(
    machine: &mut Machine,
    request: &LaunchRequest<'_>,
    program: &Program,
    inherited: Vec<OwnedFd>,
    log: &Logger,
) -> Result<Child, LaunchError> {
    let child = request.spawner.spawn_with(program, inherited, log).await?;
    debug!(log, "program started"; "program" => program.name, "pid" => child.identity().pid);
    Ok(machine.recorded(child)?)
}

fn listen(run_dir: &RunDir, name: &str) -> Result<(String, UnixListener), LaunchError> {
    let path = run_dir.file(name);
    let listener = UnixListener::bind(&path);
    let listener = listener.map_err(|source| LaunchError::Io {
        action: "listen on",
        path: path.clone(),
        source,
    })?;
    Ok((text(&path), listener))
}

async fn accept(machine: &mut Machine, listener: &UnixListener) -> Result<UnixStream, LaunchError> {
    let accepted = tokio::select! {
        accepted = timeout(QEMU_READY, listener.accept()) => accepted,
        death = machine.first_exit() => return Err(LaunchError::Died { death: Box::new(death) }),
    };
    let accepted = accepted.map_err(|_| LaunchError::NotReady {
        program: "qemu",
        after: QEMU_READY,
    })?;
    let (stream, _) = accepted.map_err(|source| LaunchError::Io {
        action: "accept in",
        path: machine.run_dir.path().into(),
        source,
    })?;
    Ok(stream)
}

async fn wait_for_socket(machine: &mut Machine, program: &'static str, path: &Path) -> Result<(), LaunchError> {
    let appears = async {
        while !path.exists() {
            sleep(RETRY).await;
        }
    };
    tokio::select! {
        appeared = timeout(HELPER_READY, appears) => {
            appeared.map_err(|_| LaunchError::NotReady { program, after: HELPER_READY })
        }
        death = machine.first_exit() => Err(LaunchError::Died { death: Box::new(death) }),
    }
}

/// Whether the kernel has begun to speak and the agent has not said that it listens.
fn is_coming_up(console: &[String]) -> bool {
    let is_kernel = |line: &String| line.starts_with('[') && line.contains("] ");
    console.iter().any(is_kernel) && !console.iter().any(|line| line.contains(AGENT_LISTENS))
}

/// Tries until the agent says hello, a program ends, or `patience` (from `started` on) is over.
async fn wait_for_agent(
    machine: &mut Machine,
    transport: &dyn Transport,
    patience: Duration,
    started: Instant,
) -> Result<(Agent, Hello), LaunchError> {
    loop {
        // vhost-device-vsock 0.3 may go deaf for good when the host connects while the guest's driver comes up: about one boot in twenty.
        // The console is the guest's word and only saves attempts; after HUSH they are made whatever it says.
        if is_coming_up(&machine.console_lines()) && started.elapsed() < HUSH.min(patience / 2) {
            tokio::select! {
                () = sleep(RETRY) => continue,
                death = machine.first_exit() => return Err(LaunchError::Died { death: Box::new(death) }),
            }
        }
        let left = patience.saturating_sub(started.elapsed());
        let attempt = tokio::select! {
            attempt = Agent::connect(transport, left.min(AGENT_TRY)) => attempt,
            death = machine.first_exit() => return Err(LaunchError::Died { death: Box::new(death) }),
        };
        let source = match attempt {
            Ok(agent) => return Ok(agent),
            // Not up yet: refused by the guest, dropped by the backend, or cut off in the middle of the boot.
            Err(error @ (AgentError::Connect { .. } | AgentError::Timeout { .. } | AgentError::Broken { .. })) => error,
            Err(error) => return Err(LaunchError::Agent(error)),
        };
        if let AgentError::Connect {
            source: VsockError::Handshake { .. },
        } = source
        {
            return Err(LaunchError::Agent(source));
        }
        if started.elapsed() >= patience {
            return Err(LaunchError::NoAgent {
                after: patience,
                console: machine.console_lines(),
                source,
            });
        }
        sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_comes_up_from_the_kernels_first_line_until_the_agent_listens() {
        let coming = |lines: &[&str]| is_coming_up(&lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>());
        assert!(!coming(&[]));
        assert!(!coming(&["Booting...", "agent: hello?"]));
        assert!(coming(&["[    0.107900] ACPI Error: Table [DSDT]"]));
        assert!(coming(&["[    1.013967] cella INFO agent starting, version: 0.1.0"]));
        assert!(!coming(&[
            "[    0.1] x",
            "[    1.2] cella INFO agent ready, port: 1024"
        ]));
    }
}
