//! `docs/config.md` against the code: every key of the broker's file has a row, and every row is a key.
//!
//! The keys are those that serde names when it meets one that it does not know.
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

use std::collections::BTreeSet;
use std::path::Path;

use cella_kbs::Config;
use cella_kbs::config::ConfigError;

const DOC: &str = include_str!("../../docs/config.md");

#[test]
fn the_brokers_keys_are_the_documents() {
    let mut keys = keys("");
    for table in ["tls", "limits", "snp", "tdx", "postgres"] {
        assert!(keys.remove(table), "{table}");
        keys.extend(
            self::keys(&format!("[{table}]\n"))
                .iter()
                .map(|key| format!("{table}.{key}")),
        );
    }
    assert_eq!(rows("## Key broker"), keys);
}

/// What may stand behind `before`.
fn keys(before: &str) -> BTreeSet<String> {
    match Config::parse(&format!("{before}no-such-key = 1\n"), Path::new(".")) {
        Err(ConfigError::Syntax { source }) => expected(source.message()),
        other => panic!("{other:?}"),
    }
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
