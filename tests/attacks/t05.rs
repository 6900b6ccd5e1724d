//! T5: old versions of models, policies and keys, each once validly made, and segments that are valid elsewhere.
use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};
use cella_seal::{Kek, packet, place, stream};
use cella_tests::{
    Fixture,
    fixture::{HELLO, MODEL_KEY, refused},
    registry,
    registry::Blob,
};

use crate::{
    attack::{Attack, Ground, On, Seen, Threat, said, told},
    broker::{self, Broker, Guest},
};

pub(crate) const THREAT: Threat = Threat {
    number: 5,
    title: "Rollback and downgrade",
    attacks: &[
        Attack {
            name: "an_old_sealed_model",
            tried: "the host starts a pod on version 1 of a model, validly sealed, after the owner has raised the floor to 2",
            on: On::Machine,
            run: old_model,
        },
        Attack {
            name: "an_old_policy",
            tried: "a guest launched under revision 1 of a policy, which a rule still names, after the floor is 2",
            on: On::Broker,
            run: old_policy,
        },
        Attack {
            name: "an_old_key",
            tried: "a key whose name has version 1 is asked for after the floor is 2",
            on: On::Broker,
            run: old_key,
        },
        Attack {
            name: "a_floor_lowered_again",
            tried: "the broker is killed and started again, then an admin lowers the floor",
            on: On::Broker,
            run: lowered_floor,
        },
        Attack {
            name: "another_policy_than_the_rule_allows",
            tried: "the host launches with a policy of its own making",
            on: On::Machine,
            run: another_policy,
        },
        Attack {
            name: "a_segment_of_another_model",
            tried: "the registry puts a segment of another model, sealed under the same key, into this one",
            on: On::Machine,
            run: foreign_segment,
        },
    ],
    open: &[],
};

const SEGMENT: usize = 1 << 20;

fn old_model(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let out = f.stack.path("rolled.oci").to_string_lossy().into_owned();
    let file = |name: &str| f.stack.path(name).to_string_lossy().into_owned();
    let (gguf, kek) = (file("demo.gguf"), file("model.kek"));
    let seal = [
        "model",
        "seal",
        &gguf,
        "--name",
        "models/rolled",
        "--version",
        "1",
        "--key",
        MODEL_KEY,
        "--key-file",
        &kek,
        "--out",
        &out,
    ];
    f.stack.cellactl(seal)?;
    let to = format!("{}/models/rolled:1", f.stack.var("REGISTRY"));
    let pushed = f
        .stack
        .cellactl(["model", "push", &out, &to, "--registry-ca", f.stack.var("REGISTRY_CA")])?;
    let line = format!("echo {HELLO}; sha256sum /models/demo/demo.gguf");
    let artifact = pushed.trim().lines().last().unwrap_or_default();
    let policy = f.allowed(&f.shell(&line).with_model(artifact, MODEL_KEY, "models/rolled", 1))?;

    let before = f.start(&policy, &line).go(&f.stack)?;
    ensure!(
        before.stdout.contains(&f.model_sha256),
        "without a floor it should run: {before:?}"
    );
    f.stack.kbs(&["floor", "raise", "model/models/rolled", "2"])?;
    let mark = f.stack.mark()?;
    let out = f.start(&policy, &line).go(&f.stack)?;
    refused(&out, &["models/rolled", "version 1", "floor is 2"])?;
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, artifact)?;
    Ok(Seen::new(
        "before the floor was raised the pod got its key and read the old model",
        said(&out),
    ))
}

/// A policy that has a name and a revision.
fn revision(name: &str, number: u64) -> String {
    include_str!("../../libs/policy/src/policy/example.toml").replacen(
        "version = 1",
        &format!("version = 1\nname = {name:?}\nrevision = {number}"),
        1,
    )
}

fn old_policy(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (broker, key) = (Broker::of(&f.stack)?, "attack/policy-floor/1");
    let old = Guest::of(&f.stack)?.with_policy(&revision("attacked", 1));
    let new = Guest::of(&f.stack)?.with_policy(&revision("attacked", 2));
    broker::store_for(f, key, &[&old, &new])?;
    broker.ask(&old, key)?.granted()?;
    f.stack.kbs(&["floor", "raise", "policy/attacked", "2"])?;
    broker.ask(&new, key)?.granted()?;
    let refusal = broker
        .ask(&old, key)?
        .refused("rollback: policy attacked is revision 1, the floor is 2")?;
    Ok(Seen::new(
        "before the floor was raised the key was released to revision 1",
        refusal,
    ))
}

fn old_key(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (broker, guest) = (Broker::of(&f.stack)?, Guest::of(&f.stack)?);
    for key in ["attack/key-floor/1", "attack/key-floor/2"] {
        broker::store_for(f, key, &[&guest])?;
    }
    broker.ask(&guest, "attack/key-floor/1")?.granted()?;
    f.stack.kbs(&["floor", "raise", "resource/attack/key-floor", "2"])?;
    broker.ask(&guest, "attack/key-floor/2")?.granted()?;
    let answer = broker.ask(&guest, "attack/key-floor/1")?;
    let refusal = answer.refused("rollback: version 1 of attack/key-floor is below the floor 2")?;
    Ok(Seen::new(
        "before the floor was raised the old key was released",
        refusal,
    ))
}

fn lowered_floor(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let guest = Guest::of(&f.stack)?.with_policy(&revision("lowered", 1));
    let key = "attack/lowered/1";
    broker::store_for(f, key, &[&guest])?;
    Broker::of(&f.stack)?.ask(&guest, key)?.granted()?;
    f.stack.kbs(&["floor", "raise", "policy/lowered", "2"])?;
    f.stack.crash("kbs")?;
    f.stack.revive("kbs")?;
    let Err(said) = f.stack.kbs(&["floor", "raise", "policy/lowered", "1"]) else {
        anyhow::bail!("the floor was lowered");
    };
    ensure!(
        told(&said).contains("the floor of policy/lowered is 2, 1 was offered"),
        "{said:?}"
    );
    let refusal = Broker::of(&f.stack)?.ask(&guest, key)?.refused("the floor is 2")?;
    Ok(Seen::new(
        "with no floor set the key was released",
        format!("{}; {refusal}", told(&said)),
    ))
}

fn another_policy(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let line = format!("echo {HELLO} under a policy that no rule names");
    let policy = f.shell(&line).write(&f.stack)?; // written, not allowed
    let mark = f.stack.mark()?;
    let out = f.start(&policy, &line).go(&f.stack)?;
    refused(&out, &["initdata digest not in the rule"])?;
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, &f.image)?;
    f.allow(&policy)?;
    let ran = f.start(&policy, &line).go(&f.stack)?;
    ensure!(ran.code == 0 && ran.stdout.contains(HELLO), "{ran:?}");
    Ok(Seen::new(
        "once the rule named that policy the same pod ran",
        said(&out),
    ))
}

fn layer(f: &Fixture, reference: &str) -> Result<(serde_json::Value, Blob)> {
    let manifest = registry::manifest(&f.stack, reference)?;
    let layer = manifest.pointer("/layers/0").context("no layer")?.clone();
    let digest = layer
        .get("digest")
        .and_then(|d| d.as_str())
        .context("no digest")?
        .to_owned();
    Ok((layer, Blob::open(&f.stack, &digest)?))
}

fn foreign_segment(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (_, blob) = layer(f, &f.model)?;
    let (described, other) = layer(f, &f.other_model)?;
    opens_at_its_own_place(f, &described, &other)?;
    let mut mixed = blob.bytes().to_vec();
    let range = 40..SEGMENT;
    mixed
        .get_mut(range.clone())
        .context("segment")?
        .copy_from_slice(other.bytes().get(range).context("segment")?);
    blob.replace(&mixed)?;
    let line = format!("echo {HELLO}; sha256sum /models/demo/demo.gguf");
    let policy = f.allowed(&f.with_model(&line))?;
    let out = f.start(&policy, &line).go(&f.stack)?;
    refused(&out, &["models/demo", "segment 0", "authentic"])?;
    Ok(Seen::new(
        "the segment is genuine: at its own place, models/other, it opens under the owner's key",
        said(&out),
    ))
}

/// Opens the model's only file with the owner's key.
fn opens_at_its_own_place(f: &Fixture, layer: &serde_json::Value, blob: &Blob) -> Result<()> {
    let annotations = serde_json::from_value(layer.get("annotations").context("annotations")?.clone())?;
    let kek = Kek::from_slice(&fs::read(f.stack.path("model.kek"))?)?;
    let keys = BTreeMap::from([(MODEL_KEY.to_owned(), kek)]);
    let unwrapped = packet::unwrap_layer(&annotations, |kid| keys.get(kid))?;
    let (key, _) = unwrapped.for_model()?;
    let place = place::associated_data("models/other", "demo.gguf", 1)?;
    let length = u64::try_from(blob.bytes().len())?;
    stream::open_reader(
        &key,
        &place,
        stream::SegmentSize::MIB1,
        length,
        blob.bytes(),
        std::io::sink(),
    )?;
    Ok(())
}
