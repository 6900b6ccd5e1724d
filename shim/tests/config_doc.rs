//! `docs/config.md` against the code: every key of the shim's and the snapshotter's files has a row, and every row is a key.
//!
//! The keys are those that serde names when it meets one that it does not know.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is test code"
)]

use std::collections::BTreeSet;
use std::fs;

use cella_shim::config::ConfigError;
use cella_shim::config::file::{ConfigFile, DEFAULT_FIRMWARE_SNP, DEFAULT_FIRMWARE_TDX, DEFAULT_QUOTE_SERVICE};
use cella_shim::snapshotter::config::{Config as Snapshotter, ConfigError as SnapshotterError, Overrides};

const DOC: &str = include_str!("../../docs/config.md");

#[test]
fn the_shims_keys_are_the_documents() {
    let keys = match ConfigFile::parse("no-such-key = 1\n", "here") {
        Err(ConfigError::Parse { message, .. }) => expected(&message),
        other => panic!("{other:?}"),
    };
    assert_eq!(rows("## Shim"), keys);
}

#[test]
fn the_shims_defaults_are_the_documents() {
    let file = ConfigFile::parse("tee = \"sim\"\n", "here").unwrap();
    for (key, value) in [
        ("qemu", file.qemu.display().to_string()),
        ("guest-image", file.guest_image.display().to_string()),
        ("vcpus", file.vcpus.to_string()),
        ("memory-mib", file.memory_mib.to_string()),
        ("memory-overhead-mib", file.memory_overhead_mib.to_string()),
        ("size-vcpus-from-pod", file.size_vcpus_from_pod.to_string()),
        ("max-vcpus", file.max_vcpus.to_string()),
        ("run-dir", file.run_dir.display().to_string()),
        ("console-log-kib", file.console_log_kib.to_string()),
        ("boot-timeout-s", file.boot_timeout_s.to_string()),
        ("guest-timeout-s", file.guest_timeout_s.to_string()),
        ("accel", format!("{:?}", file.accel).to_lowercase()),
        ("log-level", format!("{:?}", file.log_level).to_lowercase()),
    ] {
        assert_eq!(default("## Shim", key), format!("`{value}`"), "{key}");
    }
    let firmware = format!("`{DEFAULT_FIRMWARE_SNP}`, with TDX `{DEFAULT_FIRMWARE_TDX}`");
    assert_eq!(default("## Shim", "firmware"), firmware);
    assert_eq!(
        default("## Shim", "tdx-quote-service"),
        format!("`{DEFAULT_QUOTE_SERVICE}`")
    );
}

#[test]
fn the_snapshotters_keys_and_defaults_are_the_documents() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshotter.toml");
    fs::write(&path, "no-such-key = 1\n").unwrap();
    let keys = match Snapshotter::load(Some(&path), Overrides::default()) {
        Err(SnapshotterError::Parse { source, .. }) => expected(source.message()),
        other => panic!("{other:?}"),
    };
    assert_eq!(rows("## Snapshotter"), keys);

    fs::write(&path, "").unwrap();
    let config = Snapshotter::load(Some(&path), Overrides::default()).unwrap();
    for (key, value) in [
        ("address", config.address.display().to_string()),
        ("root", config.root.display().to_string()),
        ("log-level", config.log_level.as_str().to_lowercase()),
    ] {
        assert_eq!(default("## Snapshotter", key), format!("`{value}`"), "{key}");
    }
}

#[test]
fn the_annotations_are_the_documents() {
    let names = [cella_shim::initdata::ANNOTATION, cella_shim::ports::ANNOTATION];
    assert_eq!(rows("## Annotations"), names.map(str::to_owned).into());
}

/// The keys in "unknown field `x`, expected one of `a`, `b`".
fn expected(message: &str) -> BTreeSet<String> {
    let (_, list) = message.split_once("expected").unwrap();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names in the first column of the section's table.
fn rows(heading: &str) -> BTreeSet<String> {
    let names = lines(heading).filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.map(str::to_owned).collect()
}

/// The third column of a key's row.
fn default(heading: &str, key: &str) -> String {
    let mut lines = lines(heading);
    let row = lines.find(|line| line.starts_with(&format!("| `{key}` |"))).unwrap();
    row.split('|').nth(3).unwrap().trim().to_owned()
}

/// The lines between a heading and the next.
fn lines(heading: &str) -> impl Iterator<Item = &'static str> {
    let after = DOC.lines().skip_while(move |line| *line != heading).skip(1);
    after.take_while(|line| !line.starts_with('#'))
}
