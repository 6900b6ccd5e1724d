//! T8: a device and a registry that give other bytes the second time.
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use cella_policy::initdata;
use cella_tests::{attacker, fixture::HELLO, registry};

use crate::{
    attack::{Attack, Ground, On, Seen, Threat},
    nbd::{self, Device},
};

pub(crate) const THREAT: Threat = Threat {
    number: 8,
    title: "Check-then-use on host storage",
    attacks: &[
        Attack {
            name: "an_initdata_disk_that_changes_after_the_first_read",
            tried: "the initdata disk gives the bound document on the first read of a sector, and another policy on each later one",
            on: On::Machine,
            run: changing_disk,
        },
        Attack {
            name: "a_registry_that_is_asked_twice",
            tried: "the registry waits for a second request for bytes that were verified once, of image and model",
            on: On::Machine,
            run: asked_twice,
        },
    ],
    open: &[],
};

/// The block device's bytes for a document.
fn image(document: &std::path::Path) -> Result<Vec<u8>> {
    Ok(initdata::encode_device(&std::fs::read(document)?))
}

fn changing_disk(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let line = format!("echo {HELLO}");
    let bound = f.allowed(&f.shell(&line))?;
    let other = f.allowed(&f.shell("echo the other policy"))?;
    let (first, later) = (image(&bound.initdata)?, image(&other.initdata)?);

    // A reader that hashes one read and obeys another takes the other policy.
    let naive = Device::new(first.clone(), later.clone());
    let size = first.len().max(later.len()).next_multiple_of(512);
    let hashed = initdata::inflate_device(&naive.read(0, size))?;
    let obeyed = initdata::inflate_device(&naive.read(0, size))?;
    ensure!(hex::encode(initdata::digests(&hashed).sha256) == bound.digest);
    ensure!(hex::encode(initdata::digests(&obeyed).sha256) == other.digest);

    let device = Arc::new(Device::new(first, later));
    let socket = f.stack.path(&f.stack.fresh("nbd"));
    device.serve(socket.clone())?;
    let wrapper = attacker::qemu_wrapper(
        &f.stack,
        &format!(
            "for a in \"$@\"; do [[ $a == file,node-name=initdata0,* ]] && a={}; args+=(\"$a\"); done\nexec \"$QEMU\" \"${{args[@]}}\"",
            nbd::blockdev(&socket)
        ),
    )?;
    let out = f
        .start(&bound, &line)
        .configured(&f.stack, &[("qemu", &format!("{wrapper:?}"))])?
        .go(&f.stack)?;
    let reads = device.reads();
    let most = reads.iter().max().copied().unwrap_or_default();
    ensure!(most > 0, "the guest did not read the disk: {out:?}");
    ensure!(
        out.code == 0 && out.stdout == format!("{HELLO}\n"),
        "{out:?}, reads of each sector: {reads:?}"
    );
    ensure!(most == 1, "reads of each sector: {reads:?}");
    let refusal = format!(
        "the pod obeyed the bound policy; each of the disk's {} sectors was read once",
        reads.len()
    );
    Ok(Seen::new(
        "a reader that hashes one read and parses the next takes the other policy for the bound one",
        refusal,
    ))
}

fn asked_twice(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let line = "sha256sum /models/demo/demo.gguf; cat /models/demo/demo.gguf /models/demo/demo.gguf | wc -c; ls -la /bin > /dev/null";
    let policy = f.allowed(&f.with_model(line))?;
    let mark = f.stack.mark()?;
    let out = f.start(&policy, line).go(&f.stack)?;
    ensure!(out.code == 0 && out.stdout.contains(&f.model_sha256), "{out:?}");
    let log = f.stack.registry_since(mark)?;
    let fetched = |layer: &str| -> usize {
        let of_it = log
            .lines()
            .filter(|line| line.contains("GET") && line.contains(&format!("/blobs/{layer}")));
        of_it
            .filter_map(|line| line.split('"').nth(2)?.split_whitespace().nth(1)?.parse::<usize>().ok())
            .sum()
    };
    let mut layers = 0;
    for reference in [&f.image, &f.model] {
        for layer in registry::layers(&f.stack, reference)? {
            let (bytes, size) = (fetched(&layer), registry::Blob::open(&f.stack, &layer)?.bytes().len());
            ensure!(
                bytes == size,
                "of the {size} bytes of {layer} {bytes} were fetched\n{log}"
            );
            layers += 1;
        }
    }
    // The same log counts a client that does come twice.
    let layer = registry::layers(&f.stack, &f.model)?
        .into_iter()
        .next()
        .context("layer")?;
    let mark = f.stack.mark()?;
    for _ in 0..2 {
        let url = format!("https://{}/v2/models/demo/blobs/{layer}", f.stack.var("REGISTRY"));
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sf", "--cacert", f.stack.var("REGISTRY_CA"), "-o", "/dev/null", &url]);
        cella_tests::process::succeed(&mut curl, std::time::Duration::from_secs(30))?;
    }
    let again = f.stack.registry_since(mark)?;
    ensure!(
        again.lines().filter(|line| line.contains(&layer)).count() == 2,
        "{again}"
    );
    Ok(Seen::new(
        "a client that fetches again is seen in the same log, twice",
        format!("every byte of {layers} layers was fetched once, and read from memory after"),
    ))
}
