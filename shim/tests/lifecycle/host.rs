//! A host with a configuration, a bundle and stand-in programs, in a directory of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cella_policy::initdata;
use cella_shim::logging::Verbosity;
use cella_shim::process::{Identity, Spawner};
use cella_shim::task::{Pod, PodParts, Process, Publisher};
use cella_shim::vm::StateFile;
use containerd_shim::ExitSignal;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::shim::shim::{CreateTaskRequest, ExecProcessRequest};
use containerd_shim::protos::types::mount::Mount;
use rustix::fs::{CWD, FileType, Mode};
use tokio::net::unix::pipe;
use ttrpc::asynchronous::Server;

use crate::containerd::Recorder;

pub(crate) const INITDATA: &str = cella_shim::initdata::ANNOTATION;
pub(crate) const DOCUMENT: &[u8] =
    b"version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"cella.toml\" = \"version = 1\"\n";

pub(crate) struct Host {
    pub(crate) pod: Arc<Pod>,
    pub(crate) events: Recorder,
    pub(crate) exit: Arc<ExitSignal>,
    dir: tempfile::TempDir,
    _server: Server,
}

/// The reading and writing ends that containerd holds.
pub(crate) struct Pipes {
    pub(crate) stdin: pipe::Sender,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
}

/// Likewise, of an exec.
pub(crate) struct ExecPipes {
    pub(crate) stdin: pipe::Sender,
    pub(crate) stdout: pipe::Receiver,
}

impl Host {
    /// A host whose programs behave as `mode` says.
    pub(crate) async fn new(mode: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("cella").tempdir_in("/tmp").unwrap();
        let d = dir.path();
        for (program, name) in [("qemu", "qemu"), ("vsock", "vsock-backend"), ("platform", "platform")] {
            script(&d.join(name), program, mode);
        }
        fs::create_dir(d.join("guest")).unwrap();
        for (name, text) in [
            ("guest/vmlinuz", "k"),
            ("guest/initrd", "i"),
            ("guest/cmdline", "quiet\n"),
            ("ovmf.fd", "o"),
        ] {
            fs::write(d.join(name), text).unwrap();
        }
        for name in ["state", "bundle"] {
            fs::create_dir(d.join(name)).unwrap();
        }
        let p = d.display();
        let config = format!(
            "tee = \"sim\"\naccel = \"tcg\"\nqemu = \"{p}/qemu\"\nguest-image = \"{p}/guest\"\nfirmware = \"{p}/ovmf.fd\"\n\
             vhost-device-vsock = \"{p}/vsock-backend\"\nsim-platform = \"{p}/platform\"\nsim-state = \"{p}/state\"\n\
             run-dir = \"{p}/run\"\nboot-timeout-s = {}\nguest-timeout-s = {}\nlog-level = \"debug\"\n",
            if mode == "mute" { 1 } else { 20 },
            if mode.starts_with("silent") { 2 } else { 120 }
        );
        fs::write(d.join("config.toml"), config).unwrap();
        let (events, server) = Recorder::listen(&format!("{p}/events.sock")).await;
        // `CELLA_TEST_LOG=path` shows what the shim logs.
        let log = match std::env::var_os("CELLA_TEST_LOG") {
            Some(path) => cella_shim::logging::fifo(Path::new(&path), Verbosity::new(slog::Level::Debug)),
            None => slog::Logger::root(slog::Discard, slog::o!()),
        };
        let exit = Arc::new(ExitSignal::default());
        let pod = Arc::new(Pod::new(PodParts {
            containerd: "/run/test.sock".into(),
            namespace: "test".into(),
            events: Publisher::start(&format!("{p}/events.sock"), "test", log.clone()),
            exit: exit.clone(),
            spawner: Spawner::start().unwrap(),
            verbosity: Verbosity::new(slog::Level::Debug),
            log,
        }));
        Self {
            pod,
            events,
            exit,
            dir,
            _server: server,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    /// A request for the container "app", alone in its VM, with fifos.
    pub(crate) fn request(&self, args: &[&str]) -> (CreateTaskRequest, Pipes) {
        let annotation = initdata::encode_annotation(DOCUMENT);
        let spec = serde_json::json!({
            "process": { "args": args, "cwd": "/" },
            "annotations": { INITDATA: annotation },
        });
        fs::write(self.bundle().join("config.json"), spec.to_string()).unwrap();
        let (stdin, stdout, stderr) = (self.fifo("stdin"), self.fifo("stdout"), self.fifo("stderr"));
        let mut open = pipe::OpenOptions::new();
        let pipes = Pipes {
            stdin: open.read_write(true).open_sender(&stdin).unwrap(),
            stdout: open.read_write(false).open_receiver(&stdout).unwrap(),
            stderr: open.read_write(false).open_receiver(&stderr).unwrap(),
        };
        let request = CreateTaskRequest {
            id: "app".into(),
            bundle: text(&self.bundle()),
            rootfs: vec![rootfs()],
            stdin: text(&stdin),
            stdout: text(&stdout),
            stderr: text(&stderr),
            options: Some(self.options()).into(),
            ..Default::default()
        };
        (request, pipes)
    }

    /// A request as CRI makes it: annotated, without fifos.
    pub(crate) fn cri_request(&self, id: &str, annotations: &[(&str, &str)]) -> CreateTaskRequest {
        let mut all = serde_json::json!({ INITDATA: initdata::encode_annotation(DOCUMENT) });
        for (key, value) in annotations {
            all[*key] = (*value).into();
        }
        let spec = serde_json::json!({
            "process": { "args": ["/bin/app"], "cwd": "/" },
            "annotations": all,
            "linux": { "namespaces": [{ "type": "network" }] },
        });
        fs::write(self.bundle().join("config.json"), spec.to_string()).unwrap();
        CreateTaskRequest {
            id: id.into(),
            bundle: self.bundle().display().to_string(),
            rootfs: vec![rootfs()],
            options: Some(self.options()).into(),
            ..Default::default()
        }
    }

    /// The container's process after a successful Create.
    pub(crate) async fn created(&self) -> (Arc<Process>, Pipes) {
        let (request, pipes) = self.request(&["/bin/app"]);
        self.pod.create(request).await.unwrap();
        (self.pod.process("app", "").unwrap(), pipes)
    }

    /// The container's process after a successful Start.
    pub(crate) async fn running(&self) -> (Arc<Process>, Pipes) {
        let (process, pipes) = self.created().await;
        self.pod.clone().start(process.clone()).await.unwrap();
        (process, pipes)
    }

    /// A request for an exec in the container "app", with stdin and stdout.
    pub(crate) fn exec_request(&self, exec_id: &str, args: &[&str]) -> (ExecProcessRequest, ExecPipes) {
        let process = serde_json::json!({ "args": args, "cwd": "/" });
        let (stdin, stdout) = (
            self.fifo(&format!("{exec_id}-stdin")),
            self.fifo(&format!("{exec_id}-stdout")),
        );
        let mut open = pipe::OpenOptions::new();
        let pipes = ExecPipes {
            stdin: open.read_write(true).open_sender(&stdin).unwrap(),
            stdout: open.read_write(false).open_receiver(&stdout).unwrap(),
        };
        let request = ExecProcessRequest {
            id: "app".into(),
            exec_id: exec_id.into(),
            stdin: text(&stdin),
            stdout: text(&stdout),
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
                value: process.to_string().into_bytes(),
                ..Default::default()
            })
            .into(),
            ..Default::default()
        };
        (request, pipes)
    }

    /// An exec after a successful Exec.
    pub(crate) async fn added(&self, exec_id: &str, args: &[&str]) -> (Arc<Process>, ExecPipes) {
        let (request, pipes) = self.exec_request(exec_id, args);
        self.pod.clone().exec(request).await.unwrap();
        (self.pod.process("app", exec_id).unwrap(), pipes)
    }

    /// An exec after a successful Start.
    pub(crate) async fn executed(&self, exec_id: &str, args: &[&str]) -> (Arc<Process>, ExecPipes) {
        let (exec, pipes) = self.added(exec_id, args).await;
        self.pod.clone().start(exec.clone()).await.unwrap();
        (exec, pipes)
    }

    /// Waits until `expected` is the last event.
    pub(crate) async fn last_event(&self, expected: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.events.seen().last().map(String::as_str) != Some(expected) {
            assert!(Instant::now() < deadline, "{:?}", self.events.seen());
            tokio::task::yield_now().await;
        }
    }

    /// Waits until an event is among those that were told.
    pub(crate) async fn events_have(&self, expected: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.events.seen().iter().any(|event| event == expected) {
            assert!(Instant::now() < deadline, "{:?}", self.events.seen());
            tokio::task::yield_now().await;
        }
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        // An exec's id may be used again.
        let _ = fs::remove_file(&path);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        path
    }

    /// The VM's run directory.
    pub(crate) fn run_dir(&self) -> PathBuf {
        StateFile::of_bundle(&self.bundle()).unwrap().unwrap().0
    }

    /// The VM's programs by name.
    pub(crate) fn processes(&self) -> Vec<Identity> {
        StateFile::of_bundle(&self.bundle()).unwrap().unwrap().1.processes
    }

    pub(crate) fn process(&self, name: &str) -> Identity {
        self.processes()
            .into_iter()
            .find(|process| process.name == name)
            .unwrap()
    }

    /// Nothing runs and no file is left.
    pub(crate) async fn assert_clean(&self, processes: &[Identity]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let run = self.dir.path().join("run");
        loop {
            let alive: Vec<_> = processes.iter().filter(|process| process.is_alive()).collect();
            let files = fs::read_dir(&run).map(|entries| entries.count()).unwrap_or(0);
            let link = self.bundle().join("cella-run-dir").symlink_metadata().is_ok();
            if alive.is_empty() && files == 0 && !link {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "left: {alive:?}, {files} run directories, link: {link}"
            );
            tokio::task::yield_now().await;
        }
    }

    /// `runtimeoptions.v1.Options` with the configuration's path.
    pub(crate) fn options(&self) -> Any {
        let path = self.dir.path().join("config.toml").display().to_string();
        let mut value = vec![2 << 3 | 2, u8::try_from(path.len()).unwrap()];
        value.extend_from_slice(path.as_bytes());
        Any {
            type_url: "runtimeoptions.v1.Options".into(),
            value,
            ..Default::default()
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn rootfs() -> Mount {
    Mount {
        options: vec!["rbind".into(), "x-cella.image=r/app@sha256:aa".into()],
        ..Default::default()
    }
}

/// A script that starts this test binary as `program`.
pub(crate) fn script(path: &Path, program: &str, mode: &str) {
    let me = std::env::current_exe().unwrap();
    let text = format!(
        "#!/bin/sh\nIFS=$(printf '\\037')\nexport CELLA_FAKE_PROGRAM={program} CELLA_FAKE_MODE={mode} CELLA_FAKE_ARGUMENTS=\"$*\"\n\
         exec {} --exact fake::program --nocapture\n",
        me.display()
    );
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}
