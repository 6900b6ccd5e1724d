//! Models on the owner's desk, with the real broker and the real registry over TLS. No guest is started.
use anyhow::{Context as _, Result, ensure};

use crate::{Case, fixture::Fixture};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("a_key_is_made_and_kept_at_the_broker", key_at_the_broker),
    ("a_model_is_sealed_straight_to_the_registry", straight),
];

const KEY: &str = "kbs:///test/kept-kek/1";

/// A path on the desk that nothing has yet.
fn fresh(f: &Fixture, what: &str) -> String {
    f.stack.path(&f.stack.fresh(what)).display().to_string()
}

/// `cellactl model seal` of the demo's model with these flags; the broker's among them.
fn seal(f: &Fixture, name: &str, version: &str, key_file: &str, more: &[&str]) -> Result<String> {
    let gguf = format!("{}.gguf", fresh(f, "demo"));
    f.stack.cellactl(["model", "demo", &gguf])?;
    let fixed = [
        "model",
        "seal",
        &gguf,
        "--name",
        name,
        "--version",
        version,
        "--key",
        KEY,
        "--key-file",
        key_file,
    ];
    let broker = [
        "--kbs",
        f.stack.var("KBS"),
        "--kbs-ca",
        f.stack.var("KBS_CA"),
        "--admin-key",
        f.stack.var("KBS_ADMIN_KEY"),
    ];
    f.stack.cellactl(fixed.iter().chain(&broker).chain(more))
}

fn key_at_the_broker(f: &Fixture) -> Result<()> {
    let (kek, out) = (fresh(f, "kek"), fresh(f, "model"));
    ensure!(!f.stack.kbs(&["list"])?.contains("test/kept-kek/1"));
    seal(f, "models/kept", "3", &kek, &["--out", &out])?;
    let listed = f.stack.kbs(&["list"])?;
    let line = listed.lines().find(|line| line.starts_with("test/kept-kek/1"));
    let line = line.context("the key is not there")?;
    ensure!(
        line.contains("version 1") && line.contains("no rule: released to nobody"),
        "{line}"
    );
    ensure!(
        !f.stack.kbs(&["floor", "list"])?.contains("models/kept"),
        "only on request"
    );
    // The same key again is left as it is; a fresh one in its place would lock out what was sealed.
    seal(
        f,
        "models/kept",
        "4",
        &kek,
        &["--out", &fresh(f, "model"), "--raise-floor"],
    )?;
    ensure!(f.stack.kbs(&["list"])?.contains(line), "stored again");
    ensure!(f.stack.kbs(&["floor", "list"])?.contains("model/models/kept  4"));
    let (other, nowhere) = (fresh(f, "kek"), fresh(f, "model"));
    let refused = seal(f, "models/kept", "5", &other, &["--out", &nowhere]);
    let said = format!("{:#}", refused.err().context("a second key was made")?);
    ensure!(said.contains("would lock out"), "{said}");
    ensure!(!std::path::Path::new(&other).exists() && !std::path::Path::new(&nowhere).exists());
    f.stack.kbs(&["delete", "test/kept-kek/1"])?;
    Ok(())
}

fn straight(f: &Fixture) -> Result<()> {
    let kek = fresh(f, "kek");
    let ca = f.stack.var("REGISTRY_CA");
    let to = format!("{}/models/straight:1", f.stack.var("REGISTRY"));
    let said = seal(f, "models/straight", "1", &kek, &["--push", &to, "--registry-ca", ca])?;
    let reference = said.lines().last().context("nothing was said")?;
    let said = f
        .stack
        .cellactl(["model", "verify", reference, "--key-file", &kek, "--registry-ca", ca])?;
    ensure!(said.contains("segments are authentic"), "{said}");
    let out = fresh(f, "pulled");
    f.stack
        .cellactl(["model", "pull", reference, &out, "--registry-ca", ca])?;
    f.stack
        .cellactl(["model", "verify", &format!("oci:{out}"), "--key-file", &kek])?;
    f.stack.kbs(&["delete", "test/kept-kek/1"])?;
    Ok(())
}
