//! Programs that are killed.

use std::process::Command;
use std::time::{Duration, Instant};

use cella_shim::cleanup;
use cella_shim::process::{Identity, KillOutcome};
use cella_shim::task::TaskError;
use cella_shim::vm::Outcome;

use crate::host::{Host, script};

const PATIENCE: Duration = Duration::from_secs(5);

async fn kill(process: Identity) {
    let outcome = tokio::task::spawn_blocking(move || process.kill(PATIENCE))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(outcome, KillOutcome::Killed);
}

/// Whatever dies, the container ends with 137, the events are in order and nothing is left.
async fn dies_while_running(program: &str) {
    let host = Host::new("normal").await;
    let (container, _pipes) = host.created().await;
    let processes = host.processes();
    host.pod.clone().start(container.clone()).await.unwrap();
    kill(host.process(program)).await;
    assert_eq!(
        tokio::time::timeout(PATIENCE, container.exited()).await.unwrap().status,
        137
    );
    host.assert_clean(&processes).await;
    let late = host.pod.clone().kill(container.clone(), 9, false).await;
    assert!(matches!(late, Err(TaskError::Finished)));
    assert_eq!(host.pod.clone().delete(container).await.unwrap().status, 137);
    host.pod.flush_events(Duration::from_secs(5)).await;
    assert_eq!(host.events.seen(), ["create", "start", "exit 137", "delete"]);
}

#[tokio::test]
async fn qemu_killed() {
    dies_while_running("qemu").await;
}

#[tokio::test]
async fn vsock_backend_killed() {
    dies_while_running("vhost-device-vsock").await;
}

#[tokio::test]
async fn simulated_platform_killed() {
    dies_while_running("cella-sim-platform").await;
}

#[tokio::test]
async fn qemu_killed_while_models_are_pulled() {
    let host = Host::new("start-hangs").await;
    let (container, _pipes) = host.created().await;
    let processes = host.processes();
    let start = tokio::spawn(host.pod.clone().start(container.clone()));
    tokio::task::yield_now().await;
    kill(host.process("qemu")).await;
    let error = tokio::time::timeout(PATIENCE, start)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    let TaskError::VmGone { outcome } = &error else {
        panic!("{error:?}")
    };
    assert!(
        matches!(outcome.as_ref(), Outcome::Died(death) if death.program == "qemu"),
        "{outcome:?}"
    );
    assert!(
        error.message().starts_with("the VM is gone: qemu ended with signal 9"),
        "{}",
        error.message()
    );
    assert_eq!(container.exited().await.status, 137);
    host.assert_clean(&processes).await;
}

#[tokio::test]
async fn a_lone_container_can_be_killed_while_models_are_pulled() {
    let host = Host::new("start-hangs").await;
    let (container, _pipes) = host.created().await;
    let processes = host.processes();
    let start = tokio::spawn(host.pod.clone().start(container.clone()));
    let deadline = Instant::now() + PATIENCE;
    while container.phase() != cella_shim::task::Phase::Starting {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    host.pod.clone().kill(container.clone(), 9, true).await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(10), start)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.message(), "the VM is gone: it was taken down");
    assert_eq!(container.exited().await.status, 137);
    host.assert_clean(&processes).await;
}

#[tokio::test]
async fn a_guest_that_hangs_does_not_survive_a_sigkill() {
    let host = Host::new("hung").await;
    let (container, _pipes) = host.created().await;
    let processes = host.processes();
    host.pod.clone().start(container.clone()).await.unwrap();
    // QEMU hangs too: its monitor does not answer.
    let stopped = rustix::process::Pid::from_raw(host.process("qemu").pid).unwrap();
    rustix::process::kill_process(stopped, rustix::process::Signal::STOP).unwrap();
    host.pod.clone().kill(container.clone(), 9, true).await.unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(15), container.exited())
        .await
        .unwrap();
    assert_eq!(exit.status, 137);
    host.assert_clean(&processes).await;
}

#[tokio::test]
async fn a_guest_that_falls_silent_while_it_starts_a_container_is_killed() {
    let host = Host::new("silent-at-start").await;
    let (container, _pipes) = host.created().await;
    let processes = host.processes();
    let start = tokio::time::timeout(Duration::from_secs(15), host.pod.clone().start(container.clone()));
    let error = start.await.unwrap().unwrap_err();
    let TaskError::VmGone { outcome } = &error else {
        panic!("{error:?}")
    };
    assert!(matches!(outcome.as_ref(), Outcome::Silent(_)), "{outcome:?}");
    assert!(
        error.message().contains("no sign of life for 2s"),
        "{}",
        error.message()
    );
    assert_eq!(container.exited().await.status, 137);
    host.assert_clean(&processes).await;
}

#[tokio::test]
async fn a_guest_that_falls_silent_later_ends_its_containers() {
    let host = Host::new("silent-later").await;
    let (container, _pipes) = host.running().await;
    let processes = host.processes();
    let exit = tokio::time::timeout(Duration::from_secs(15), container.exited());
    assert_eq!(exit.await.unwrap().status, 137);
    host.assert_clean(&processes).await;
    host.pod.clone().delete(container).await.unwrap();
    host.last_event("delete").await;
    assert_eq!(host.events.seen(), ["create", "start", "exit 137", "delete"]);
}

#[tokio::test]
async fn children_die_with_the_shim_and_delete_cleans_up_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (program, file) = (dir.path().join("parent"), dir.path().join("child.json"));
    script(&program, "parent", "normal");
    let mut parent = Command::new(&program).env("CELLA_FAKE_FILE", &file).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !file.exists() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let child: Identity = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(child.is_alive());
    parent.kill().unwrap();
    parent.wait().unwrap();
    while child.is_alive() {
        assert!(Instant::now() < deadline, "the child outlives its shim");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn delete_after_a_shims_death_removes_what_is_left() {
    let host = Host::new("normal").await;
    let (_container, _pipes) = host.created().await;
    let processes = host.processes();
    // The shim in this process lives on and loses its VM, as far as files and programs go like a dead one.
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let (bundle, log2) = (host.bundle(), log.clone());
    tokio::task::spawn_blocking(move || cleanup::clean_up(&bundle, "test", "app", &log2))
        .await
        .unwrap()
        .unwrap();
    host.assert_clean(&processes).await;
    cleanup::clean_up(&host.bundle(), "test", "app", &log).unwrap();
}
