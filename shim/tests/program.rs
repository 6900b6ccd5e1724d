//! The program as containerd runs it: `start` in a bundle, its socket, `delete` after its death; and failures on demand.
#![cfg(feature = "failpoints")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is test code"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use containerd_shim::DeleteResponse;
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::sandbox_api::ShutdownSandboxRequest;
use containerd_shim::protos::sandbox_async::SandboxClient;
use containerd_shim::protos::shim::shim::{
    ConnectRequest, CreateTaskRequest, PidsRequest, ShutdownRequest, StateRequest,
};
use containerd_shim::protos::shim_async::{Client, TaskClient};
use containerd_shim::protos::ttrpc::{self, Code};
use ttrpc::context::{Context, with_timeout};

const PREFIX: &str = "io.containerd.runtime.v2.shim.failpoint.";
const PATIENCE: Duration = Duration::from_secs(20);

/// A shim of its own, started in a bundle with these failpoints. Whatever is left of it goes with it.
struct Shim {
    bundle: tempfile::TempDir,
    socket: PathBuf,
    client: Client,
    task: TaskClient,
    pid: i32,
}

impl Shim {
    async fn start(failpoints: &[(&str, &str)]) -> Self {
        let bundle = tempfile::tempdir().unwrap();
        let annotations: serde_json::Map<_, _> = failpoints
            .iter()
            .map(|(method, terms)| (format!("{PREFIX}{method}"), (*terms).into()))
            .collect();
        let spec = serde_json::json!({ "process": { "args": ["/bin/app"], "cwd": "/" }, "annotations": annotations });
        fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
        let started = invoke(&bundle, "start");
        assert!(started.status.success(), "{started:?}");
        let answer: serde_json::Value = serde_json::from_slice(&started.stdout).unwrap();
        let address = answer["address"].as_str().unwrap().to_owned();
        let client = Client::connect(&address).await.unwrap();
        let task = TaskClient::new(client.clone());
        let request = ConnectRequest {
            id: "app".into(),
            ..Default::default()
        };
        let pid = task.connect(within(), &request).await.unwrap().shim_pid;
        Self {
            bundle,
            client,
            socket: address.strip_prefix("unix://").unwrap().into(),
            task,
            pid: pid.try_into().unwrap(),
        }
    }

    async fn create(&self) -> String {
        let request = CreateTaskRequest {
            id: "app".into(),
            bundle: self.bundle.path().display().to_string(),
            // The shim itself refuses this, before it starts anything.
            stdout: "binary:///bin/logger".into(),
            ..Default::default()
        };
        status(self.task.create(within(), &request).await).1
    }

    fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // A zombie is only waiting for whoever adopted it.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    async fn ends(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.is_alive() {
            assert!(Instant::now() < deadline, "the shim lives on");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if self.is_alive()
            && let Some(pid) = rustix::process::Pid::from_raw(self.pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        drop(fs::remove_file(&self.socket));
    }
}

fn invoke(bundle: &tempfile::TempDir, action: &str) -> Output {
    let containerd = bundle.path().join("c.sock");
    Command::new(env!("CARGO_BIN_EXE_containerd-shim-cella-v2"))
        .current_dir(bundle)
        .env("TTRPC_ADDRESS", bundle.path().join("events.sock"))
        .args(["-namespace", "failpoints", "-id", "app", "-address"])
        .arg(containerd)
        .arg("-bundle")
        .arg(bundle.path())
        .arg(action)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn within() -> Context {
    with_timeout(i64::try_from(PATIENCE.as_nanos()).unwrap())
}

fn status<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (Code, String) {
    match result.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => (status.code.enum_value().unwrap(), status.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn errors_and_delays_come_and_are_used_up_and_the_shim_lives() {
    let shim = Shim::start(&[
        ("Create", "1*error(no room)->1*off->1*error(no room again)"),
        ("State", "1*delay(700)"),
        ("Shutdown", "1*error(not now)"),
    ])
    .await;
    assert_eq!(shim.create().await, "no room");
    let own = shim.create().await;
    assert!(own.contains("binary:"), "the shim's own word: {own}");
    assert_eq!(shim.create().await, "no room again");

    let request = StateRequest {
        id: "app".into(),
        ..Default::default()
    };
    for least in [Duration::from_millis(700), Duration::ZERO] {
        let begun = Instant::now();
        assert_eq!(status(shim.task.state(within(), &request).await).0, Code::NOT_FOUND);
        assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    }

    let request = ShutdownRequest {
        id: "app".into(),
        ..Default::default()
    };
    let refused = status(shim.task.shutdown(within(), &request).await);
    assert_eq!(refused, (Code::UNKNOWN, "not now".to_owned()));
    assert!(shim.is_alive() && shim.socket.exists());
    shim.task.shutdown(within(), &request).await.unwrap();
    shim.ends().await;
    assert!(!shim.socket.exists(), "the socket of a shim that ended by itself");
}

#[tokio::test]
async fn a_shim_that_containerd_gave_up_without_a_word_ends() {
    let shim = Shim::start(&[]).await;
    fs::remove_dir_all(shim.bundle.path()).unwrap();
    shim.ends().await;
    assert!(!shim.socket.exists());
}

#[tokio::test]
async fn the_request_that_ends_the_shim_is_answered() {
    for _ in 0..20 {
        let shim = Shim::start(&[]).await;
        let request = ShutdownSandboxRequest {
            sandbox_id: "app".into(),
            ..Default::default()
        };
        let sandbox = SandboxClient::new(shim.client.clone());
        sandbox.shutdown_sandbox(within(), &request).await.unwrap();
        shim.ends().await;
    }
}

#[tokio::test]
async fn a_panic_ends_the_shim_and_delete_removes_what_is_left() {
    let shim = Shim::start(&[("Pids", "1*panic(boom)")]).await;
    let request = PidsRequest {
        id: "app".into(),
        ..Default::default()
    };
    let gone = shim.task.pids(within(), &request).await.unwrap_err();
    assert!(!matches!(gone, ttrpc::Error::RpcStatus(_)), "{gone:?}");
    shim.ends().await;
    assert!(shim.socket.exists(), "nobody was left to remove it");
    // As after a full disk, on which nothing could be noted.
    fs::write(shim.bundle.path().join("address"), "").unwrap();
    for _ in 0..2 {
        let deleted = invoke(&shim.bundle, "delete");
        assert!(deleted.status.success(), "{deleted:?}");
        let answer = DeleteResponse::parse_from_bytes(&deleted.stdout).unwrap();
        assert_eq!(answer.exit_status, 137);
        assert!(!shim.socket.exists());
    }
}
