//! What a policy says of the whole pod: who must be there, whom it may speak to, what of its output is told.
use std::{io::Read, net::TcpListener, process::Command, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use cella_tests::{Run, process::run, process::wait_until};
use serde_json::Value;

use crate::{
    Case,
    fixture::{Fixture, read},
    operator::node,
};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("t1_a_container_that_is_left_out_keeps_the_ingress_shut", left_out),
    ("t21_a_container_speaks_to_whom_the_policy_names", egress),
    ("t3_redacted_output_is_told_of_and_not_told", redacted),
];

const SOON: Duration = Duration::from_secs(30);
const SERVES: &str = "httpd -p 8080 -h /bin; echo serving; trap 'exit 0' TERM; sleep 100000 & wait";

/// Runs the serving probe beside a container `filter` of the policy that nobody starts.
fn serve(f: &Fixture, presence: &str, port: u16) -> Result<Run> {
    let filter = format!(
        "[[container]]\nname = \"filter\"\nimage = {:?}\nargs = [\"/bin/busybox\", \"true\"]\npresence = {presence:?}\n",
        f.plain_image
    );
    let policy = f.allowed(&f.shell(SERVES).container(&filter))?;
    let ports = format!("io.cella.ports=127.0.0.1:{port}:8080");
    let run = f.start(&policy, SERVES).flags(&["--annotation", &ports]).detached();
    let out = run.go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    Ok(run)
}

/// Whether the probe's server answers.
fn answers(port: u16) -> Result<bool> {
    let url = format!("http://127.0.0.1:{port}/busybox");
    let out = run(
        Command::new("curl").args(["-s", "--max-time", "5", "-o", "/dev/null", &url]),
        SOON,
    )?;
    Ok(out.status.success())
}

fn ingress(f: &Fixture, run: &Run) -> Result<Value> {
    let status: Value = serde_json::from_str(&node(f, &["status", "--json", &run.id])?)?;
    status.get("ingress").cloned().context("no ingress")
}

fn left_out(f: &Fixture) -> Result<()> {
    // Without the rule the very same pod answers.
    let open = serve(f, "optional", 18091)?;
    wait_until(SOON, || Ok(answers(18091)?.then_some(())))?;
    ensure!(ingress(f, &open)?.get("open") == Some(&Value::Bool(true)));
    open.remove(&f.stack)?;

    let shut = serve(f, "running", 18092)?;
    let state = ingress(f, &shut)?;
    ensure!(
        state.pointer("/missing/0") == Some(&"container \"filter\" does not run".into()),
        "{state}"
    );
    ensure!(node(f, &["status", &shut.id])?.contains("SHUT: nobody comes in while"));
    for _ in 0..2 {
        ensure!(!answers(18092)?, "a client came in");
    }
    shut.remove(&f.stack)
}

fn egress(f: &Fixture) -> Result<()> {
    let (first, second) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let (named, other) = (first.local_addr()?.port(), second.local_addr()?.port());
    for listener in [first, second] {
        thread::spawn(move || {
            for mut guest in listener.incoming().flatten() {
                // Until the guest has said all.
                guest.read_to_end(&mut Vec::new()).ok();
            }
        });
    }
    let line = format!(
        "for p in {named} {other}; do echo hi | nc -w 5 10.0.2.2 $p && echo reached $p || echo refused $p; done; echo done"
    );
    let one = format!("[{{ to = \"10.0.2.2\", protocol = \"tcp\", ports = [{named}] }}]");
    for (rule, of_the_other) in [("\"any\"", "reached"), (one.as_str(), "refused")] {
        let policy = f.allowed(&f.shell(&line).container(&format!("[network]\negress = {rule}\n")))?;
        // Image and keys come from 10.0.2.2 too, by ports that no rule names: the agent's own.
        let out = f.start(&policy, &line).go(&f.stack)?;
        ensure!(out.stdout.contains("done"), "{out:?}");
        ensure!(out.stdout.contains(&format!("reached {named}")), "{rule}: {out:?}");
        ensure!(
            out.stdout.contains(&format!("{of_the_other} {other}")),
            "{rule}: {out:?}"
        );
    }
    Ok(())
}

fn redacted(f: &Fixture) -> Result<()> {
    const CANARY: &str = "canary-4711";
    let line = format!("echo {CANARY}; echo {CANARY} >&2; trap 'exit 0' TERM; sleep 100000 & wait");
    let policy = f.allowed(&f.shell(&line).container("stdio = \"redact\"\n"))?;
    let output = f.stack.path(&f.stack.fresh("redacted"));
    let run = f.start(&policy, &line);
    let mut ctr = run.spawn(&f.stack, &output)?;
    let told = wait_until(Duration::from_secs(150), || {
        let events = node(f, &["logs", "--events", &run.id]).unwrap_or_default();
        let all = ["stdout: at most 1 line, 16 bytes", "stderr: at most 1 line, 16 bytes"];
        Ok(all.iter().all(|words| events.contains(words)).then_some(events))
    });
    run.remove(&f.stack)?;
    ctr.wait()?;
    let told = told.with_context(|| read(&output).unwrap_or_default())?;
    for (what, text) in [
        ("events", told),
        ("ctr's output", read(&output)?),
        ("containerd's log", read(&f.stack.path("logs/containerd.log"))?),
    ] {
        // The command line itself is the policy's, and public.
        let printed = text
            .lines()
            .find(|line| line.contains(CANARY) && !line.contains("echo"));
        ensure!(printed.is_none(), "{what}: {printed:?}");
    }
    Ok(())
}
