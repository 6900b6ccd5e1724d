//! T3 on running containers: what of their output leaves the guest.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod common;

use cella_agent::pod::EventKind;
use common::{LIMIT, Machine, is_root, policy, process};
use tokio::{io::AsyncReadExt, time::timeout};

const PRINTS: &str = "i=0; while [ $i -lt 40 ]; do echo canary; i=$((i+1)); done; echo canary >&2; read x; exit 3";

/// The texts of the events about output, until each of `wanted` has begun one.
async fn amounts(machine: &Machine, wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    let (mut told, mut after) = (Vec::new(), 0);
    let is_there = |told: &[(String, String)], (exec, start): &(&str, &str)| {
        told.iter().any(|(id, text)| id == exec && text.starts_with(start))
    };
    while !wanted.iter().all(|one| is_there(&told, one)) {
        let event = timeout(LIMIT, machine.containers.pod().events().next(after)).await;
        let event = event.unwrap_or_else(|_| panic!("{told:?}"));
        after = event.number;
        assert!(!event.text.contains("canary"), "{event:?}");
        if matches!(event.kind, EventKind::Output(_)) {
            told.push((event.exec_id, event.text));
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_redacted_output_is_counted_and_never_told() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let redacted = policy(
        &["/bin/sh", "-c", PRINTS],
        &[("stdio = \"allow\"", "stdio = \"redact\"")],
    );
    let numbers = machine.create(&redacted).unwrap();
    assert_eq!((numbers.stdin, numbers.stdout, numbers.stderr), (0, 0, 0));
    machine.start().await.unwrap();
    assert_eq!(machine.wait().await.exit.status, 3, "its input is empty, not shut");
    let all = [
        ("", "stdout: at most 64 lines, 512 bytes in all"),
        ("", "stderr: at most 1 line, 8 bytes in all"),
    ];
    let told = amounts(&machine, &all).await;
    assert!(told.len() <= 4, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_each_stream_and_each_exec_follows_the_policy() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let mixed = policy(
        &["/bin/sh", "-c", "echo shown; echo canary >&2; exec sleep 1000"],
        &[(
            "stdio = \"allow\"",
            "stdio = { stdout = \"allow\", stderr = \"redact\" }",
        )],
    );
    let numbers = machine.create(&mixed).unwrap();
    assert_eq!((numbers.stdin, numbers.stderr), (0, 0));
    let mut out = machine.claim(numbers.stdout).await;
    machine.start().await.unwrap();
    let mut shown = [0; 6];
    timeout(LIMIT, out.read_exact(&mut shown)).await.unwrap().unwrap();
    assert_eq!(&shown, b"shown\n");
    let exec = machine
        .exec("e1", process(&["/bin/sh", "-c", "echo shown; echo canary >&2"]))
        .await
        .unwrap();
    assert_eq!((exec.stdin, exec.stderr), (0, 0));
    let mut text = String::new();
    let mut out = machine.claim(exec.stdout).await;
    timeout(LIMIT, out.read_to_string(&mut text)).await.unwrap().unwrap();
    assert_eq!(text, "shown\n");
    let first = "stderr: at most 1 line, 8 bytes";
    amounts(&machine, &[("", first), ("e1", first)]).await;
    machine.containers.kill_all(LIMIT).await;
}
