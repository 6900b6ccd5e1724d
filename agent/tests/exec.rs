//! Further processes in a running container, and terminals.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::time::Duration;

use cella_agent::{
    container::{ContainerError, StreamNumbers},
    launch::{LaunchError, TerminalSize},
};
use cella_policy::check::AdmittedProcess;
use common::{LIMIT, Machine, exec_id, id, is_root, policy, process, script};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

/// A container that stays until it is killed.
async fn running() -> Machine {
    let machine = Machine::new();
    machine.create(&script("while :; do sleep 0.2; done")).unwrap();
    machine.start().await.unwrap();
    machine
}

async fn end(machine: &Machine) {
    machine.containers.signal(&id().first_process(), 9, true).unwrap();
    machine.wait().await;
    machine.containers.delete(&id().first_process()).await.unwrap();
}

/// Reads to the end of the stream.
async fn text(mut stream: UnixStream) -> String {
    let mut read = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut read)).await.unwrap().unwrap();
    String::from_utf8(read).unwrap()
}

/// Runs a script in the container: status, output, error output.
async fn run(machine: &Machine, name: &str, script: &str) -> (u32, String, String) {
    let numbers = machine.exec(name, process(&["/bin/sh", "-c", script])).await.unwrap();
    let (out, err) = (machine.claim(numbers.stdout).await, machine.claim(numbers.stderr).await);
    let (out, err) = (text(out).await, text(err).await);
    (machine.wait_exec(name).await.exit.status, out, err)
}

fn on_terminal(args: &[&str]) -> AdmittedProcess {
    AdmittedProcess {
        terminal: true,
        ..process(args)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_process_is_in_its_containers_world() {
    if !is_root() {
        return;
    }
    let machine = running().await;
    let seen = "hostname; cat /models/demo/weights.gguf; echo; id -u; tr '\\0' ' ' </proc/1/cmdline; echo; \
                echo complaint >&2; exit 7";
    let (status, out, err) = run(&machine, "e1", seen).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["pod-1", "weights", "65534"], "{out}{err}");
    assert!(lines[3].starts_with("/bin/sh -c while"), "{out}");
    assert_eq!((status, err.as_str()), (7, "complaint\n"));
    // Nothing more than the policy's process has, and nothing of the agent is open.
    let rights =
        "grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\n\\t'; ls /proc/self/fd | wc -l";
    let (_, out, _) = run(&machine, "e2", rights).await;
    let none = "0000000000000000";
    assert_eq!(out, format!("CapEff:{none}CapBnd:{none}NoNewPrivs:1Seccomp:24\n"));
    end(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_process_has_states_of_its_own() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    machine.create(&script("while :; do sleep 0.2; done")).unwrap();
    let early = machine.add_exec("e1", process(&["/bin/true"])).unwrap_err();
    assert!(
        matches!(early, ContainerError::State { state: "created", .. }),
        "{early}"
    );
    machine.start().await.unwrap();

    machine.add_exec("e1", process(&["/bin/cat"])).unwrap();
    let again = machine.add_exec("e1", process(&["/bin/cat"])).unwrap_err();
    assert_eq!(again.to_string(), "process e1 of container c1 exists already");
    let signal = |number| machine.containers.signal(&exec_id("e1"), number, false);
    assert!(matches!(signal(9), Err(ContainerError::State { state: "created", .. })));
    let exec = "e1".parse().unwrap();
    let pid = machine.containers.start_exec(&id(), &exec).await.unwrap();
    assert!(machine.containers.processes(&id()).unwrap().contains(&pid));
    assert!(matches!(
        machine.containers.start_exec(&id(), &exec).await,
        Err(ContainerError::State { state: "running", .. })
    ));
    assert!(matches!(
        machine.containers.delete(&exec_id("e1")).await,
        Err(ContainerError::State { state: "running", .. })
    ));
    signal(9).unwrap();
    assert_eq!(machine.wait_exec("e1").await.exit.status, 137);
    assert!(matches!(signal(9), Err(ContainerError::State { state: "stopped", .. })));
    let ended = machine.containers.delete(&exec_id("e1")).await.unwrap();
    assert_eq!((ended.exit.status, ended.out_of_memory), (137, false));
    assert!(matches!(
        machine.containers.wait(&exec_id("e1")).await,
        Err(ContainerError::Unknown { .. })
    ));

    // Never started.
    machine.add_exec("e1", process(&["/bin/cat"])).unwrap();
    assert_eq!(
        machine.containers.delete(&exec_id("e1")).await.unwrap().exit.status,
        137
    );
    end(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_process_that_cannot_start_says_why() {
    if !is_root() {
        return;
    }
    let machine = running().await;
    for (index, (plan, expected)) in [
        (
            process(&["no-such"]),
            "exec: \"no-such\": executable file not found in $PATH",
        ),
        (process(&["/etc/passwd"]), "exec: \"/etc/passwd\": permission denied"),
        (
            AdmittedProcess {
                cwd: "/no/such".into(),
                ..process(&["/bin/true"])
            },
            "cwd /no/such: No such file or directory",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("e{index}");
        let error = machine.exec(&name, plan).await.unwrap_err();
        let ContainerError::Launch(LaunchError::Step(line)) = &error else {
            panic!("{error:?}")
        };
        assert_eq!(line, expected);
        assert_eq!(machine.wait_exec(&name).await.exit.status, 255);
        machine.containers.delete(&exec_id(&name)).await.unwrap();
    }
    end(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_first_process_ends_all_others() {
    if !is_root() {
        return;
    }
    let machine = running().await;
    machine.exec("e1", process(&["/bin/sleep", "100"])).await.unwrap();
    machine.add_exec("e2", process(&["/bin/sleep", "100"])).unwrap();
    machine.containers.signal(&id().first_process(), 9, false).unwrap();
    assert_eq!(machine.wait().await.exit.status, 137);
    assert_eq!(machine.wait_exec("e1").await.exit.status, 137);
    let late = machine.containers.start_exec(&id(), &"e2".parse().unwrap()).await;
    assert!(
        matches!(late, Err(ContainerError::State { state: "stopped", .. })),
        "{late:?}"
    );
    // Goes with its container.
    machine.containers.delete(&id().first_process()).await.unwrap();
    assert!(matches!(
        machine.containers.wait(&exec_id("e1")).await,
        Err(ContainerError::Unknown { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_processes_at_once_all_answer() {
    if !is_root() {
        return;
    }
    let machine = running().await;
    let one = |index: usize| {
        let machine = &machine;
        async move {
            let name = format!("e{index}");
            let plan = process(&["/bin/sh", "-c", &format!("cat; exit {}", index % 200)]);
            let StreamNumbers { stdin, stdout, .. } = machine.add_exec(&name, plan).unwrap();
            let (mut input, output) = (machine.claim(stdin).await, machine.claim(stdout).await);
            let exec = name.parse().unwrap();
            machine.containers.start_exec(&id(), &exec).await.unwrap();
            input.write_all(name.as_bytes()).await.unwrap();
            input.shutdown().await.unwrap();
            assert_eq!(text(output).await, name);
            let status = machine.wait_exec(&name).await.exit.status;
            assert_eq!(status, u32::try_from(index % 200).unwrap());
            machine.containers.delete(&exec_id(&name)).await.unwrap();
        }
    };
    let mut all: Vec<_> = (0..200).map(|index| Box::pin(one(index))).collect();
    let joined = async {
        // Polled together, so that all of them are under way at once.
        std::future::poll_fn(|cx| {
            all.retain_mut(|one| one.as_mut().poll(cx).is_pending());
            if all.is_empty() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    };
    timeout(Duration::from_secs(100), joined).await.unwrap();
    end(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_limit_of_further_processes() {
    if !is_root() {
        return;
    }
    let machine = running().await;
    let mut plan = process(&["/bin/true"]);
    plan.terminal = true;
    let refused = (0..2000).find_map(|index| machine.add_exec(&format!("e{index}"), plan.clone()).err());
    assert!(
        matches!(refused, Some(ContainerError::TooMany { limit: 512, .. })),
        "{refused:?}"
    );
    end(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descendant_with_the_output_open_does_not_hold_up_the_end() {
    if !is_root() {
        return;
    }
    let machine = running().await;
    let plan = process(&["/bin/sh", "-c", "(sleep 1; echo late) & echo early; exit 3"]);
    let numbers = machine.exec("e1", plan).await.unwrap();
    let mut output = machine.claim(numbers.stdout).await;
    assert_eq!(machine.wait_exec("e1").await.exit.status, 3);
    let mut early = [0; 6];
    output.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early\n");
    assert_eq!(text(output).await, "late\n");
    end(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_arrives_whole() {
    if !is_root() {
        return;
    }
    let machine = running().await;
    let numbers = machine
        .exec("e1", process(&["/usr/bin/head", "-c", "268435456", "/dev/zero"]))
        .await
        .unwrap();
    let mut output = machine.claim(numbers.stdout).await;
    let (mut total, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match timeout(LIMIT, output.read(&mut buffer)).await.unwrap().unwrap() {
            0 => break,
            count => total += count,
        }
    }
    assert_eq!((total, machine.wait_exec("e1").await.exit.status), (256 << 20, 0));
    end(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stops_reading_stops_the_writer_and_nothing_else() {
    if !is_root() {
        return;
    }
    let machine = running().await;
    let numbers = machine.exec("writer", process(&["/usr/bin/yes"])).await.unwrap();
    let stopped = machine.claim(numbers.stdout).await;
    let (status, out, _) = run(&machine, "other", "echo fine").await;
    assert_eq!((status, out.as_str()), (0, "fine\n"));
    machine.containers.signal(&exec_id("writer"), 9, false).unwrap();
    assert_eq!(machine.wait_exec("writer").await.exit.status, 137);
    drop(stopped);
    end(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_the_processes_own() {
    if !is_root() {
        return;
    }
    let machine = running().await;
    let size = TerminalSize { columns: 91, rows: 33 };
    let plan = on_terminal(&[
        "/bin/sh",
        "-c",
        "tty; stty size; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all; exec </dev/tty; \
         trap 'stty size; exit 4' WINCH; echo ready; while :; do sleep 0.1; done",
    ]);
    let numbers = machine.add_exec("e1", plan).unwrap();
    assert_eq!(numbers.stderr, 0);
    let mut output = machine.claim(numbers.stdout).await;
    // Said before there is a terminal: it has the size from the first moment on.
    machine.containers.resize(&exec_id("e1"), size).unwrap();
    machine
        .containers
        .start_exec(&id(), &"e1".parse().unwrap())
        .await
        .unwrap();
    let mut seen = String::new();
    while !seen.contains("ready") {
        let mut buffer = [0; 256];
        let count = timeout(LIMIT, output.read(&mut buffer)).await.unwrap().unwrap();
        assert!(count > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    assert_eq!(seen, "/dev/pts/0\r\n33 91\r\nall\r\nready\r\n");
    let larger = TerminalSize { columns: 100, rows: 40 };
    machine.containers.resize(&exec_id("e1"), larger).unwrap();
    assert_eq!(text(output).await, "40 100\r\n");
    assert_eq!(machine.wait_exec("e1").await.exit.status, 4);
    assert!(matches!(
        machine.containers.resize(&exec_id("e1"), larger),
        Err(ContainerError::State { state: "stopped", .. })
    ));
    end(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_on_a_terminal_arrives_and_control_c_interrupts() {
    if !is_root() {
        return;
    }
    let machine = running().await;
    let plan = on_terminal(&["/bin/sh", "-c", "read line; echo \"<$line>\"; exec sleep 100"]);
    let numbers = machine.exec("e1", plan).await.unwrap();
    let mut input = machine.claim(numbers.stdin).await;
    let mut output = machine.claim(numbers.stdout).await;
    input.write_all(b"hello\n").await.unwrap();
    let mut echoed = [0; 16];
    timeout(LIMIT, output.read_exact(&mut echoed)).await.unwrap().unwrap();
    assert_eq!(&echoed, b"hello\r\n<hello>\r\n");
    input.write_all(b"\x03").await.unwrap();
    assert_eq!(text(output).await, "^C");
    assert_eq!(machine.wait_exec("e1").await.exit.status, 130);
    end(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containers_terminal_is_its_console_and_is_drained_at_the_end() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let shown = "[ $(stat -Lc %t:%T /dev/console) = $(stat -Lc %t:%T $(tty)) ] && echo console; stat -c %U $(tty); \
                 i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done";
    let numbers = machine
        .create(&policy(
            &["/bin/sh", "-c", shown],
            &[("terminal = false", "terminal = true")],
        ))
        .unwrap();
    assert_eq!(numbers.stderr, 0);
    let output = machine.claim(numbers.stdout).await;
    machine.start().await.unwrap();
    let seen = text(output).await;
    assert!(
        seen.starts_with("console\r\nnobody\r\nline 0\r\n"),
        "{}",
        &seen[..seen.len().min(200)]
    );
    assert!(seen.ends_with("line 4999\r\n"));
    assert_eq!(seen.lines().count(), 5002);
    assert_eq!(machine.wait().await.exit.status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_nobody_looks_at_does_not_stop_its_process() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let changes = [
        ("terminal = false", "terminal = true"),
        ("stdio = \"allow\"", "stdio = \"deny\""),
    ];
    let much = policy(&["/usr/bin/seq", "100000"], &changes);
    let numbers = machine.create(&much).unwrap();
    assert_eq!((numbers.stdin, numbers.stdout), (0, 0));
    machine.start().await.unwrap();
    assert_eq!(machine.wait().await.exit.status, 0);
}
