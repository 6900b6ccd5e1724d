//! Models between this program and Google's Tink: what one side seals, the other opens, whole artifacts both ways.
//!
//! Tink is the Python package, pinned by hash, which `make setup` installs below the cache. Without it this fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "models/tink";
const KID: &str = "kbs:///demo/tink-kek/1";
/// Two full segments and a bit; one that fills its segments to the last byte; one byte; nothing.
const LENGTHS: [(&str, usize); 4] = [
    ("model-00001-of-00002.gguf", 2_500_000),
    ("model-00002-of-00002.gguf", 1_048_520),
    ("deep/config.json", 1),
    ("tokenizer.json", 0),
];

fn python() -> PathBuf {
    let cache = std::env::var_os("CELLA_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/cella"));
    let python = cache.join("tools/tink/bin/python");
    assert!(python.exists(), "{} is missing: run `make setup`", python.display());
    python
}

fn run(program: &Path, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{} {args:?}: {said}", program.display());
    String::from_utf8(done.stdout).unwrap()
}

fn cellactl(args: &[&str]) -> String {
    run(Path::new(env!("CARGO_BIN_EXE_cellactl")), args)
}

fn tink(args: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tink_model.py");
    run(&python(), &[&[script], args].concat());
}

/// A model's folder: a GGUF of so many bytes has one tensor.
fn model(folder: &Path) {
    for (path, length) in LENGTHS {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = Vec::new();
        if length > 64 {
            bytes.extend(b"GGUF\x03\0\0\0");
            bytes.extend(1_u64.to_le_bytes());
            bytes.extend(0_u64.to_le_bytes());
            bytes.extend(1_u64.to_le_bytes());
            bytes.extend(b"t");
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend((length as u64 - 64).to_le_bytes());
            bytes.extend(24_u32.to_le_bytes());
            bytes.extend(0_u64.to_le_bytes());
            bytes.resize(64, 0);
        }
        bytes.extend((0..251).cycle().take(length - bytes.len()));
        fs::write(path, bytes).unwrap();
    }
}

fn same(one: &Path, other: &Path) {
    for (path, _) in LENGTHS {
        assert!(
            fs::read(one.join(path)).unwrap() == fs::read(other.join(path)).unwrap(),
            "{path}"
        );
    }
}

#[test]
fn what_cellactl_seals_tink_opens() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    model(&dir.path().join("model"));
    cellactl(&[
        "model",
        "seal",
        &at("model"),
        "--name",
        NAME,
        "--version",
        "7",
        "--key",
        KID,
        "--key-file",
        &at("kek"),
        "--out",
        &at("sealed"),
    ]);
    tink(&["open", &at("sealed"), &at("kek"), NAME, "7", &at("opened")]);
    same(&dir.path().join("model"), &dir.path().join("opened"));
}

#[test]
fn what_tink_seals_cellactl_opens() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    model(&dir.path().join("model"));
    fs::write(at("kek"), [5; 32]).unwrap();
    fs::set_permissions(at("kek"), fs::Permissions::from_mode(0o600)).unwrap();
    tink(&["seal", &at("model"), &at("sealed"), &at("kek"), NAME, "7", KID]);
    let layout = format!("oci:{}", at("sealed"));
    let said = cellactl(&[
        "model",
        "verify",
        &layout,
        "--key-file",
        &at("kek"),
        "--name",
        NAME,
        "--version",
        "7",
    ]);
    assert!(said.contains("6 segments are authentic"), "{said}");
    assert!(cellactl(&["model", "inspect", &layout]).contains(KID));
    cellactl(&[
        "model",
        "unseal",
        &layout,
        "--key-file",
        &at("kek"),
        "--out",
        &at("opened"),
    ]);
    same(&dir.path().join("model"), &dir.path().join("opened"));
    // And goes on to be this program's: under another key, Tink opens it again.
    cellactl(&[
        "model",
        "rekey",
        &layout,
        "--old-key-file",
        &at("kek"),
        "--key",
        KID,
        "--key-file",
        &at("new"),
        "--deep",
        "--out",
        &at("anew"),
    ]);
    tink(&["open", &at("anew"), &at("new"), NAME, "7", &at("again")]);
    same(&dir.path().join("model"), &dir.path().join("again"));
}
