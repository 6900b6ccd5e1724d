//! `docs/config.md` against the program: every key of the workload file has a row, and every row is a key.
//!
//! The keys are those that `cellactl policy write` names when it meets one that it does not know.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

const DOC: &str = include_str!("../../docs/config.md");

#[test]
fn the_workloads_keys_are_the_documents() {
    for (heading, text) in [
        ("### Workload: top level", "no-such-key = 1"),
        ("### Workload: kbs", "[kbs]\nno-such-key = 1"),
        ("### Workload: registry", "[[registry]]\nno-such-key = 1"),
        (
            "### Workload: registry.mirror",
            "[[registry]]\nname = \"r\"\nmirror = [{ no-such-key = 1 }]",
        ),
        ("### Workload: container", "[[container]]\nno-such-key = 1"),
        ("### Workload: model", "[[model]]\nno-such-key = 1"),
        ("### Workload: model", "[[dataset]]\nno-such-key = 1"),
        ("### Policy: output", "[output]\nno-such-key = 1"),
    ] {
        assert_eq!(rows(heading), expected(&said(text)), "{heading}");
    }
}

/// What the program says to a workload.
fn said(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (from, out) = (folder.path().join("workload.toml"), folder.path().join("initdata.toml"));
    fs::write(&from, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cellactl"))
        .args(["policy", "write", "--from"])
        .arg(&from)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!out.exists(), "nothing is written");
    String::from_utf8(output.stderr).unwrap()
}

/// The keys in "unknown field `x`, expected one of `a`, `b`".
fn expected(message: &str) -> BTreeSet<String> {
    let (_, list) = message.split_once("expected").unwrap();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names in the first column of the section's table.
fn rows(heading: &str) -> BTreeSet<String> {
    let after = DOC.lines().skip_while(|line| *line != heading).skip(1);
    let section = after.take_while(|line| !line.starts_with('#'));
    let names = section.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.map(str::to_owned).collect()
}
