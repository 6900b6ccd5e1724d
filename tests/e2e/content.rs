//! Bytes from the registry that are not what was pushed: nothing of them is used, and the error names layer or segment. Manifests and
//! segments of another model: `attacks`, T5 and T9.
use std::fs;

use anyhow::{Context, Result, ensure};
use cella_tests::{attacker::Peer, registry, registry::Blob, workload::Written};

use crate::{
    Case,
    fixture::{Fixture, HELLO, refused},
};

const SEGMENT: usize = 1 << 20;

pub(crate) const CASES: &[(&str, Case)] = &[
    ("a_byte_of_an_encrypted_layer_flipped", flipped_layer),
    ("an_encrypted_layer_truncated", truncated_layer),
    ("a_byte_of_a_sealed_segment_flipped", flipped_segment),
    ("a_sealed_layer_truncated", truncated_model),
    ("the_registry_dies_midway", registry_dies),
    ("the_registry_is_down", registry_down),
    ("a_model_larger_than_the_guest", model_too_large),
    ("another_models_artifact_under_this_name", another_models_artifact),
];

fn line() -> String {
    format!("echo {HELLO}; sha256sum /models/demo/demo.gguf")
}

fn allowed(f: &Fixture) -> Result<Written> {
    f.allowed(&f.with_model(&line()))
}

/// The allowed policy with a text in it replaced, allowed as well: an owner's mistake, or an owner who is lied to.
fn edited(f: &Fixture, from: &str, to: &str) -> Result<Written> {
    let text = fs::read_to_string(allowed(f)?.initdata)?;
    let changed = text.replace(from, to);
    ensure!(changed != text, "the policy does not say {from:?}: {text}");
    let path = f.stack.path(&f.stack.fresh("edited"));
    fs::write(&path, changed)?;
    let policy = Written::read(&f.stack, path)?;
    f.allow(&policy)?;
    Ok(policy)
}

fn refuses(f: &Fixture, words: &[&str]) -> Result<()> {
    let policy = allowed(f)?;
    let out = f.start(&policy, &line()).go(&f.stack)?;
    refused(&out, words)?;
    ensure!(!out.stdout.contains(&f.model_sha256), "{out:?}");
    Ok(())
}

fn only_layer(f: &Fixture, reference: &str) -> Result<(String, Blob)> {
    let digest = registry::layers(&f.stack, reference)?
        .into_iter()
        .next()
        .context("no layer")?;
    let blob = Blob::open(&f.stack, &digest)?;
    Ok((digest, blob))
}

fn flipped_layer(f: &Fixture) -> Result<()> {
    let (digest, blob) = only_layer(f, &f.image)?;
    blob.flip(blob.bytes().len() / 2)?;
    refuses(f, &["image", &digest])
}

fn truncated_layer(f: &Fixture) -> Result<()> {
    let (digest, blob) = only_layer(f, &f.image)?;
    blob.replace(blob.bytes().get(..blob.bytes().len() / 2).context("half")?)?;
    refuses(f, &["image", &digest])
}

fn flipped_segment(f: &Fixture) -> Result<()> {
    let (_, blob) = only_layer(f, &f.model)?;
    blob.flip(SEGMENT + 1000)?;
    refuses(f, &["models/demo", "segment 1", "authentic"])
}

fn truncated_model(f: &Fixture) -> Result<()> {
    let (_, blob) = only_layer(f, &f.model)?;
    blob.replace(blob.bytes().get(..SEGMENT + 5000).context("cut")?)?;
    refuses(f, &["models/demo"])
}

fn registry_dies(f: &Fixture) -> Result<()> {
    let proxy = Peer::dies_after(f.stack.var("REGISTRY"), 200_000)?;
    let mut workload = f.with_model(&line());
    workload.registry = proxy.guest_url();
    let policy = f.allowed(&workload)?;
    let out = f.start(&policy, &line()).go(&f.stack)?;
    refused(&out, &[&proxy.guest_url()])
}

fn registry_down(f: &Fixture) -> Result<()> {
    let mut workload = f.with_model(&line());
    workload.registry = Peer::silent()?.guest_url(); // dropped at once: nobody listens there
    let policy = f.allowed(&workload)?;
    let out = f.start(&policy, &line()).go(&f.stack)?;
    refused(&out, &[&workload.registry])
}

fn model_too_large(f: &Fixture) -> Result<()> {
    // The policy states the size; it is checked before anything is asked of broker or registry.
    let policy = edited(f, &format!("bytes = {}", f.model_bytes), "bytes = 8000000000")?;
    let mark = f.stack.mark()?;
    let out = f.start(&policy, &line()).go(&f.stack)?;
    refused(&out, &["models/demo needs 7630 MiB", "this guest has"])?;
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, &f.model)?;
    f.stack.no_layer_fetched(mark, &f.image)
}

fn another_models_artifact(f: &Fixture) -> Result<()> {
    let policy = edited(f, &f.model, &f.other_model)?;
    let out = f.start(&policy, &line()).go(&f.stack)?;
    refused(&out, &["models/demo"])
}
