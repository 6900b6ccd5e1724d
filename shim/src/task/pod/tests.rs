use slog::o;

use super::process::NOT_STARTED;
use super::*;

fn pod() -> Arc<Pod> {
    let log = Logger::root(slog::Discard, o!());
    Arc::new(Pod::new(PodParts {
        containerd: "/run/c.sock".into(),
        namespace: "default".into(),
        events: Publisher::start("/nonexistent/events.sock", "default", log.clone()),
        exit: Arc::default(),
        spawner: Spawner::start().unwrap(),
        verbosity: Verbosity::new(slog::Level::Info),
        log,
    }))
}

fn bundle(config: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    dir
}

fn request(bundle: &Path) -> CreateTaskRequest {
    CreateTaskRequest {
        id: "c1".into(),
        bundle: bundle.display().to_string(),
        ..Default::default()
    }
}

fn process(id: &str) -> Process {
    let (stdio, io) = (Stdio::default(), Copies::default());
    Process::new(ProcessId::first(id), Kind::Workload, 7, stdio, io)
}

#[tokio::test]
async fn a_failed_create_leaves_an_idle_pod_that_shuts_down() {
    let pod = pod();
    let bundle = bundle("{}");
    let error = pod.create(request(bundle.path())).await.unwrap_err();
    assert!(matches!(error, TaskError::Config(_)), "{error:?}");
    assert!(
        error.message().contains("/etc/cella/config.toml"),
        "{}",
        error.message()
    );
    assert!(pod.is_idle());
    assert!(matches!(pod.container("c1"), Err(TaskError::Unknown { .. })));
    assert!(pod.shutdown().await);
    pod.parts.exit.wait().await;
}

#[tokio::test]
async fn a_member_needs_its_sandbox() {
    let pod = pod();
    let annotations =
        r#"{"annotations": {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "s"}}"#;
    let bundle = bundle(annotations);
    let error = pod.create(request(bundle.path())).await.unwrap_err();
    assert!(matches!(error, TaskError::NoVm { state: "is not up" }), "{error:?}");
}

#[tokio::test]
async fn log_drivers_and_checkpoints_are_refused_first() {
    let pod = pod();
    let mut req = request(Path::new("/nonexistent"));
    req.stdout = "binary:///usr/bin/logger".into();
    assert!(matches!(
        pod.create(req).await,
        Err(TaskError::StdioKind { pipe: "stdout", .. })
    ));
    let mut req = request(Path::new("/nonexistent"));
    req.checkpoint = "/x".into();
    assert!(matches!(pod.create(req).await, Err(TaskError::Unsupported { .. })));
    let missing = pod.create(request(Path::new("/nonexistent"))).await;
    assert!(matches!(missing, Err(TaskError::Bundle(_))));
}

#[tokio::test]
async fn a_container_that_never_started_can_be_killed_and_deleted() {
    let pod = pod();
    pod.adopt(Container::new("/b", process("c1")), None, None).unwrap();
    let container = pod.process("c1", "").unwrap();
    let again = pod.adopt(Container::new("/b", process("c1")), None, None);
    assert!(matches!(again, Err(TaskError::Exists { .. })));
    let early = pod.clone().kill(container.clone(), 28, false).await;
    assert!(matches!(early, Err(TaskError::Phase { .. })));
    assert!(!pod.shutdown().await, "a container is left");
    pod.clone().kill(container.clone(), 9, true).await.unwrap();
    assert_eq!(container.exited().await.status, 137);
    assert!(matches!(
        pod.clone().kill(container.clone(), 9, true).await,
        Err(TaskError::Finished)
    ));
    assert_eq!(pod.clone().delete(container.clone()).await.unwrap().status, 137);
    assert!(matches!(
        pod.clone().delete(container).await,
        Err(TaskError::Unknown { .. })
    ));
    assert!(pod.is_idle());
}

#[tokio::test]
async fn a_start_without_vm_stops_the_container() {
    let pod = pod();
    pod.adopt(Container::new("/b", process("c1")), None, None).unwrap();
    let container = pod.process("c1", "").unwrap();
    assert!(matches!(
        pod.clone().start(container.clone()).await,
        Err(TaskError::NoVm { .. })
    ));
    assert_eq!(container.exited().await.status, NOT_STARTED);
}
