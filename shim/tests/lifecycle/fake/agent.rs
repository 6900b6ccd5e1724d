//! Stands in for vhost-device-vsock and the agent behind it. Its one container says hello, copies stdin to stdout and ends
//! with status 7 at the end of stdin; its execs are in [`super::exec`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cella_protos::agent as wire;
use cella_protos::agent_ttrpc::{Agent, create_agent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc, watch};
use ttrpc::asynchronous::transport::Listener;
use ttrpc::asynchronous::{Server, TtrpcContext};
use ttrpc::{Code, Error, get_status};

use super::exec::Execs;
use super::{nonsense, option_of, value_of};

const STDIN: u32 = 11;
const STDOUT: u32 = 12;
const STDERR: u32 = 13;

struct Guest {
    mode: String,
    dir: PathBuf,
    stdout: Mutex<Option<UnixStream>>,
    exit: watch::Sender<Option<u32>>,
    started: watch::Sender<bool>,
    greeted: AtomicBool,
    execs: Execs,
}

pub(super) async fn run(arguments: &[String], mode: &str) -> i32 {
    let vm = value_of(arguments, "--vm");
    assert!(vm.contains("tx-buffer-size=32768"), "{vm}");
    let uds = option_of(vm, "uds-path");
    let dir = uds.parent().unwrap().to_owned();
    let guest = Arc::new(Guest {
        mode: mode.to_owned(),
        dir,
        stdout: Mutex::new(None),
        exit: watch::Sender::new(None),
        started: watch::Sender::new(false),
        greeted: AtomicBool::new(false),
        execs: Execs::default(),
    });
    let listener = UnixListener::bind(&uds).unwrap();
    let (connections, accepted) = mpsc::channel::<std::io::Result<UnixStream>>(8);
    let api = futures::stream::unfold(accepted, |mut accepted| async {
        Some((accepted.recv().await?, accepted))
    });
    let service = create_agent(guest.clone());
    let mut server = Server::new().add_listener(Listener::new(api)).register_service(service);
    server.start().await.unwrap();
    // The shim waits for this one, so it comes last.
    let _vhost = UnixListener::bind(option_of(vm, "socket")).unwrap();
    let mut refusals = if mode == "slow-boot" { 5 } else { 0 };
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let port = request(&mut stream).await;
        if mode == "mute" {
            // The guest's kernel has not come up: the connection stays half open.
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(stream)
            });
            continue;
        }
        if refusals > 0 {
            refusals -= 1;
            continue;
        }
        if let Some(answer) = nonsense::handshake(mode) {
            tokio::spawn(async move { stream.write_all(&answer).await });
            continue;
        }
        stream.write_all(b"OK 1073741824\n").await.unwrap();
        match port {
            1024 => connections.send(Ok(nonsense::between(stream, mode))).await.unwrap(),
            1025 => drop(tokio::spawn(guest.clone().pipe(stream))),
            other => panic!("port {other}"),
        }
    }
}

async fn request(stream: &mut UnixStream) -> u32 {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await.unwrap() {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    String::from_utf8(line)
        .unwrap()
        .strip_prefix("CONNECT ")
        .unwrap()
        .parse()
        .unwrap()
}

impl Guest {
    async fn pipe(self: Arc<Self>, mut stream: UnixStream) {
        match stream.read_u32_le().await.unwrap() {
            STDIN => {
                let mut buffer = [0; 1024];
                loop {
                    let read = stream.read(&mut buffer).await.unwrap();
                    if read == 0 {
                        break;
                    }
                    self.say(&buffer[..read]).await;
                }
                self.say(b"bye\n").await;
                self.end(7).await;
            }
            STDOUT if self.mode == "endless-output" => {
                // Never mind whether the process has ended.
                while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
            }
            STDOUT => *self.stdout.lock().await = Some(stream),
            STDERR => stream.write_all(b"a warning\n").await.unwrap(),
            number => self.execs.attach(number, stream).await,
        }
    }

    async fn say(&self, bytes: &[u8]) {
        if let Some(stdout) = self.stdout.lock().await.as_mut() {
            let _ = stdout.write_all(bytes).await;
        }
    }

    fn power_off(&self) {
        let pid = std::fs::read_to_string(self.dir.join("qemu.pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    async fn end(&self, status: u32) {
        // Nothing in the container outlives its first process.
        self.execs.end_all(137).await;
        // The end is known before the last output is delivered, as with a real process.
        self.exit.send_replace(Some(status));
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.say(b"last words\n").await;
        self.stdout.lock().await.take();
    }
}

pub(super) fn refused<T>(code: Code, message: &str) -> ttrpc::Result<T> {
    Err(Error::RpcStatus(get_status(code, message)))
}

#[async_trait]
impl Agent for Guest {
    async fn hello(&self, _: &TtrpcContext, _: wire::HelloRequest) -> ttrpc::Result<wire::HelloResponse> {
        if self.greeted.swap(true, Ordering::Relaxed) && self.mode.starts_with("silent") {
            std::future::pending::<()>().await;
        }
        let initdata_digest = match self.mode.as_str() {
            "short-digest" => vec![1; 31],
            "other-initdata" => vec![1; 32],
            _ => digest_of(&self.dir.join("initdata.img")),
        };
        Ok(wire::HelloResponse {
            agent_version: "fake\n1".into(),
            initdata_digest,
            ..Default::default()
        })
    }

    async fn configure_network(
        &self,
        _: &TtrpcContext,
        req: wire::ConfigureNetworkRequest,
    ) -> ttrpc::Result<wire::Empty> {
        assert_eq!(req.interfaces[0].addresses, ["10.0.2.15/24"]);
        std::fs::write(self.dir.join("network"), format!("{req}")).unwrap();
        Ok(wire::Empty::new())
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        req: wire::CreateContainerRequest,
    ) -> ttrpc::Result<wire::CreateContainerResponse> {
        if self.mode == "panic-at-create" {
            // As a guest whose process 1 panics: the VM goes before the answer.
            self.power_off();
            std::future::pending::<()>().await;
        }
        if !req.spec.host_namespaces.is_empty() && self.mode == "host-namespaces" {
            let named = req.spec.host_namespaces.join(", ");
            return refused(
                Code::PERMISSION_DENIED,
                &format!("policy denies host namespaces: {named}"),
            );
        }
        if req.spec.args != ["/bin/app"] {
            return refused(
                Code::PERMISSION_DENIED,
                "policy denies container \"app\": args[0] is \"/bin/other\"",
            );
        }
        assert!(req.images[0].contains("/app@sha256:"), "{:?}", req.images);
        let pipe = |wanted, number| if wanted { number } else { 0 };
        Ok(wire::CreateContainerResponse {
            stdin_stream: pipe(req.stdin, STDIN),
            stdout_stream: pipe(req.stdout && self.mode != "stdio-deny", STDOUT),
            stderr_stream: pipe(req.stderr && self.mode != "stdio-deny", STDERR),
            ..Default::default()
        })
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        req: wire::StartContainerRequest,
    ) -> ttrpc::Result<wire::StartContainerResponse> {
        if !req.exec_id.is_empty() {
            return self.execs.start(&req.exec_id).await;
        }
        match self.mode.as_str() {
            "start-hangs" | "silent-at-start" => std::future::pending().await,
            "start-refused" => refused(
                Code::UNAVAILABLE,
                "broker refuses key kbs:///demo/model-kek/1: measurement",
            ),
            _ => {
                self.say(b"hello from the guest\n").await;
                self.started.send_replace(true);
                Ok(wire::StartContainerResponse {
                    pid: 9,
                    ..Default::default()
                })
            }
        }
    }

    async fn wait_container(
        &self,
        _: &TtrpcContext,
        req: wire::WaitContainerRequest,
    ) -> ttrpc::Result<wire::WaitContainerResponse> {
        if !req.exec_id.is_empty() {
            return self.execs.wait(&req.exec_id).await;
        }
        let mut exit = self.exit.subscribe();
        let exit_status = exit.wait_for(Option::is_some).await.unwrap().unwrap();
        Ok(wire::WaitContainerResponse {
            exit_status,
            exited_at_unix_ns: i64::MAX,
            out_of_memory: self.mode == "oom-at-end",
            ..Default::default()
        })
    }

    async fn signal_container(
        &self,
        _: &TtrpcContext,
        req: wire::SignalContainerRequest,
    ) -> ttrpc::Result<wire::Empty> {
        if self.mode == "hung" {
            std::future::pending::<()>().await;
        }
        if self.mode == "signal-late" {
            return refused(
                Code::FAILED_PRECONDITION,
                "container app is stopped, it cannot be signalled",
            );
        }
        if req.exec_id.is_empty() {
            self.end(128 + req.signal).await;
            Ok(wire::Empty::new())
        } else {
            self.execs.signal(&req.exec_id, req.signal).await
        }
    }

    async fn exec_process(
        &self,
        _: &TtrpcContext,
        req: wire::ExecProcessRequest,
    ) -> ttrpc::Result<wire::CreateContainerResponse> {
        self.execs.create(req).await
    }

    async fn resize_terminal(&self, _: &TtrpcContext, req: wire::ResizeTerminalRequest) -> ttrpc::Result<wire::Empty> {
        self.execs.resize(&req).await
    }

    async fn freeze_container(
        &self,
        _: &TtrpcContext,
        req: wire::FreezeContainerRequest,
    ) -> ttrpc::Result<wire::Empty> {
        let word: &[u8] = if req.frozen { b"frozen\n" } else { b"thawed\n" };
        self.say(word).await;
        Ok(wire::Empty::new())
    }

    async fn update_container(
        &self,
        _: &TtrpcContext,
        req: wire::UpdateContainerRequest,
    ) -> ttrpc::Result<wire::Empty> {
        let limit = req.resources.memory_limit_bytes;
        self.say(format!("limit {limit}\n").as_bytes()).await;
        Ok(wire::Empty::new())
    }

    async fn container_stats(
        &self,
        _: &TtrpcContext,
        req: wire::ContainerStatsRequest,
    ) -> ttrpc::Result<wire::ContainerStatsResponse> {
        Ok(wire::ContainerStatsResponse {
            pids: if req.id.is_empty() { 42 } else { 2 },
            ..Default::default()
        })
    }

    async fn list_processes(
        &self,
        _: &TtrpcContext,
        _: wire::ListProcessesRequest,
    ) -> ttrpc::Result<wire::ListProcessesResponse> {
        let pids = match self.mode.as_str() {
            "many-processes" => vec![2; 100_000],
            "no-processes" => Vec::new(),
            "mute-processes" => std::future::pending().await,
            _ => vec![2, 7, 9, 12],
        };
        Ok(wire::ListProcessesResponse {
            pids,
            ..Default::default()
        })
    }

    async fn next_event(
        &self,
        _: &TtrpcContext,
        req: wire::NextEventRequest,
    ) -> ttrpc::Result<wire::NextEventResponse> {
        let event = |number, kind: &str| wire::NextEventResponse {
            number,
            kind: kind.into(),
            container: "app".into(),
            ..Default::default()
        };
        match (self.mode.as_str(), req.after) {
            ("oom", 0) => {
                // Not before the container runs.
                self.started.subscribe().wait_for(|started| *started).await.unwrap();
                Ok(event(5, "oom"))
            }
            ("flood-events", after) => Ok(event(after + 1, "oom\u{1b}[31m")),
            ("stuck-events", _) => Ok(event(0, "oom")),
            ("odd-events", 0) => Ok(wire::NextEventResponse {
                lost: u64::MAX,
                exec_id: "\n".repeat(40_000),
                text: "\u{202e}".repeat(40_000),
                at_unix_ns: i64::MIN,
                ..event(1 << 63, &"k".repeat(40_000))
            }),
            ("odd-events", 0x8000_0000_0000_0000) => Ok(event(u64::MAX, "denied")),
            _ => std::future::pending().await,
        }
    }

    async fn delete_container(
        &self,
        _: &TtrpcContext,
        req: wire::DeleteContainerRequest,
    ) -> ttrpc::Result<wire::WaitContainerResponse> {
        if !req.exec_id.is_empty() {
            self.execs.delete(&req.exec_id).await?;
        }
        Ok(wire::WaitContainerResponse::new())
    }

    async fn shutdown(&self, _: &TtrpcContext, _: wire::ShutdownRequest) -> ttrpc::Result<wire::Empty> {
        if matches!(self.mode.as_str(), "deaf" | "hung") {
            std::future::pending::<()>().await;
        }
        self.power_off();
        Ok(wire::Empty::new())
    }
}

fn digest_of(device: &Path) -> Vec<u8> {
    let document = cella_policy::initdata::inflate_device(&std::fs::read(device).unwrap()).unwrap();
    cella_policy::initdata::digests(&document).sha256.to_vec()
}
