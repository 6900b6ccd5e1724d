//! What an operator sees of a pod that runs, and that a VM's size follows the limits.
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    Case,
    fixture::{Fixture, HELLO},
};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("ps_metrics_logs_and_status_show_a_pod", tools_show_a_pod),
    ("a_pod_larger_than_the_host_is_refused", too_large_is_refused),
];

/// A command of `cellactl` for the pods of this stack.
pub(crate) fn node(f: &Fixture, args: &[&str]) -> Result<String> {
    f.stack
        .cellactl(args.iter().copied().chain(["--config", f.stack.var("SHIM_CONFIG")]))
}

fn pods(f: &Fixture) -> Result<Vec<Value>> {
    let value: Value = serde_json::from_str(&node(f, &["ps", "--json"])?)?;
    Ok(value.as_array().context("no list")?.clone())
}

fn tools_show_a_pod(f: &Fixture) -> Result<()> {
    ensure!(pods(f)?.is_empty(), "pods of another case are left");
    let line = format!("echo {HELLO}; sleep 1000 & wait");
    let policy = f.allowed(&f.shell(&line))?;
    // 900 MiB and 256 MiB of overhead, in whole huge pages: more than memory-mib of 1024.
    let run = f
        .start(&policy, &line)
        .detached()
        .flags(&["--memory-limit", "943718400"]);
    let started = run.go(&f.stack)?;
    ensure!(started.code == 0, "{started:?}");

    let pods_now = pods(f)?;
    let [pod] = pods_now.as_slice() else {
        anyhow::bail!("one pod expected: {pods_now:?}");
    };
    for (key, expected) in [
        ("id", Value::from(run.id.as_str())),
        ("state", "running".into()),
        ("tee", "sim".into()),
        ("namespace", "default".into()),
        ("memory_mib", 1156.into()),
        ("containers_running", 1.into()),
        ("problem", Value::Null),
    ] {
        ensure!(pod.get(key) == Some(&expected), "{key} in {pod}");
    }
    let table = node(f, &["ps"])?;
    ensure!(table.lines().count() == 2 && table.contains(" running "), "{table}");

    let page = node(f, &["metrics"])?;
    let labels = format!("namespace=\"default\",pod=\"\",id=\"{}\"", run.id);
    for series in [
        format!("cella_shim_up{{{labels}}} 1\n"),
        format!("cella_guest_up{{{labels}}} 1\n"),
        format!("cella_containers_running{{{labels}}} 1\n"),
        format!("cella_vm_memory_bytes{{{labels}}} {}\n", 1156_u64 << 20),
        "cella_node_pods{state=\"running\"} 1\n".to_owned(),
    ] {
        ensure!(page.contains(&series), "{series} in {page}");
    }
    for stage in ["sandbox-launch", "pod-schedule-to-ready"] {
        let series = format!("cella_stage_duration_seconds{{{labels},stage=\"{stage}\"}} ");
        ensure!(value(&page, &series)? > 0.0, "{series} in {page}");
    }
    for stage in [
        "guest-boot",
        "attestation",
        "key-release",
        "image-pull",
        "container-start",
    ] {
        let series = format!("cella_guest_stage_duration_seconds{{{labels},stage=\"{stage}\",");
        ensure!(value(&page, &series)? > 0.0, "{series} in {page}");
    }
    ensure!(value(&page, &format!("cella_vm_resident_memory_bytes{{{labels}}} "))? > 1e7);
    ensure!(value(&page, &format!("cella_guest_memory_bytes{{{labels},kind=\"total\"}} "))? > 1e9);

    let console = node(f, &["logs", "--console", &run.id])?;
    ensure!(!console.is_empty() && !console.contains('\u{1b}'), "{console:?}");
    let status: Value = serde_json::from_str(&node(f, &["status", "--json", &run.id])?)?;
    ensure!(
        status.pointer("/containers/0/state") == Some(&"running".into()),
        "{status}"
    );
    run.remove(&f.stack)?;
    ensure!(pods(f)?.is_empty(), "the pod is gone");
    Ok(())
}

/// The value of the first sample whose line begins with `series`.
fn value(page: &str, series: &str) -> Result<f64> {
    let line = page.lines().find(|line| line.starts_with(series));
    let text = line.and_then(|line| line.rsplit(' ').next());
    text.with_context(|| format!("no {series} in {page}"))?
        .parse()
        .context("no number")
}

fn too_large_is_refused(f: &Fixture) -> Result<()> {
    let line = "true";
    let policy = f.allowed(&f.shell(line))?;
    // 64 TiB.
    let refused = f
        .start(&policy, line)
        .flags(&["--memory-limit", "70368744177664"])
        .go(&f.stack)?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("max-memory-mib"),
        "{refused:?}"
    );
    Ok(())
}
