//! T2: calls of the agent that would give a shell, copy files in or replace the policy.
use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Result, ensure};
use cella_protos::agent::{HelloRequest, HelloResponse};
use cella_tests::{Fixture, Run, process::run};
use ttrpc::Code;

use crate::{
    agent::{Guest, SERVICE},
    attack::{Attack, Ground, On, Seen, Threat, last_line},
};

pub(crate) const THREAT: Threat = Threat {
    number: 2,
    title: "exec, attach, port-forward, SetPolicy, CopyFile",
    attacks: &[
        Attack {
            name: "exec_that_the_policy_does_not_name",
            tried: "`ctr task exec` of a shell in a running container",
            on: On::Machine,
            run: exec,
        },
        Attack {
            name: "calls_that_other_agents_have",
            tried: "SetPolicy, CopyFile and 40 more calls of Kata's agent, and made-up ones, on the guest's own vsock port",
            on: On::Machine,
            run: calls,
        },
        Attack {
            name: "requests_of_random_bytes",
            tried: "each of the agent's own calls with bytes that are no message, and a second network",
            on: On::Machine,
            run: nonsense,
        },
        Attack {
            name: "a_port_that_the_policy_does_not_name",
            tried: "a port of the pod that is not in `forward-ports`, on the guest's own vsock port",
            on: On::Machine,
            run: port,
        },
    ],
    open: &[],
};

const WAITS: &str = "trap 'exit 0' TERM; sleep 100000 & wait";

fn running(f: &Fixture, line: &str, more: &str) -> Result<Run> {
    let policy = f.allowed(&f.shell(line).container(more))?;
    let run = f.start(&policy, line).detached();
    let out = run.go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    Ok(run)
}

fn exec(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let shell = |container: &Run| {
        let mut command = Command::new(f.stack.var("CTR"));
        command
            .args([
                "-a",
                f.stack.var("CONTAINERD"),
                "task",
                "exec",
                "--exec-id",
                &f.stack.fresh("e"),
                &container.id,
            ])
            .args(["/bin/busybox", "sh", "-c", "echo in the guest"])
            .stdin(Stdio::null());
        run(&mut command, Duration::from_secs(60))
    };
    let open = running(f, WAITS, "exec = \"any\"\n")?;
    let out = shell(&open)?;
    ensure!(out.status.success() && out.stdout == b"in the guest\n", "{out:?}");
    open.remove(&f.stack)?;
    f.stack.leaves_nothing()?;
    let shut = running(f, WAITS, "")?;
    let out = shell(&shut)?;
    let said = last_line(&String::from_utf8_lossy(&out.stderr));
    ensure!(
        !out.status.success() && said.contains("policy denies") && said.contains("exec"),
        "{out:?}"
    );
    shut.remove(&f.stack)?;
    Ok(Seen::new(
        "under `exec = \"any\"` the shell runs in the container",
        said,
    ))
}

/// What Kata's agent can be asked for, as it names it.
const KATA: &[&str] = &[
    "CreateContainer",
    "StartContainer",
    "RemoveContainer",
    "ExecProcess",
    "SignalProcess",
    "WaitProcess",
    "UpdateContainer",
    "UpdateEphemeralMounts",
    "StatsContainer",
    "PauseContainer",
    "ResumeContainer",
    "RemoveStaleVirtiofsShareMounts",
    "WriteStdin",
    "ReadStdout",
    "ReadStderr",
    "CloseStdin",
    "TtyWinResize",
    "UpdateInterface",
    "UpdateRoutes",
    "ListInterfaces",
    "ListRoutes",
    "AddARPNeighbors",
    "GetIPTables",
    "SetIPTables",
    "GetMetrics",
    "CreateSandbox",
    "DestroySandbox",
    "OnlineCPUMem",
    "ReseedRandomDev",
    "GetGuestDetails",
    "MemHotplugByProbe",
    "SetGuestDateTime",
    "CopyFile",
    "GetOOMEvent",
    "AddSwap",
    "GetVolumeStats",
    "ResizeVolume",
    "SetPolicy",
    "MemAgentMemcgSet",
    "MemAgentCompactSet",
];

/// Made up, or of other services that agents serve.
const OTHERS: &[(&str, &str)] = &[
    (SERVICE, "SetPolicy"),
    (SERVICE, "CopyFile"),
    (SERVICE, "hello"),
    (SERVICE, ""),
    ("grpc.Health", "Check"),
    ("grpc.health.v1.Health", "Check"),
    ("image.ImageService", "PullImage"),
    ("containerd.task.v2.Task", "Exec"),
    ("", ""),
];

fn calls(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let container = running(f, WAITS, "")?;
    let guest = Guest::of(f)?;
    let api = guest.api()?;
    let hello: Result<HelloResponse, _> = api.ask("Hello", &HelloRequest::new());
    ensure!(
        hello.as_ref().is_ok_and(|hello| hello.initdata_digest.len() == 32),
        "{hello:?}"
    );
    let kata = KATA.iter().map(|method| ("grpc.AgentService", *method));
    let mut said = String::new();
    for (service, method) in kata.chain(OTHERS.iter().copied()) {
        match api.call(service, method, Vec::new()) {
            Err((Code::UNIMPLEMENTED | Code::INVALID_ARGUMENT | Code::NOT_FOUND, text)) => said = text,
            other => anyhow::bail!("{service}/{method}: {other:?}"),
        }
    }
    container.remove(&f.stack)?;
    Ok(Seen::new(
        "on the same connection `Hello`, which exists, is answered",
        format!("all {}: {said}", KATA.len() + OTHERS.len()),
    ))
}

fn nonsense(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let container = running(f, WAITS, "")?;
    let guest = Guest::of(f)?;
    let api = guest.api()?;
    let mut said = Vec::new();
    for method in [
        "CreateContainer",
        "ExecProcess",
        "PutVolume",
        "ConfigureNetwork",
        "UpdateContainer",
        "SignalContainer",
    ] {
        for bytes in [
            vec![0xff; 64],
            vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
            vec![0x0a; 4096],
        ] {
            let answer = api.call(SERVICE, method, bytes);
            ensure!(answer.is_err(), "{method} took nonsense");
        }
        if let Err((code, text)) = api.call(SERVICE, method, Vec::new()) {
            said.push(format!("{method}, empty: {code:?} {text}"));
        } else {
            anyhow::bail!("{method} took an empty request");
        }
    }
    // The guest is as it was.
    let hello: Result<HelloResponse, _> = guest.api()?.ask("Hello", &HelloRequest::new());
    ensure!(hello.is_ok(), "{hello:?}");
    container.remove(&f.stack)?;
    Ok(Seen::new(
        "the shim's own requests of the same kinds made this pod",
        said.join("; "),
    ))
}

fn port(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let line = "echo served > /tmp/index.html; httpd -p 8080 -h /tmp; httpd -f -p 8081 -h /tmp";
    let tmpfs = "[[container.tmpfs]]\ndestination = \"/tmp\"\nsize-mib = 1\n";
    let container = running(f, line, &format!("{tmpfs}[pod]\nforward-ports = [8080]\n"))?;
    let guest = Guest::of(f)?;
    let named = cella_tests::process::wait_until(Duration::from_secs(10), || guest.forward(8080))?;
    ensure!(named.contains("served"), "{named:?}");
    ensure!(guest.forward(8081)?.is_none(), "the other port answered");
    let refusal = guest.api()?.events().into_iter().find(|text| text.contains("8081"));
    container.remove(&f.stack)?;
    ensure!(refusal.is_some(), "no event names the port");
    Ok(Seen::new(
        "the port that the policy names answers",
        refusal.unwrap_or_default(),
    ))
}
