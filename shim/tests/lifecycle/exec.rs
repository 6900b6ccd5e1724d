//! Further processes in a container.

use std::time::{Duration, Instant};

use cella_shim::agent::AgentError;
use cella_shim::task::{Phase, TaskError, TerminalSize};
use tokio::io::AsyncWriteExt;
use ttrpc::Code;

use crate::containerd::read_to_end;
use crate::host::Host;

fn code(error: TaskError) -> Code {
    match error.into_status() {
        ttrpc::Error::RpcStatus(status) => status.code.enum_value().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_exec_has_its_own_pipes_status_and_events() {
    let host = Host::new("normal").await;
    let (container, _container_pipes) = host.running().await;
    let processes = host.processes();
    let (exec, mut pipes) = host.executed("e1", &["cat"]).await;
    assert_eq!(exec.pid(), container.pid());
    pipes.stdin.write_all(b"to the exec\n").await.unwrap();
    drop(pipes.stdin);
    exec.io().close_input();
    assert_eq!(exec.exited().await.status, 0);
    assert_eq!(read_to_end(pipes.stdout).await, "to the exec\n");
    assert_eq!(container.phase(), Phase::Running);
    assert!(matches!(
        host.pod.clone().kill(exec.clone(), 9, false).await,
        Err(TaskError::Finished)
    ));
    assert_eq!(host.pod.clone().delete(exec).await.unwrap().status, 0);
    assert!(matches!(host.pod.process("app", "e1"), Err(TaskError::Unknown { .. })));

    // The id is free again.
    let (exec, _pipes) = host.executed("e1", &["exit", "3"]).await;
    assert_eq!(exec.exited().await.status, 3);
    host.pod.clone().delete(exec).await.unwrap();

    host.pod.clone().kill(container.clone(), 15, false).await.unwrap();
    container.exited().await;
    host.pod.clone().delete(container).await.unwrap();
    host.pod.flush_events(Duration::from_secs(5)).await;
    let expected = [
        "create",
        "start",
        "exec-added",
        "exec-started",
        "exit 0 of e1",
        "exec-added",
        "exec-started",
        "exit 3 of e1",
        "exit 143",
        "delete",
    ];
    assert_eq!(host.events.seen(), expected);
    host.assert_clean(&processes).await;
}

#[tokio::test]
async fn each_wrong_request_has_its_code() {
    let host = Host::new("normal").await;
    let (container, _pipes) = host.created().await;
    let (request, _exec_pipes) = host.exec_request("early", &["cat"]);
    let early = host.pod.clone().exec(request).await.unwrap_err();
    assert_eq!(code(early), Code::FAILED_PRECONDITION);
    host.pod.clone().start(container.clone()).await.unwrap();

    let (request, _exec_pipes) = host.exec_request("no", &["denied"]);
    let error = host.pod.clone().exec(request).await.unwrap_err();
    assert!(matches!(
        &error,
        TaskError::Agent(AgentError::Refused {
            code: Code::PERMISSION_DENIED,
            ..
        })
    ));
    assert_eq!(error.message(), "policy denies container \"app\": exec is not allowed");

    let (_exec, _exec_pipes) = host.added("e", &["sleep"]).await;
    let (mut request, _twice_pipes) = host.exec_request("twice", &["sleep"]);
    request.exec_id = "e".into();
    assert_eq!(
        code(host.pod.clone().exec(request.clone()).await.unwrap_err()),
        Code::ALREADY_EXISTS
    );
    request.exec_id = String::new();
    assert_eq!(
        code(host.pod.clone().exec(request.clone()).await.unwrap_err()),
        Code::INVALID_ARGUMENT
    );
    request.id = "other".into();
    assert_eq!(code(host.pod.clone().exec(request).await.unwrap_err()), Code::NOT_FOUND);
    assert_eq!(code(host.pod.process("app", "none").err().unwrap()), Code::NOT_FOUND);

    // It has not started: neither a signal nor a second start does anything to it.
    let exec = host.pod.process("app", "e").unwrap();
    let signalled = host.pod.clone().kill(exec.clone(), 9, false).await.unwrap_err();
    assert_eq!(code(signalled), Code::FAILED_PRECONDITION);
    host.pod.clone().start(exec.clone()).await.unwrap();
    let again = host.pod.clone().start(exec.clone()).await.unwrap_err();
    assert_eq!(code(again), Code::FAILED_PRECONDITION);
    let running = host.pod.clone().delete(exec.clone()).await.unwrap_err();
    assert_eq!(code(running), Code::FAILED_PRECONDITION);
    host.pod.clone().kill(exec.clone(), 9, false).await.unwrap();
    assert_eq!(exec.exited().await.status, 137);
}

#[tokio::test]
async fn an_exec_that_cannot_start_is_stopped_and_can_be_deleted() {
    let host = Host::new("normal").await;
    let (_container, _pipes) = host.running().await;
    let (exec, pipes) = host.added("e", &["missing"]).await;
    let error = host.pod.clone().start(exec.clone()).await.unwrap_err();
    assert_eq!(error.message(), "exec \"missing\": no such file");
    assert_eq!(exec.exited().await.status, 255);
    assert_eq!(read_to_end(pipes.stdout).await, "");
    host.pod.clone().delete(exec).await.unwrap();
    // One that nobody starts can be deleted as well.
    let (exec, pipes) = host.added("never", &["cat"]).await;
    host.pod.clone().delete(exec).await.unwrap();
    assert_eq!(read_to_end(pipes.stdout).await, "");
}

#[tokio::test]
async fn pids_are_as_many_as_the_guest_counts_and_never_none() {
    for (mode, count) in [
        ("normal", 4),
        ("many-processes", 32_768),
        ("no-processes", 2),
        ("mute-processes", 2),
    ] {
        let host = Host::new(mode).await;
        let (process, _pipes) = host.created().await;
        let container = host.pod.container("app").unwrap();
        assert_eq!(host.pod.pids(&container).await.len(), 1, "{mode}: it does not run yet");
        host.pod.clone().start(process.clone()).await.unwrap();
        let (_exec, _exec_pipes) = host.executed("e", &["sleep"]).await;
        let pids = host.pod.pids(&container).await;
        assert_eq!(pids.len(), count, "{mode}");
        assert!(pids.iter().all(|info| info.pid == process.pid()), "{mode}");
        let execs = pids.iter().filter(|info| info.info.is_some()).count();
        assert_eq!(execs, 1, "{mode}");
    }
}

#[tokio::test]
async fn a_containers_execs_end_before_it_does() {
    let host = Host::new("normal").await;
    let (container, _pipes) = host.running().await;
    let (one, _one_pipes) = host.executed("one", &["sleep"]).await;
    let (never, _never_pipes) = host.added("never", &["sleep"]).await;
    host.pod.clone().kill(container.clone(), 9, true).await.unwrap();
    assert_eq!(container.exited().await.status, 137);
    assert_eq!((one.exited().await.status, never.exited().await.status), (137, 137));
    host.pod.flush_events(Duration::from_secs(5)).await;
    let seen = host.events.seen();
    assert_eq!(seen.last().map(String::as_str), Some("exit 137"), "{seen:?}");
    let late = host.exec_request("late", &["sleep"]).0;
    assert_eq!(
        code(host.pod.clone().exec(late).await.unwrap_err()),
        Code::FAILED_PRECONDITION
    );
}

#[tokio::test]
async fn execs_die_with_the_vm() {
    let host = Host::new("normal").await;
    let (container, _pipes) = host.running().await;
    let processes = host.processes();
    let (exec, _exec_pipes) = host.executed("e", &["sleep"]).await;
    let qemu = host.process("qemu");
    tokio::task::spawn_blocking(move || qemu.kill(Duration::from_secs(5)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(exec.exited().await.status, 137);
    assert_eq!(container.exited().await.status, 137);
    host.assert_clean(&processes).await;
    host.pod.clone().delete(exec).await.unwrap();
    host.pod.clone().delete(container).await.unwrap();
}

#[tokio::test]
async fn a_terminal_gets_the_size_that_was_asked_for_early_and_later_ones() {
    let host = Host::new("normal").await;
    let (_container, _pipes) = host.running().await;
    let (mut request, pipes) = host.exec_request("tty", &["tty"]);
    request.terminal = true;
    host.pod.clone().exec(request).await.unwrap();
    let exec = host.pod.process("app", "tty").unwrap();
    let size = |columns, rows| TerminalSize { columns, rows };
    host.pod.resize(&exec, size(80, 24)).await.unwrap();
    host.pod.clone().start(exec.clone()).await.unwrap();
    host.pod.resize(&exec, size(132, 50)).await.unwrap();
    host.pod.clone().kill(exec.clone(), 9, false).await.unwrap();
    exec.exited().await;
    // The early one before it ran: a program that asks at once is told.
    assert_eq!(read_to_end(pipes.stdout).await, "80x24\nruns\n132x50\n");
    assert!(matches!(
        host.pod.resize(&exec, size(1, 1)).await,
        Err(TaskError::Finished)
    ));
    // Without a terminal there is nothing to resize, and nothing wrong with asking.
    let (plain, _plain_pipes) = host.executed("plain", &["sleep"]).await;
    host.pod.resize(&plain, size(1, 1)).await.unwrap();
}

#[tokio::test]
async fn two_hundred_execs_at_once_all_end_right() {
    let host = Host::new("normal").await;
    let (container, _pipes) = host.running().await;
    let processes = host.processes();
    let mut runs = tokio::task::JoinSet::new();
    for number in 0..200_u32 {
        let (request, pipes) = host.exec_request(&format!("e{number}"), &["exit", &(number % 100).to_string()]);
        let pod = host.pod.clone();
        runs.spawn(async move {
            let exec_id = request.exec_id.clone();
            pod.clone().exec(request).await.unwrap();
            let exec = pod.process("app", &exec_id).unwrap();
            pod.clone().start(exec.clone()).await.unwrap();
            assert_eq!(exec.exited().await.status, number % 100);
            drop(pipes);
            pod.delete(exec).await.unwrap();
        });
    }
    while let Some(run) = runs.join_next().await {
        run.unwrap();
    }
    assert!(host.pod.container("app").unwrap().execs().is_empty());
    host.pod.clone().kill(container.clone(), 9, false).await.unwrap();
    container.exited().await;
    host.pod.clone().delete(container).await.unwrap();
    host.assert_clean(&processes).await;
}

#[tokio::test]
async fn output_that_nobody_reads_holds_up_nothing_but_its_writer() {
    let host = Host::new("normal").await;
    let (container, _pipes) = host.running().await;
    // More than the fifo and every buffer hold.
    let (flood, pipes) = host.executed("flood", &["flood", "4000000"]).await;
    let (other, _other_pipes) = host.executed("other", &["exit", "0"]).await;
    assert_eq!(other.exited().await.status, 0);
    assert_eq!(flood.phase(), Phase::Running);
    // Read late, it is whole.
    let text = read_to_end(pipes.stdout).await;
    assert_eq!(text.len(), 4_000_000);
    assert_eq!(flood.exited().await.status, 0);

    // Never read, the exec still can be killed and deleted in bounded time.
    let (flood, pipes) = host.executed("again", &["flood", "4000000"]).await;
    let start = Instant::now();
    drop(pipes);
    tokio::time::timeout(
        Duration::from_secs(20),
        host.pod.clone().kill(container.clone(), 9, true),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(container.exited().await.status, 137);
    host.pod.clone().delete(flood).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[tokio::test]
async fn the_deletion_of_an_exec_waits_for_its_slow_reader_alone() {
    let host = Host::new("normal").await;
    let (_container, _pipes) = host.running().await;
    // More than a fifo holds, and little enough that the process ends.
    let (flood, pipes) = host.executed("e", &["flood", "180000"]).await;
    assert_eq!(flood.exited().await.status, 0);
    let mut delete = tokio::spawn(host.pod.clone().delete(flood));
    let waits = tokio::time::timeout(Duration::from_secs(11), &mut delete).await;
    assert!(waits.is_err(), "containerd's client would drop the rest now");
    assert_eq!(read_to_end(pipes.stdout).await.len(), 180_000);
    assert_eq!(delete.await.unwrap().unwrap().status, 0);
    assert!(host.pod.process("app", "e").is_err());

    // Without a reader there is nothing to wait for.
    let (flood, pipes) = host.executed("f", &["flood", "180000"]).await;
    assert_eq!(flood.exited().await.status, 0);
    drop(pipes);
    let delete = tokio::time::timeout(Duration::from_secs(5), host.pod.clone().delete(flood));
    assert_eq!(delete.await.unwrap().unwrap().status, 0);
}
