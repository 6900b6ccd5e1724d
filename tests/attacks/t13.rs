//! T13: another kernel command line, another initrd. `sim` boots QEMU's own firmware, which enforces nothing: there the measurement alone
//! tells; with `sim-firmware-boot` the pinned firmware enforces, as on an SNP machine.
use std::path::Path;

use anyhow::{Result, ensure};
use cella_tests::{
    Fixture, Outcome, attacker,
    fixture::{HELLO, measure, refused},
    workload::Written,
};

use crate::attack::{Attack, Ground, On, Seen, Threat, said};

pub(crate) const THREAT: Threat = Threat {
    number: 13,
    title: "Kernel command line injection",
    attacks: &[
        Attack {
            name: "the_kernel_command_line_changed",
            tried: "`loglevel=7` appended to the kernel's command line",
            on: On::Machine,
            run: changed_command_line,
        },
        Attack {
            name: "one_byte_of_the_initrd_changed",
            tried: "one byte of the initramfs changed, in padding that nothing reads",
            on: On::Machine,
            run: changed_initrd,
        },
        Attack {
            name: "the_firmware_refuses_another_command_line",
            tried: "the right table of hashes in place, which makes a genuine digest, and another command line booted",
            on: On::Machine,
            run: firmware_refuses,
        },
        Attack {
            name: "parameters_that_the_agent_does_not_take",
            tried: "an owner is talked into allowing an image whose command line says `cella.debug=1`, or `quiet` a second time",
            on: On::Machine,
            run: parameters,
        },
    ],
    open: &[],
};

fn hello() -> String {
    format!("echo {HELLO}")
}

/// Starts a pod on another guest image.
fn start(f: &Fixture, policy: &Written, image: &Path) -> Result<Outcome> {
    f.start(policy, &hello())
        .configured(
            &f.stack,
            &[("guest-image", &format!("{image:?}")), ("boot-timeout-s", "15")],
        )?
        .go(&f.stack)
}

/// A policy whose keys go to the launch digest of `image` alone.
fn allowed_on(f: &Fixture, image: &Path) -> Result<Written> {
    let policy = f.shell(&hello()).write(&f.stack)?;
    let launch = measure(&f.stack, &image.to_string_lossy())?;
    f.set_rules(&launch, std::slice::from_ref(&policy.digest), &["--allow-simulated"])?;
    Ok(policy)
}

/// Refused under the rule that names the genuine image, and booted under one that names this.
fn told_by_measurement(f: &Fixture, image: &Path) -> Result<Seen> {
    let policy = f.allowed(&f.shell(&hello()))?;
    let mark = f.stack.mark()?;
    let out = start(f, &policy, image)?;
    refused(&out, &["measurement"])?;
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, &f.image)?;
    let ran = start(f, &allowed_on(f, image)?, image)?;
    ensure!(ran.code == 0 && ran.stdout.contains(HELLO), "{ran:?}");
    Ok(Seen::new(
        "under a rule that names its digest it booted, got the keys and ran",
        said(&out),
    ))
}

fn changed_command_line(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let image = attacker::guest_image_with(&f.stack, "cmdline", |bytes| bytes.extend_from_slice(b" loglevel=7"))?;
    told_by_measurement(f, &image)
}

fn changed_initrd(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let image = attacker::guest_image_with(&f.stack, "initrd", |bytes| {
        let at = bytes.windows(9).rposition(|w| w == b"TRAILER!!").unwrap_or(0) + 200;
        match bytes.get_mut(at) {
            Some(byte) => *byte ^= 1, // padding behind the trailer: the guest boots as ever, only the measurement differs
            None => bytes.push(0),
        }
    })?;
    told_by_measurement(f, &image)
}

fn firmware_refuses(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let wrapper = attacker::qemu_wrapper(
        &f.stack,
        "for a in \"$@\"; do args+=(\"${a/#console=/loglevel=7 console=}\"); done\nexec \"$QEMU\" \"${args[@]}\"",
    )?;
    let policy = f.allowed(&f.shell(&hello()))?;
    let wrapper = format!("{wrapper:?}");
    let start = |firmware: &str, qemu: Option<&str>| {
        let mut keys = vec![("sim-firmware-boot", firmware), ("boot-timeout-s", "8")];
        keys.extend(qemu.map(|qemu| ("qemu", qemu)));
        f.start(&policy, &hello()).configured(&f.stack, &keys)?.go(&f.stack)
    };
    // The pinned firmware boots what the table names, in the same time.
    let genuine = start("true", None)?;
    ensure!(genuine.code == 0 && genuine.stdout.contains(HELLO), "{genuine:?}");
    let mark = f.stack.mark()?;
    // QEMU's own firmware boots it: the agent runs, and only the measurement tells.
    let booted = start("false", Some(&wrapper))?;
    refused(&booted, &["measurement"])?;
    // The pinned one does not: the agent never runs.
    let out = start("true", Some(&wrapper))?;
    refused(&out, &["the agent did not answer"])?;
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, &f.image)?;
    Ok(Seen::new(
        "a firmware that enforces nothing booted it, as far as the broker's refusal of its digest",
        said(&out),
    ))
}

/// The rule names the digest: what refuses is the agent itself.
fn parameters(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let image =
        |text: &str| attacker::guest_image_with(&f.stack, "cmdline", |bytes| bytes.extend_from_slice(text.as_bytes()));
    let harmless = image(" loglevel=4")?;
    let ran = start(f, &allowed_on(f, &harmless)?, &harmless)?;
    ensure!(ran.code == 0 && ran.stdout.contains(HELLO), "{ran:?}");
    let mut words = Vec::new();
    for (appended, word) in [
        (" cella.debug=1", "cella.debug is not known to this agent"),
        (" quiet", "quiet is given more than once"),
    ] {
        let image = image(appended)?;
        let policy = allowed_on(f, &image)?;
        let mark = f.stack.mark()?;
        let out = start(f, &policy, &image)?;
        refused(&out, &[word])?;
        f.stack.no_key_released(mark)?;
        words.push(said(&out));
    }
    Ok(Seen::new(
        "an image with a further parameter, of no meaning to the agent, ran once a rule named it",
        words.join(" / "),
    ))
}
