//! T16: one key for two purposes, and two places that give the same bytes to derive from.
use std::{collections::BTreeSet, io::Write};

use anyhow::{Result, bail, ensure};
use cella_seal::{
    DataKey, Kek, PlainDigest,
    packet::{AnnotationPacket, PrivateOptions},
    place,
    stream::{self, HEADER, Layout, SealWriter, Sealer, SegmentSize},
};

use crate::attack::{Attack, Ground, On, Seen, Threat, chain};

pub(crate) const THREAT: Threat = Threat {
    number: 16,
    title: "Key reuse and ambiguous derivation",
    attacks: &[
        Attack {
            name: "two_places_that_concatenate_to_the_same_text",
            tried: "names, paths and versions cut at other places, such as `a` + `b/c` and `a/b` + `c`",
            on: On::Library,
            run: ambiguous_places,
        },
        Attack {
            name: "a_sealed_file_opened_at_another_place",
            tried: "a sealed file offered under another name, path or version with the same key",
            on: On::Library,
            run: another_place,
        },
        Attack {
            name: "one_file_sealed_twice",
            tried: "two sealings of one file compared for repeated keys, salts, prefixes and nonces",
            on: On::Library,
            run: sealed_twice,
        },
        Attack {
            name: "a_segment_sealed_twice",
            tried: "a caller seals one segment index twice, which would use a nonce twice",
            on: On::Library,
            run: nonce_twice,
        },
    ],
    open: &[],
};

/// All places made of these parts: many of them are the same text without its borders.
fn places() -> Vec<(String, String, u64)> {
    let parts = [
        "a",
        "b",
        "a/b",
        "b/c",
        "a/b/c",
        "c",
        "models/demo",
        "models/demo1",
        "1",
        "demo.gguf",
        "1demo.gguf",
    ];
    let mut all = Vec::new();
    for name in parts {
        for path in parts {
            for version in [1, 11, 256, u64::MAX] {
                all.push((name.to_owned(), path.to_owned(), version));
            }
        }
    }
    all
}

fn ambiguous_places(_: &Ground) -> Result<Seen> {
    let (mut naive, mut ours) = (BTreeSet::new(), BTreeSet::new());
    let all = places();
    for (name, path, version) in &all {
        naive.insert(format!("{name}/{path}{version}"));
        ours.insert(place::associated_data(name, path, *version)?);
    }
    ensure!(naive.len() < all.len(), "the parts are not ambiguous enough");
    ensure!(
        ours.len() == all.len(),
        "{} of {} places are distinct",
        ours.len(),
        all.len()
    );
    for (name, path) in [("", "x"), ("x", "")] {
        ensure!(
            place::associated_data(name, path, 1).is_err(),
            "an empty part was taken"
        );
    }
    Ok(Seen::new(
        format!(
            "joined as text, {} places give only {} derivation inputs",
            all.len(),
            naive.len()
        ),
        format!("with lengths in front of each part they give {}", ours.len()),
    ))
}

fn sealed(key: &DataKey, data: &[u8], text: &[u8]) -> Result<Vec<u8>> {
    let mut writer = SealWriter::new(key, data, Vec::new())?;
    writer.write_all(text)?;
    Ok(writer.finish()?.0)
}

fn another_place(_: &Ground) -> Result<Seen> {
    let key = DataKey::random()?;
    let data = |name: &str, path: &str, version| place::associated_data(name, path, version);
    let file = sealed(&key, &data("models/demo", "a.gguf", 2)?, b"weights")?;
    let open = |data: &[u8]| {
        stream::open_reader(
            &key,
            data,
            SegmentSize::MIB1,
            u64::try_from(file.len()).unwrap_or(u64::MAX),
            file.as_slice(),
            std::io::sink(),
        )
    };
    open(&data("models/demo", "a.gguf", 2)?)?;
    let mut refusal = String::new();
    for (name, path, version) in [
        ("models/demo2", "a.gguf", 2),
        ("models/demo", "b.gguf", 2),
        ("models/demo", "a.gguf", 1),
    ] {
        match open(&data(name, path, version)?) {
            Ok(()) => bail!("it opened as {name} {path} {version}"),
            Err(error) => refusal = chain(&error),
        }
    }
    Ok(Seen::new("under the same key it opens at its own place", refusal))
}

fn sealed_twice(_: &Ground) -> Result<Seen> {
    let data = place::associated_data("models/demo", "a.gguf", 1)?;
    let fixed = DataKey::random()?;
    let mut headers = BTreeSet::new();
    let mut bodies = BTreeSet::new();
    for _ in 0..64 {
        // Even where a caller would keep the key, each sealing draws salt and prefix anew.
        let file = sealed(&fixed, &data, b"weights")?;
        let (header, body) = file.split_at(HEADER);
        headers.insert(header.to_vec());
        bodies.insert(body.to_vec());
    }
    ensure!(
        headers.len() == 64 && bodies.len() == 64,
        "{} headers, {} bodies",
        headers.len(),
        bodies.len()
    );
    let kek = Kek::random()?;
    let mut packets = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for _ in 0..64 {
        let key = DataKey::random()?;
        keys.insert(*key.expose());
        let private = PrivateOptions {
            symkey: DataKey::from_slice(fixed.expose())?,
            digest: PlainDigest([7; 32]),
            nonce: None,
        };
        packets.insert(AnnotationPacket::wrap(&private, &kek, "kbs:///test/model-kek/1")?.to_base64()?);
    }
    ensure!(
        packets.len() == 64 && keys.len() == 64,
        "{} packets, {} keys",
        packets.len(),
        keys.len()
    );
    Ok(Seen::new(
        "one key and one text 64 times: what a deterministic sealing would repeat",
        "64 different salts, prefixes and ciphertexts; the same key wrapped 64 times: 64 different packets",
    ))
}

fn nonce_twice(_: &Ground) -> Result<Seen> {
    let key = DataKey::random()?;
    let sealer = Sealer::new(&key, b"place", Layout::from_plaintext_len(7)?)?;
    let (mut one, mut two) = (*b"weights", *b"secrets");
    sealer.seal_in_place(0, &mut one)?;
    let Err(error) = sealer.seal_in_place(0, &mut two) else {
        bail!("a nonce was used twice");
    };
    ensure!(&two == b"secrets", "the second text was touched");
    let again = Sealer::new(&key, b"place", Layout::from_plaintext_len(7)?)?;
    again.seal_in_place(0, &mut two)?;
    Ok(Seen::new(
        "a new sealer, with salt and prefix of its own, seals the same index",
        chain(&error),
    ))
}
