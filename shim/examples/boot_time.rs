//! How long a guest takes from QEMU's start until it is ready, against another initrd under the very same command line. Prints one line of JSON.
//!
//! `boot_time CONFIG ANNOTATION PEER RUNS`: the shim's configuration, a file with the initdata annotation, the initrd to compare with.
//!
//! The shim launches the VM once; the command lines of QEMU, of the vsock backend and of the simulated platform are read from `/proc`. They
//! are then started again, word for word and with the same files and sockets, RUNS times with the agent's initrd and RUNS times with the
//! peer's in turn; the word behind `-initrd` is all that differs. The clock runs from QEMU's start, with its helpers up, until
//!
//! - `agent_ms`: the agent has answered Hello, which it does once the initdata is verified against its own evidence;
//! - `peer_ms`: the peer accepts a connection to the same vsock port.
use std::error::Error;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cella_protos::{AGENT_PORT, SIM_PLATFORM_PORT};
use cella_shim::agent::Agent;
use cella_shim::config::Config;
use cella_shim::initdata::Initdata;
use cella_shim::options::ConfigSource;
use cella_shim::process::{Child, Program, Spawner};
use cella_shim::vm::{GuestNetwork, LaunchRequest, PodName, RunDirKey, StateFile, Vm};
use cella_shim::vsock::{Hybrid, Transport};
use slog::{Discard, Logger, o};
use tokio::io::{copy, sink};
use tokio::net::UnixListener;
use tokio::time::{Instant, sleep, timeout};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// One try at the guest: the backend may have dropped a connection of before its driver was up.
const TRY: Duration = Duration::from_millis(500);
/// Between two tries: how fine the figures are.
const RETRY: Duration = Duration::from_millis(2);
/// For a guest that does not come up, and for a helper.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, annotation, peer, runs] = arguments.as_slice() else {
        return Err("usage: boot_time CONFIG ANNOTATION PEER RUNS".into());
    };
    let config = Config::load(&ConfigSource::File(config.into()))?;
    let initdata = Initdata::of_pod(Some(fs::read_to_string(annotation)?.trim()), None)?;
    let bench = Bench::learn(&config, initdata).await?;
    let (mut agent_ms, mut peer_ms) = (Vec::new(), Vec::new());
    for _ in 0..runs.parse::<u32>()? {
        agent_ms.push(bench.boot(None).await?);
        peer_ms.push(bench.boot(Some(peer)).await?);
    }
    let report = serde_json::json!({ "qemu": bench.qemu.arguments, "agent_ms": agent_ms, "peer_ms": peer_ms });
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

/// What one VM consists of on the host.
struct Bench {
    dir: PathBuf,
    initdata: Initdata,
    platform: Program,
    backend: Program,
    qemu: Program,
    spawner: Spawner,
    log: Logger,
}

impl Bench {
    /// Lets the shim launch a VM and reads how it did it.
    async fn learn(config: &Config, initdata: Initdata) -> Outcome<Self> {
        let (spawner, log) = (Spawner::start()?, Logger::root(Discard, o!()));
        let key = RunDirKey {
            containerd: String::new(),
            namespace: "bench".into(),
            id: "boot".into(),
        };
        let dir = config.run_dir.join(key.dir_name());
        let bundle = config.run_dir.join("bench-bundle");
        fs::create_dir_all(&bundle)?;
        let request = LaunchRequest {
            config,
            key,
            pod: PodName::default(),
            bundle: &bundle,
            initdata: &initdata,
            network: GuestNetwork::User { forwards: Vec::new() },
            spawner: &spawner,
        };
        let vm = Vm::launch(request, &log).await?;
        let state = StateFile::read(&dir)?.ok_or("the VM has no state file")?;
        let program = |name| -> Outcome<Program> {
            let process = state.processes.iter().find(|process| process.name == name);
            let pid = process.ok_or("a program of the VM is not in its state file")?.pid;
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
            let mut words = line.trim_end_matches('\0').split('\0').map(String::from);
            let path = words.next().ok_or("a program of the VM has no command line")?.into();
            let arguments = words.collect();
            Ok(Program { name, path, arguments })
        };
        let (platform, backend) = (program("cella-sim-platform")?, program("vhost-device-vsock")?);
        let qemu = program("qemu")?;
        vm.stop().await;
        fs::remove_dir_all(&bundle)?;
        Ok(Self {
            dir,
            initdata,
            platform,
            backend,
            qemu,
            spawner,
            log,
        })
    }

    /// Boots the agent's initrd or another one; milliseconds until it is ready. Everything is gone when this returns.
    async fn boot(&self, peer: Option<&String>) -> Outcome<f64> {
        fs::DirBuilder::new().mode(0o700).create(&self.dir)?;
        let outcome = timeout(PATIENCE, self.boot_in_dir(peer)).await;
        fs::remove_dir_all(&self.dir)?;
        outcome?
    }

    async fn boot_in_dir(&self, peer: Option<&String>) -> Outcome<f64> {
        self.initdata.write_device(&self.dir.join("initdata.img"))?;
        // QEMU connects to these. Nothing is said on the monitor; the console is read so that it does not fill up.
        let monitor = UnixListener::bind(self.dir.join("qmp.sock"))?;
        let console = UnixListener::bind(self.dir.join("console.sock"))?;
        let platform_socket = self.dir.join(format!("vsock_{SIM_PLATFORM_PORT}"));
        let mut platform = self.start(&self.platform, Some(&platform_socket)).await?;
        let mut backend = self.start(&self.backend, Some(&self.dir.join("vhost.sock"))).await?;
        let mut qemu = self.qemu.clone();
        if let Some(peer) = peer {
            let mut words = qemu.arguments.iter_mut().skip_while(|word| *word != "-initrd").skip(1);
            words.next().ok_or("QEMU was given no -initrd")?.clone_from(peer);
        }
        let started = Instant::now();
        let mut qemu = self.start(&qemu, None).await?;
        let (mut console, _) = console.accept().await?;
        let drained = tokio::spawn(async move { copy(&mut console, &mut sink()).await });
        let _monitor = monitor.accept().await?;
        let ready = tokio::select! {
            () = self.ready(peer.is_none()) => Ok(started.elapsed()),
            exit = qemu.exited() => Err(format!("QEMU ended with {exit} while the guest booted")),
        };
        qemu.kill().await;
        for helper in [&mut backend, &mut platform] {
            helper.terminate(TRY).await;
        }
        drained.abort();
        Ok(ready?.as_secs_f64() * 1e3)
    }

    /// Starts a program and waits for its socket.
    async fn start(&self, program: &Program, socket: Option<&Path>) -> Outcome<Child> {
        let child = self.spawner.spawn(program, &self.log).await?;
        while socket.is_some_and(|socket| !socket.exists()) {
            sleep(RETRY).await;
        }
        Ok(child)
    }

    async fn ready(&self, agent: bool) {
        let transport = Hybrid::new(&self.dir.join("vsock"));
        loop {
            let answered = if agent {
                Agent::connect(&transport, TRY).await.is_ok()
            } else {
                transport.connect(AGENT_PORT, TRY).await.is_ok()
            };
            if answered {
                return;
            }
            sleep(RETRY).await;
        }
    }
}
