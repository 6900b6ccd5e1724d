//! T9: bytes that reach a parser before anybody knows whose they are.
use std::{fs, io::Write, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use cella_policy::initdata;
use cella_tests::{
    Fixture, attacker,
    fixture::{HELLO, refused},
    process::run,
    registry::Blob,
    workload::Written,
};

use crate::attack::{Attack, Ground, On, Seen, Threat, chain, said};

pub(crate) const THREAT: Threat = Threat {
    number: 9,
    title: "Parsing before verifying",
    attacks: &[
        Attack {
            name: "initdata_swapped_after_launch",
            tried: "the launch binds one document, the disk carries another that the owner allows as well",
            on: On::Machine,
            run: swapped_initdata,
        },
        Attack {
            name: "initdata_that_no_parser_takes",
            tried: "the disk carries a document with an unknown key, which only a parser would notice",
            on: On::Machine,
            run: unparsable_initdata,
        },
        Attack {
            name: "a_manifest_that_is_not_authentic",
            tried: "one digit of a digest changed in the image's manifest at the registry",
            on: On::Machine,
            run: |g| flipped_manifest(g, false),
        },
        Attack {
            name: "a_model_manifest_that_is_not_authentic",
            tried: "the same in the model's manifest",
            on: On::Machine,
            run: |g| flipped_manifest(g, true),
        },
        Attack {
            name: "lengths_that_no_machine_has",
            tried: "2^63 and other impossible lengths in the initdata disk's header, and a document that inflates a thousandfold",
            on: On::Library,
            run: lengths,
        },
    ],
    open: &[],
};

fn hello() -> String {
    format!("echo {HELLO}")
}

fn swapped_initdata(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let bound = f.allowed(&f.shell(&hello()))?;
    let other = f.allowed(&f.shell("echo another workload"))?;
    let device = initdata::encode_device(&fs::read(&other.initdata)?);
    let qemu = format!("{:?}", attacker::qemu_with_initdata(&f.stack, &device)?);
    let mark = f.stack.mark()?;
    let out = f
        .start(&bound, &hello())
        .configured(&f.stack, &[("qemu", &qemu)])?
        .go(&f.stack)?;
    refused(&out, &["initdata"])?;
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, &f.image)?;
    let ran = f.start(&other, "echo another workload").go(&f.stack)?;
    ensure!(ran.code == 0 && ran.stdout == "another workload\n", "{ran:?}");
    Ok(Seen::new("a launch that binds the other document obeys it", said(&out)))
}

/// A document of an allowed policy with a key that no parser knows, and its digest and annotation, made without cellactl, which refuses it.
fn unparsable(f: &Fixture) -> Result<Written> {
    let policy = f.allowed(&f.shell(&hello()))?;
    let text = fs::read_to_string(&policy.initdata)?;
    let changed = text.replacen("[kbs]", "[kbs]\nno-such-key = 1", 1);
    ensure!(changed != text);
    let written = Written {
        digest: hex::encode(initdata::digests(changed.as_bytes()).sha256),
        annotation: initdata::encode_annotation(changed.as_bytes()),
        initdata: f.stack.path(&f.stack.fresh("unknown")),
    };
    fs::write(&written.initdata, &changed)?;
    f.allow(&written)?;
    Ok(written)
}

fn unparsable_initdata(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (bound, bad) = (f.allowed(&f.shell(&hello()))?, unparsable(f)?);
    // Bound by the launch, the document reaches the parser, which names the key.
    let parsed = f.start(&bad, &hello()).go(&f.stack)?;
    refused(&parsed, &["no-such-key"])?;
    let device = initdata::encode_device(&fs::read(&bad.initdata)?);
    let qemu = format!("{:?}", attacker::qemu_with_initdata(&f.stack, &device)?);
    let mark = f.stack.mark()?;
    let out = f
        .start(&bound, &hello())
        .configured(&f.stack, &[("qemu", &qemu)])?
        .go(&f.stack)?;
    refused(&out, &["initdata"])?;
    ensure!(!out.stderr.contains("no-such-key"), "a parser saw it: {out:?}");
    f.stack.no_key_released(mark)?;
    Ok(Seen::new(
        "bound by the launch it reached the parser, which named the key",
        said(&out),
    ))
}

fn flipped_manifest(g: &Ground, model: bool) -> Result<Seen> {
    let f = g.fixture()?;
    let line = format!("echo {HELLO}; sha256sum /models/demo/demo.gguf");
    let policy = f.allowed(&f.with_model(&line))?; // before the change: cellactl would refuse it as well
    let (reference, blobs, words): (_, _, &[&str]) = if model {
        (&f.model, "/v2/models/demo/blobs/", &["models/demo", "manifest"])
    } else {
        (&f.image, "/v2/test/probe/blobs/", &["image", "manifest"])
    };
    let blob = Blob::open(&f.stack, reference.split_once('@').context("digest")?.1)?;
    // A digit of the last digest, which stays one with its lowest bit turned: another layer, and as good a manifest as before.
    let digest = memchr::memmem::rfind(blob.bytes(), b"sha256:").context("no digest")? + 7;
    let at = (digest..digest + 64)
        .rfind(|at| blob.bytes().get(*at).is_some_and(|byte| (byte ^ 1).is_ascii_hexdigit()))
        .context("no such digit")?;
    blob.flip(at)?;
    let changed: Vec<u8> = blob
        .bytes()
        .iter()
        .enumerate()
        .map(|(i, byte)| if i == at { byte ^ 1 } else { *byte })
        .collect();
    ensure!(
        changed.get(at).is_some_and(u8::is_ascii_hexdigit),
        "not a digit any more"
    );
    cella_oci::Manifest::parse(&changed).context("the manifest with another digest should parse")?;
    let mark = f.stack.mark()?;
    let out = f.start(&policy, &line).go(&f.stack)?;
    refused(&out, words)?;
    ensure!(
        !f.stack.registry_since(mark)?.contains(blobs),
        "a blob was fetched behind a manifest that is not authentic"
    );
    Ok(Seen::new(
        "the parser takes the changed manifest, which names another layer",
        said(&out),
    ))
}

fn lengths(_: &Ground) -> Result<Seen> {
    let header = |length: u64| -> [u8; 16] {
        let mut header = *b"initdata\0\0\0\0\0\0\0\0";
        if let Some(field) = header.get_mut(8..) {
            field.copy_from_slice(&length.to_le_bytes());
        }
        header
    };
    ensure!(initdata::device_read_length(&header(100), 512).is_ok());
    let mut said = String::new();
    for length in [1 << 63, u64::MAX, 1 << 32, 512] {
        match initdata::device_read_length(&header(length), 512) {
            Ok(read) => bail!("length {length}: {read} bytes would be read"),
            Err(error) => said = chain(&error),
        }
    }
    // 1 GiB of zeros is about 1 MiB of gzip; 32 MiB fit into what is taken compressed.
    let mut gzip = Command::new("sh");
    let zeros = run(
        gzip.args(["-c", "head -c 33554432 /dev/zero | gzip -9"]),
        Duration::from_secs(30),
    )?;
    let mut device = header(u64::try_from(zeros.stdout.len())?).to_vec();
    device.write_all(&zeros.stdout)?;
    device.resize(device.len().next_multiple_of(512), 0);
    let without = zeros.stdout.len();
    match initdata::inflate_device(&device) {
        Ok(document) => bail!("{} bytes were inflated", document.len()),
        Err(error) => said = format!("{said}; {}", chain(&error)),
    }
    Ok(Seen::new(
        format!("gzip makes 32 MiB of {without} bytes; a length that fits is taken"),
        said,
    ))
}
