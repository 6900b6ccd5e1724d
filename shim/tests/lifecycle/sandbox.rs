//! The Sandbox API, over a real socket.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cella_policy::initdata;
use cella_shim::sandbox::SandboxService;
use cella_shim::sandbox::config::{
    DnsConfig, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption, PodSandboxConfig,
};
use cella_shim::task::{TaskError, TaskService};
use containerd_shim::protos::cgroups_v2::metrics::Metrics;
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::sandbox_api as wire;
use containerd_shim::protos::sandbox_async::{SandboxClient, create_sandbox};
use containerd_shim::protos::shim::shim::{ShutdownRequest, StateRequest};
use containerd_shim::protos::shim_async::{Client, TaskClient, create_task};
use prost::Message as _;
use ttrpc::Code;
use ttrpc::asynchronous::Server;
use ttrpc::context::{Context, with_timeout};

use crate::host::{DOCUMENT, Host, INITDATA};

const MEMBER: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "container"),
    ("io.kubernetes.cri.sandbox-id", "pod"),
];

/// containerd's side of a shim's socket.
struct Shim {
    sandbox: SandboxClient,
    task: TaskClient,
    _server: Server,
}

impl Shim {
    async fn serve(host: &Host) -> Self {
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let address = format!("unix://{}/shim.sock", host.path().display());
        let sandbox = SandboxService::new(host.pod.clone(), Some(host.options()), log.clone());
        let task = TaskService::new(host.pod.clone(), log);
        let mut server = Server::new()
            .bind(&address)
            .unwrap()
            .register_service(create_task(Arc::new(task)))
            .register_service(create_sandbox(Arc::new(sandbox)));
        server.start().await.unwrap();
        let client = Client::connect(&address).await.unwrap();
        Self {
            sandbox: SandboxClient::new(client.clone()),
            task: TaskClient::new(client),
            _server: server,
        }
    }

    async fn state(&self) -> String {
        let request = wire::SandboxStatusRequest {
            sandbox_id: "pod".into(),
            ..Default::default()
        };
        self.sandbox.sandbox_status(within(), &request).await.unwrap().state
    }
}

fn within() -> Context {
    with_timeout(20_000_000_000)
}

fn pod() -> PodSandboxConfig {
    PodSandboxConfig {
        hostname: "cell".into(),
        dns_config: Some(DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        }),
        annotations: [(INITDATA.to_owned(), initdata::encode_annotation(DOCUMENT))].into(),
        linux: Some(LinuxPodSandboxConfig {
            sysctls: [("net.ipv4.tcp_syncookies".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn create(host: &Host, pod: &PodSandboxConfig) -> wire::CreateSandboxRequest {
    wire::CreateSandboxRequest {
        sandbox_id: "pod".into(),
        bundle_path: host.bundle().display().to_string(),
        options: Some(Any {
            type_url: "runtime.v1.PodSandboxConfig".into(),
            value: pod.encode_to_vec(),
            ..Default::default()
        })
        .into(),
        annotations: HashMap::new(),
        ..Default::default()
    }
}

fn code<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> Code {
    match result.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => status.code.enum_value().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_pod_from_create_to_shutdown_without_a_task_for_its_vm() {
    let host = Host::new("normal").await;
    let shim = Shim::serve(&host).await;
    shim.sandbox
        .create_sandbox(within(), &create(&host, &pod()))
        .await
        .unwrap();
    let again = shim.sandbox.create_sandbox(within(), &create(&host, &pod())).await;
    assert_eq!(code(again), Code::ALREADY_EXISTS);
    let processes = host.processes();
    let request = wire::StartSandboxRequest {
        sandbox_id: "pod".into(),
        ..Default::default()
    };
    let started = shim.sandbox.start_sandbox(within(), &request).await.unwrap();
    assert_eq!(started.pid, processes[2].pid.unsigned_abs());
    assert!(started.created_at.seconds > 0);
    assert_eq!(shim.state().await, "SANDBOX_READY");
    let platform = shim
        .sandbox
        .platform(within(), &wire::PlatformRequest::default())
        .await
        .unwrap();
    assert_eq!(
        (platform.platform.os.as_str(), platform.platform.architecture.as_str()),
        ("linux", "amd64")
    );
    // What CRI said about the pod has reached the guest.
    let network = std::fs::read_to_string(host.run_dir().join("network")).unwrap();
    for expected in [
        "cell",
        "10.96.0.10",
        "svc.cluster.local",
        "ndots:5",
        "net.ipv4.tcp_syncookies",
    ] {
        assert!(network.contains(expected), "{expected} in {network}");
    }

    host.pod.create(host.cri_request("member", &MEMBER)).await.unwrap();
    let member = host.pod.process("member", "").unwrap();
    host.pod.clone().start(member.clone()).await.unwrap();
    let metrics = wire::SandboxMetricsRequest {
        sandbox_id: "pod".into(),
        ..Default::default()
    };
    let metrics = shim.sandbox.sandbox_metrics(within(), &metrics).await.unwrap().metrics;
    assert_eq!(Metrics::parse_from_bytes(&metrics.data.value).unwrap().pids.current, 42);

    let wait = wire::WaitSandboxRequest {
        sandbox_id: "pod".into(),
        ..Default::default()
    };
    let (waiter, stop) = (
        shim.sandbox.clone(),
        wire::StopSandboxRequest {
            sandbox_id: "pod".into(),
            ..Default::default()
        },
    );
    let waiter = tokio::spawn(async move { waiter.wait_sandbox(within(), &wait).await });
    shim.sandbox.stop_sandbox(within(), &stop).await.unwrap();
    assert_eq!(waiter.await.unwrap().unwrap().exit_status, 137);
    assert_eq!(member.exited().await.status, 137);
    assert_eq!(shim.state().await, "SANDBOX_NOTREADY");
    shim.sandbox.stop_sandbox(within(), &stop).await.unwrap();
    let ping = wire::PingRequest {
        sandbox_id: "pod".into(),
        ..Default::default()
    };
    assert_eq!(
        code(shim.sandbox.ping_sandbox(within(), &ping).await),
        Code::FAILED_PRECONDITION
    );
    host.assert_clean(&processes).await;
    host.pod.clone().delete(member).await.unwrap();
    // Containers are tasks and have events; the VM is none.
    host.pod.flush_events(Duration::from_secs(5)).await;
    assert_eq!(host.events.seen(), ["create", "start", "exit 137", "delete"]);
    // The sandbox is still known, so Shutdown of the Task service leaves the shim alone.
    shim.task.shutdown(within(), &ShutdownRequest::default()).await.unwrap();
    let shutdown = wire::ShutdownSandboxRequest {
        sandbox_id: "pod".into(),
        ..Default::default()
    };
    shim.sandbox.shutdown_sandbox(within(), &shutdown).await.unwrap();
    host.exit.wait().await;
    assert!(host.pod.is_idle());
}

#[tokio::test]
async fn a_shutdown_in_the_middle_leaves_nothing() {
    let host = Host::new("normal").await;
    let shim = Shim::serve(&host).await;
    shim.sandbox
        .create_sandbox(within(), &create(&host, &pod()))
        .await
        .unwrap();
    let processes = host.processes();
    host.pod.create(host.cri_request("member", &MEMBER)).await.unwrap();
    let shutdown = wire::ShutdownSandboxRequest::default();
    shim.sandbox.shutdown_sandbox(within(), &shutdown).await.unwrap();
    host.exit.wait().await;
    host.assert_clean(&processes).await;
    assert!(host.pod.is_idle());
}

#[tokio::test]
async fn what_is_wrong_with_a_sandbox_has_its_code() {
    let host = Host::new("normal").await;
    let shim = Shim::serve(&host).await;
    let status = wire::SandboxStatusRequest {
        sandbox_id: "nobody".into(),
        ..Default::default()
    };
    assert_eq!(
        code(shim.sandbox.sandbox_status(within(), &status).await),
        Code::NOT_FOUND
    );
    let state = StateRequest {
        id: "nobody".into(),
        ..Default::default()
    };
    assert_eq!(code(shim.task.state(within(), &state).await), Code::NOT_FOUND);
    let mut request = create(&host, &pod());
    request.options.as_mut().unwrap().value = vec![0xff; 9];
    assert_eq!(
        code(shim.sandbox.create_sandbox(within(), &request).await),
        Code::INVALID_ARGUMENT
    );
    let nothing = PodSandboxConfig::default();
    assert_eq!(
        code(shim.sandbox.create_sandbox(within(), &create(&host, &nothing)).await),
        Code::INVALID_ARGUMENT,
        "no initdata"
    );
    host.assert_clean(&[]).await;
}

#[tokio::test]
async fn a_container_in_a_namespace_of_the_host_is_refused_by_its_name() {
    let host = Host::new("host-namespaces").await;
    let mut pod = pod();
    pod.linux.get_or_insert_default().security_context = Some(LinuxSandboxSecurityContext {
        namespace_options: Some(NamespaceOption {
            pid: 2,
            ..Default::default()
        }),
    });
    let shim = Shim::serve(&host).await;
    shim.sandbox
        .create_sandbox(within(), &create(&host, &pod))
        .await
        .unwrap();
    let mut request = host.cri_request("member", &MEMBER);
    let spec = std::fs::read_to_string(host.bundle().join("config.json")).unwrap();
    let mut spec: serde_json::Value = serde_json::from_str(&spec).unwrap();
    let namespace = |kind: &str| serde_json::json!({ "type": kind, "path": format!("/proc/7/ns/{kind}") });
    let shared: Vec<_> = ["pid", "ipc", "uts", "network"].map(namespace).into();
    spec["linux"] = serde_json::json!({ "namespaces": shared });
    spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(serde_json::json!({ "type": "mount" }));
    std::fs::write(host.bundle().join("config.json"), spec.to_string()).unwrap();
    request.id = "member".into();
    let refused: TaskError = host.pod.create(request).await.unwrap_err();
    assert_eq!(refused.message(), "policy denies host namespaces: pid");
    host.pod.shutdown_sandbox().await;
}
