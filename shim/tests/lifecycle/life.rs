//! A container that behaves.

use std::time::{Duration, Instant};

use cella_shim::task::TaskError;
use tokio::io::AsyncWriteExt;

use crate::containerd::read_to_end;
use crate::host::Host;

#[tokio::test]
async fn from_create_to_delete_with_all_three_pipes() {
    let host = Host::new("slow-boot").await;
    let (container, mut pipes) = host.created().await;
    let processes = host.processes();
    let names: Vec<_> = processes.iter().map(|process| process.name.as_str()).collect();
    assert_eq!(names, ["cella-sim-platform", "vhost-device-vsock", "qemu"]);
    assert_eq!(container.pid(), processes[2].pid.unsigned_abs());

    host.pod.clone().start(container.clone()).await.unwrap();
    pipes.stdin.write_all(b"a question\n").await.unwrap();
    drop(pipes.stdin);
    let stdout = tokio::spawn(read_to_end(pipes.stdout));
    // containerd's writer is gone, but only CloseIO is the end of stdin.
    assert!(
        tokio::time::timeout(Duration::from_millis(200), container.exited())
            .await
            .is_err()
    );
    container.io().close_input();
    let exit = container.exited().await;
    assert_eq!(exit.status, 7);
    assert!(
        exit.at <= std::time::SystemTime::now(),
        "the guest said it ended in the far future"
    );
    // Everything was delivered before the exit was.
    assert_eq!(
        stdout.await.unwrap(),
        "hello from the guest\na question\nbye\nlast words\n"
    );
    assert_eq!(read_to_end(pipes.stderr).await, "a warning\n");

    assert_eq!(host.pod.clone().delete(container).await.unwrap().status, 7);
    host.pod.flush_events(Duration::from_secs(5)).await;
    assert_eq!(host.events.seen(), ["create", "start", "exit 7", "delete"]);
    host.assert_clean(&processes).await;
    assert!(host.pod.is_idle());
    assert!(host.pod.shutdown().await);
    host.exit.wait().await;
}

#[tokio::test]
async fn a_signal_goes_through_the_agent() {
    let host = Host::new("normal").await;
    let (container, _pipes) = host.created().await;
    let processes = host.processes();
    host.pod.clone().start(container.clone()).await.unwrap();
    let early = host.pod.clone().delete(container.clone()).await;
    assert!(matches!(early, Err(TaskError::Phase { wanted: "stopped", .. })));
    host.pod.clone().kill(container.clone(), 15, false).await.unwrap();
    assert_eq!(container.exited().await.status, 143);
    let late = host.pod.clone().kill(container.clone(), 9, false).await;
    assert!(matches!(late, Err(TaskError::Finished)));
    host.pod.clone().delete(container).await.unwrap();
    host.assert_clean(&processes).await;
}

#[tokio::test]
async fn a_signal_that_comes_too_late_finds_nothing() {
    let host = Host::new("signal-late").await;
    let (container, _pipes) = host.created().await;
    host.pod.clone().start(container.clone()).await.unwrap();
    let late = host.pod.clone().kill(container.clone(), 15, false).await;
    assert!(matches!(late, Err(TaskError::Finished)), "{late:?}");
}

#[tokio::test]
async fn pipes_that_the_policy_keeps_inside_end_at_once() {
    let host = Host::new("stdio-deny").await;
    let (container, pipes) = host.created().await;
    let processes = host.processes();
    assert_eq!(read_to_end(pipes.stdout).await, "");
    assert_eq!(read_to_end(pipes.stderr).await, "");
    host.pod.clone().kill(container.clone(), 9, false).await.unwrap();
    assert_eq!(host.pod.clone().delete(container).await.unwrap().status, 137);
    host.assert_clean(&processes).await;
}

#[tokio::test]
async fn a_guest_that_does_not_shut_down_is_taken_down() {
    let host = Host::new("deaf").await;
    let (container, _pipes) = host.created().await;
    let processes = host.processes();
    let start = Instant::now();
    host.pod.clone().delete(container).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    host.assert_clean(&processes).await;
}

#[tokio::test]
async fn a_pod_is_a_sandbox_and_its_members() {
    let host = Host::new("normal").await;
    let sandbox = host.cri_request("pod", &[("io.kubernetes.cri.container-type", "sandbox")]);
    host.pod.create(sandbox).await.unwrap();
    let sandbox = host.pod.process("pod", "").unwrap();
    let processes = host.processes();
    assert_eq!(
        host.pod.clone().start(sandbox.clone()).await.unwrap(),
        processes[2].pid.unsigned_abs()
    );

    let member = [
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.sandbox-id", "pod"),
    ];
    host.pod.create(host.cri_request("member", &member)).await.unwrap();
    let container = host.pod.process("member", "").unwrap();
    host.pod.clone().start(container.clone()).await.unwrap();
    assert_eq!(container.pid(), sandbox.pid());
    assert!(!host.pod.shutdown().await);

    // The VM outlives its containers, and goes with the sandbox's process.
    host.pod.clone().kill(container.clone(), 15, false).await.unwrap();
    assert_eq!(container.exited().await.status, 143);
    host.pod.clone().delete(container).await.unwrap();
    assert!(host.process("qemu").is_alive());
    host.pod.clone().kill(sandbox.clone(), 9, false).await.unwrap();
    assert_eq!(sandbox.exited().await.status, 137);
    host.assert_clean(&processes).await;
    host.pod.clone().delete(sandbox).await.unwrap();
    host.pod.flush_events(Duration::from_secs(5)).await;
    let expected = [
        "create", "start", "create", "start", "exit 143", "delete", "exit 137", "delete",
    ];
    assert_eq!(host.events.seen(), expected);
    assert!(host.pod.shutdown().await);
}
