//! `cellactl ps`: the pods of this node.
//!
//! What the shims wrote about their VMs, whether QEMU still runs, and the number of running containers from each shim that
//! answers within a second.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::node::{NodeArgs, NodeError, Pod, scrape};
use crate::terminal::escaped;
use crate::units;

/// `cellactl ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// The table, or the list as JSON.
pub(crate) async fn run(args: &PsArgs) -> Result<String, NodeError> {
    let pods = args.node.pods()?;
    let mut asked = tokio::task::JoinSet::new();
    for (index, pod) in pods.iter().enumerate() {
        let dir = pod.dir.clone();
        asked.spawn(async move { (index, scrape(&dir).await.ok().as_deref().and_then(running)) });
    }
    let mut containers = vec![None; pods.len()];
    for (index, running) in asked.join_all().await {
        if let Some(slot) = containers.get_mut(index) {
            *slot = running;
        }
    }
    let rows: Vec<(&Pod, Option<u64>)> = pods.iter().zip(containers).collect();
    Ok(if args.json {
        to_json(&rows, SystemTime::now())
    } else {
        table(&rows, SystemTime::now())
    })
}

/// The number of running containers on a page of metrics.
fn running(page: &str) -> Option<u64> {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("cella_containers_running "))?;
    line.parse().ok()
}

fn table(rows: &[(&Pod, Option<u64>)], now: SystemTime) -> String {
    let mut lines = vec![HEADING.map(str::to_owned)];
    for (pod, containers) in rows {
        let or_dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
        let state = pod.state.as_ref().ok();
        let text = |text: &String| escaped(text, MAX_TEXT);
        let name = |state: &crate::node::State| match state.pod_name.as_str() {
            "" => String::new(),
            _ => format!("{}/{}", text(&state.pod_namespace), text(&state.pod_name)),
        };
        lines.push([
            or_dash(state.map(|state| escaped(&state.id, MAX_ID))),
            or_dash(state.map(|state| text(&state.namespace))),
            or_dash(state.map(name)),
            or_dash(state.map(|state| text(&state.tee))),
            pod.phase().as_str().to_owned(),
            or_dash(containers.map(|containers| containers.to_string())),
            or_dash(
                state
                    .filter(|state| state.memory_mib != 0)
                    .map(|state| units::bytes(u64::from(state.memory_mib) << 20)),
            ),
            or_dash(state.and_then(|state| state.age(now)).map(age)),
            pod.dir_name.clone(),
        ]);
    }
    let mut widths = [0; HEADING.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{cell:<width$}  ");
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
    out
}

fn to_json(rows: &[(&Pod, Option<u64>)], now: SystemTime) -> String {
    let pods: Vec<_> = rows
        .iter()
        .map(|(pod, containers)| {
            let state = pod.state.as_ref().ok();
            json!({
                "directory": pod.dir, "state": pod.phase().as_str(),
                "problem": pod.state.as_ref().err().map(ToString::to_string),
                "id": state.map(|state| &state.id), "namespace": state.map(|state| &state.namespace),
                "pod_namespace": state.map(|state| &state.pod_namespace), "pod_name": state.map(|state| &state.pod_name),
                "tee": state.map(|state| &state.tee), "vcpus": state.map(|state| state.vcpus),
                "memory_mib": state.map(|state| state.memory_mib), "qemu_pid": state.and_then(|state| state.qemu_pid()),
                "age_s": state.and_then(|state| state.age(now)).map(|age| age.as_secs()),
                "containers_running": containers,
            })
        })
        .collect();
    // JSON escapes what a terminal would obey, but for the characters above ASCII, which a program is welcome to.
    format!("{:#}\n", json!(pods))
}

/// `5s`, `12m`, `3h20m`, `4d2h`.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

const HEADING: [&str; 9] = [
    "ID",
    "NAMESPACE",
    "POD",
    "TEE",
    "STATE",
    "RUNNING",
    "MEMORY",
    "AGE",
    "DIRECTORY",
];
/// Beginning of an id that is shown, as containerd's tools do.
const MAX_ID: usize = 13;
const MAX_TEXT: usize = 63;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::node::tests::{ABOUT, this_process, write_state};

    async fn ps(parent: &std::path::Path, json: bool) -> String {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: PsArgs,
        }
        let mut line = vec!["ps".to_owned(), "--run-dir".to_owned(), parent.display().to_string()];
        line.extend(json.then(|| "--json".to_owned()));
        run(&<Line as clap::Parser>::parse_from(line).args).await.unwrap()
    }

    #[tokio::test]
    async fn the_table_shows_whole_half_made_and_hostile_pods() {
        let parent = tempfile::tempdir().unwrap();
        write_state(parent.path(), "pod1-0123456789ab", ABOUT, Some(this_process()));
        write_state(
            parent.path(),
            "pod2-0123456789ab",
            r#"{"pod": {"namespace": "a\u001b[2J", "name": "b\nc"}, "tee": "\u0007"}"#,
            None,
        );
        std::fs::create_dir(parent.path().join("pod3")).unwrap();
        let text = ps(parent.path(), false).await;
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        let words: Vec<_> = lines[1].split_whitespace().collect();
        assert_eq!(
            words[1..8],
            ["k8s.io", "prod/llama-0", "snp", "running", "-", "8.00", "GiB"]
        );
        assert!(lines[2].contains("a\\x1b[2J/b\\x0ac"), "{text}");
        assert!(lines[3].contains("incomplete"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{7}']));

        let value: serde_json::Value = serde_json::from_str(&ps(parent.path(), true).await).unwrap();
        assert_eq!(
            (value[0]["state"].as_str(), value[0]["memory_mib"].as_u64()),
            (Some("running"), Some(8192))
        );
        assert_eq!(value[2]["problem"], "no state file yet");
        assert!(value[2]["id"].is_null());
    }

    #[tokio::test]
    async fn a_node_without_pods_is_an_empty_table() {
        let parent = tempfile::tempdir().unwrap();
        assert_eq!(ps(parent.path(), false).await.lines().count(), 1);
        assert_eq!(ps(parent.path(), true).await, "[]\n");
    }

    #[test]
    fn ages_are_short_and_a_clock_that_went_back_is_no_panic() {
        let text = |seconds| age(Duration::from_secs(seconds));
        assert_eq!(
            [text(5), text(65), text(3_700), text(90_000)],
            ["5s", "1m", "1h1m", "1d1h"]
        );
        assert_eq!(crate::node::State::default().age(UNIX_EPOCH), None);
    }

    #[test]
    fn the_number_of_containers_is_on_the_page() {
        assert_eq!(
            running("# TYPE cella_containers_running gauge\ncella_containers_running 3\n"),
            Some(3)
        );
        assert_eq!(running("cella_containers_running x\n"), None);
    }
}
