//! Containers on the test machine: own namespaces, the machine's files as the image, no cgroup v2.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_trait::async_trait;
use cella_agent::{
    container::{
        CgroupRoot, ContainerError, ContainerId, Containers, Creation, Ended, ExecCreation, ExecId, Limits, ProcessId,
        Setting, StreamNumbers, Supply, WantedPipes,
    },
    launch::{HostSeccomp, Launcher},
    network::NetworkPlan,
    pod::{Ingress, Pod},
    reaper::Reaper,
    stage::StageLog,
    stream::Streams,
    workload::{ModelMount, Rootfs, WorkloadError},
};
use cella_policy::{
    Policy, UserPolicy,
    check::{Admission, AdmittedProcess, AdmittedUser, ContainerRequest, ProcessRequest, check_container},
};
use slog::Logger;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

pub const POLICY: &str = include_str!("policy.toml");
pub const IMAGE: &str =
    "localhost:5000/demo/server@sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// All tests of a program share its children.
static REAPER: LazyLock<Reaper> = LazyLock::new(Reaper::new);

/// Longest that a test waits for anything.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Whether namespaces can be made here; says so when not.
pub fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: needs root to make namespaces");
    }
    is_root
}

pub struct Machine {
    pub dir: TempDir,
    pub containers: Containers,
    /// The host's system call filter for the container.
    pub host_seccomp: Option<HostSeccomp>,
    pub streams: Streams,
    pub stages: StageLog,
}

impl Machine {
    pub fn new() -> Self {
        Self::with(None)
    }

    pub fn with(cgroups: Option<CgroupRoot>) -> Self {
        Self::under(&policy(&["/bin/true"], &[]), cgroups)
    }

    /// A machine whose containers are those of `lineup`.
    pub fn under(lineup: &Policy, cgroups: Option<CgroupRoot>) -> Self {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let mut children = signal(SignalKind::child()).unwrap();
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                REAPER.reap();
            }
        });
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("model")).unwrap();
        fs::write(dir.path().join("model/weights.gguf"), "weights").unwrap();
        let log = Logger::root(slog::Discard, slog::o!());
        let (streams, stages) = (Streams::new(log.clone()), StageLog::new());
        let pod = Pod::new(
            dir.path().join("pod"),
            env!("CARGO_BIN_EXE_cella-agent").into(),
            REAPER.clone(),
        );
        let containers = Containers::new(Setting {
            state_dir: dir.path().join("containers"),
            launcher: Launcher::new(env!("CARGO_BIN_EXE_cella-agent"), REAPER.clone()),
            cgroups,
            writable_mib: 16,
            streams: streams.clone(),
            reaper: REAPER.clone(),
            ingress: Ingress::new(lineup, pod.events().clone()),
            pod,
            stages: stages.clone(),
            log,
        });
        Self {
            dir,
            containers,
            host_seccomp: None,
            streams,
            stages,
        }
    }

    /// Makes the container of `policy` with output pipes.
    pub fn create(&self, policy: &Policy) -> Result<StreamNumbers, ContainerError> {
        self.containers.create(Creation {
            id: id(),
            admission: admission(policy),
            host_seccomp: self.host_seccomp.clone(),
            pipes: WantedPipes {
                stdin: true,
                stdout: true,
                stderr: true,
            },
            limits: Limits::default(),
        })
    }

    pub async fn start(&self) -> Result<u32, ContainerError> {
        let (id, network) = (id(), Arc::new(NetworkPlan::default()));
        let start = self.containers.start(&id, self.supply(), network);
        timeout(LIMIT, start).await.unwrap()
    }

    /// Images and models: this machine's files.
    pub fn supply(&self) -> Arc<dyn Supply> {
        Arc::new(HostFiles {
            model: self.dir.path().join("model"),
        })
    }

    pub async fn wait(&self) -> Ended {
        timeout(LIMIT, self.containers.wait(&id().first_process()))
            .await
            .unwrap()
            .unwrap()
    }

    /// Makes and starts a further process with all pipes.
    pub async fn exec(&self, name: &str, process: AdmittedProcess) -> Result<StreamNumbers, ContainerError> {
        let exec: ExecId = name.parse().unwrap();
        let numbers = self.add_exec(name, process)?;
        timeout(LIMIT, self.containers.start_exec(&id(), &exec))
            .await
            .unwrap()?;
        Ok(numbers)
    }

    pub fn add_exec(&self, name: &str, process: AdmittedProcess) -> Result<StreamNumbers, ContainerError> {
        let creation = ExecCreation {
            exec: name.parse().unwrap(),
            process,
            pipes: WantedPipes {
                stdin: true,
                stdout: true,
                stderr: true,
            },
        };
        self.containers.exec(&id(), creation)
    }

    pub async fn wait_exec(&self, name: &str) -> Ended {
        timeout(LIMIT, self.containers.wait(&exec_id(name)))
            .await
            .unwrap()
            .unwrap()
    }

    /// Connects to a pipe as the host does.
    pub async fn claim(&self, number: u32) -> UnixStream {
        let (mut host, guest) = UnixStream::pair().unwrap();
        let streams = self.streams.clone();
        tokio::spawn(async move { streams.serve(guest).await });
        host.write_all(&number.to_le_bytes()).await.unwrap();
        host
    }

    /// Runs a script to its end: status, output, error output.
    pub async fn run(&self, policy: &Policy) -> (u32, String, String) {
        let numbers = self.create(policy).unwrap();
        let mut out = self.claim(numbers.stdout).await;
        let mut err = self.claim(numbers.stderr).await;
        self.start().await.unwrap();
        let (mut output, mut errors) = (String::new(), String::new());
        timeout(LIMIT, out.read_to_string(&mut output)).await.unwrap().unwrap();
        timeout(LIMIT, err.read_to_string(&mut errors)).await.unwrap().unwrap();
        (self.wait().await.exit.status, output, errors)
    }
}

impl Drop for Machine {
    /// Nothing of a container may be left among this machine's mounts.
    fn drop(&mut self) {
        self.containers.pod().dissolve();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let dir = self.dir.path().to_str().unwrap();
        assert!(std::thread::panicking() || !mounts.contains(dir), "{mounts}");
    }
}

pub fn id() -> ContainerId {
    "c1".parse().unwrap()
}

pub fn exec_id(name: &str) -> ProcessId {
    ProcessId {
        container: id(),
        exec: Some(name.parse().unwrap()),
    }
}

/// A further process of the container's own user.
pub fn process(args: &[&str]) -> AdmittedProcess {
    AdmittedProcess {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/usr/bin:/bin".into()],
        cwd: "/".into(),
        user: AdmittedUser::Host {
            uid: 65534,
            gid: 65534,
            additional_gids: vec![],
            name: String::new(),
        },
        capabilities: BTreeSet::new(),
        rlimits: vec![],
        terminal: false,
        no_new_privileges: true,
    }
}

/// The policy with other arguments and `changes` made to its text.
pub fn policy(args: &[&str], changes: &[(&str, &str)]) -> Policy {
    let mut text = POLICY.replace("[\"/bin/true\"]", &format!("{args:?}"));
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    Policy::parse(&text).unwrap()
}

/// What the policy makes of a host that asks for exactly its first container.
pub fn admission(policy: &Policy) -> Admission<'_> {
    admission_of(policy, &policy.containers()[0].name)
}

/// The same for the container of that name.
pub fn admission_of<'p>(policy: &'p Policy, name: &str) -> Admission<'p> {
    let container = policy.container(name).unwrap();
    let UserPolicy::Ids(user) = &container.user else {
        panic!("the policy has numbers")
    };
    let request = ContainerRequest {
        name: container.name.clone(),
        process: ProcessRequest {
            args: container.args.only().unwrap().clone(),
            env: container.env.clone(),
            cwd: container.cwd.only().unwrap().to_string(),
            uid: user.uid,
            gid: user.gid,
            additional_gids: user.additional_gids.iter().copied().collect(),
            terminal: container.terminal,
            no_new_privileges: true,
            ..Default::default()
        },
        hostname: container.hostname.clone().unwrap_or("pod-1".into()),
        ..Default::default()
    };
    check_container(policy, &request).unwrap()
}

pub fn script(script: &str) -> Policy {
    policy(&["/bin/sh", "-c", script], &[])
}

struct HostFiles {
    model: PathBuf,
}

#[async_trait]
impl Supply for HostFiles {
    async fn image(&self, _: &str) -> Result<Rootfs, WorkloadError> {
        Ok(Rootfs {
            lower_dirs: vec!["/".into()],
            user: String::new(),
        })
    }

    async fn models(&self, _: &str) -> Result<Vec<ModelMount>, WorkloadError> {
        Ok(vec![ModelMount {
            source: self.model.clone(),
            destination: "/models/demo".into(),
        }])
    }
}
