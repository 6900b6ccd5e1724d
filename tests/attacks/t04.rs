//! T4: metrics as a side channel.
use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use cella_tests::{Fixture, process::run};

use crate::attack::{Attack, Ground, On, Seen, Threat, last_line};

pub(crate) const THREAT: Threat = Threat {
    number: 4,
    title: "Metrics as a side channel",
    attacks: &[Attack {
        name: "prompts_told_apart_by_statistics",
        tried: "two runs of one program over inputs of different length, told apart by `ctr task metrics`",
        on: On::Machine,
        run: statistics,
    }],
    open: &[],
};

fn statistics(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let told = |stats: &str| -> Result<Vec<String>> {
        let mut told = Vec::new();
        for length in [1_000_000, 9_000_000] {
            told.push(asked(f, length, stats)?);
            g.leaves_nothing()?;
        }
        Ok(told)
    };
    let exact = told("exact")?;
    let sizes: Vec<u64> = exact.iter().filter_map(|text| memory(text)).collect();
    let [short, long] = sizes[..] else {
        anyhow::bail!("{exact:?}")
    };
    ensure!(
        long > short + 4_000_000,
        "the runs cannot be told apart: {short} and {long}"
    );
    // Less than 64 MiB each: the same for both. CPU time says as much, but on a busy machine without KVM it counts the machine's.
    let coarse = told("coarse")?;
    let sizes: Vec<u64> = coarse.iter().filter_map(|text| memory(text)).collect();
    ensure!(matches!(sizes[..], [first, second] if first == second), "{coarse:?}");
    let denied = told("deny")?;
    ensure!(
        denied.iter().all(|text| text.contains("policy denies statistics")),
        "{denied:?}"
    );
    Ok(Seen::new(
        format!(
            "with `stats = \"exact\"` the host reads {short} and {long} bytes of memory; with \"coarse\" the same for both"
        ),
        denied.into_iter().next().unwrap_or_default(),
    ))
}

/// What containerd is told of a container that holds `length` bytes.
fn asked(f: &Fixture, length: u32, stats: &str) -> Result<String> {
    let line = format!(
        "x=$(head -c {length} /dev/zero | tr '\\0' x); touch /tmp/done; trap 'exit 0' TERM; sleep 100000 & wait"
    );
    let more = format!(
        "exec = [[\"/bin/busybox\", \"ls\", \"/tmp/done\"]]\n[[container.tmpfs]]\ndestination = \"/tmp\"\nsize-mib = 1\n\
         [pod]\nstats = {stats:?}\n"
    );
    let policy = f.allowed(&f.shell(&line).container(&more))?;
    let container = f.start(&policy, &line).detached();
    let out = container.go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    let task = |arguments: &[&str]| {
        let mut command = Command::new(f.stack.var("CTR"));
        command.args(["-a", f.stack.var("CONTAINERD"), "task"]).args(arguments);
        run(&mut command, Duration::from_secs(60))
    };
    cella_tests::process::wait_until(Duration::from_secs(60), || {
        let exec = f.stack.fresh("e");
        let done = task(&[
            "exec",
            "--exec-id",
            &exec,
            &container.id,
            "/bin/busybox",
            "ls",
            "/tmp/done",
        ])?;
        Ok(done.status.success().then_some(()))
    })?;
    let metrics = task(&["metrics", "--format", "json", &container.id])?;
    container.remove(&f.stack)?;
    Ok(match metrics.status.success() {
        true => String::from_utf8_lossy(&metrics.stdout).into_owned(),
        // ctr says only that nothing came; the reason is in containerd's log.
        false => {
            let log = std::fs::read_to_string(f.stack.path("logs/containerd.log"))?;
            let mut lines = log.lines().filter(|line| line.contains(&container.id));
            let reason = lines.rfind(|line| line.contains("collecting metrics"));
            reason.map_or_else(|| last_line(&String::from_utf8_lossy(&metrics.stderr)), str::to_owned)
        }
    })
}

/// Bytes in use.
fn memory(text: &str) -> Option<u64> {
    let told: serde_json::Value = serde_json::from_str(text).ok()?;
    let used = told.pointer("/memory/usage")?;
    used.as_u64().or_else(|| used.as_str()?.parse().ok())
}
