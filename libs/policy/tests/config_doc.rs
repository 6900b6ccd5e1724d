//! `docs/config.md` against the code: every key of `cella.toml` has a row, and every row is a key.
//!
//! The keys are those that serde names when it meets one that it does not know.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::collections::BTreeSet;

use cella_policy::Policy;

const DOC: &str = include_str!("../../../docs/config.md");

#[test]
fn the_policys_keys_are_the_documents() {
    for (heading, text) in [
        ("### Policy: top level", "no-such-key = 1"),
        ("### Policy: kbs", "[kbs]\nno-such-key = 1"),
        ("### Policy: pod", "[pod]\nno-such-key = 1"),
        ("### Policy: network", "[network]\nno-such-key = 1"),
        (
            "### Policy: network.egress",
            "[network]\negress = [{ no-such-key = 1 }]",
        ),
        ("### Policy: registry", "[[registry]]\nno-such-key = 1"),
        (
            "### Policy: registry.mirror",
            "[[registry]]\nmirror = [{ no-such-key = 1 }]",
        ),
        ("### Policy: container", "[[container]]\nno-such-key = 1"),
        (
            "### Policy: container.user",
            "[[container]]\nuser = { no-such-key = 1 }",
        ),
        (
            "### Policy: container.stdio",
            "[[container]]\nstdio = { no-such-key = 1 }",
        ),
        (
            "### Policy: container.mount",
            "[[container]]\nmount = [{ no-such-key = 1 }]",
        ),
        (
            "### Policy: container.tmpfs",
            "[[container]]\ntmpfs = [{ no-such-key = 1 }]",
        ),
        (
            "### Policy: container.volume",
            "[[container]]\nvolume = [{ no-such-key = 1 }]",
        ),
        ("### Policy: model", "[[model]]\nno-such-key = 1"),
        ("### Policy: model", "[[dataset]]\nno-such-key = 1"),
        ("### Policy: output", "[output]\nno-such-key = 1"),
    ] {
        let said = Policy::parse(text).unwrap_err().to_string();
        assert_eq!(rows_of(heading), expected(&said), "{heading}");
    }
}

/// The specification's table of what each key decides has all of them.
#[test]
fn each_key_stands_in_the_specification() {
    let after = SPECIFICATION
        .lines()
        .skip_while(|line| *line != "## What a policy decides");
    let rows = after.skip(1).take_while(|line| !line.starts_with("## "));
    let first = rows.filter_map(|line| line.strip_prefix("| ")?.split('|').next());
    let found: BTreeSet<String> = first
        .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned))
        .collect();
    let keys = ["### Policy: pod", "### Policy: network", "### Policy: container"].map(rows_of);
    assert_eq!(found, keys.into_iter().flatten().collect());
}

const SPECIFICATION: &str = include_str!("../../../docs/specification.md");

/// The keys in "unknown field `x`, expected one of `a`, `b`".
fn expected(message: &str) -> BTreeSet<String> {
    let (_, list) = message.split_once("expected").unwrap();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names in the first column of the section's table.
fn rows_of(heading: &str) -> BTreeSet<String> {
    let after = DOC.lines().skip_while(|line| *line != heading).skip(1);
    let section = after.take_while(|line| !line.starts_with('#'));
    let names = section.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.map(str::to_owned).collect()
}
