//! A launch that is not the one the owner allowed: the broker releases nothing, and the operator reads why.
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use cella_tests::{attacker, workload::Written};

use crate::{
    Case,
    fixture::{Fixture, HELLO, refused},
};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("t13_one_byte_of_the_initrd_changed", changed_initrd),
    ("t13_the_kernel_command_line_changed", changed_command_line),
    ("t13_the_firmware_boots_what_the_digest_names", firmware_boots),
    ("t13_the_firmware_refuses_another_command_line", firmware_refuses),
    ("t5_another_policy_than_the_rule_allows", another_policy),
    ("t9_initdata_swapped_after_launch", swapped_initdata),
    ("t22_evidence_of_an_unknown_root", unknown_root),
    ("t22_evidence_with_the_debug_bit", debug_bit),
    ("t22_simulated_evidence_where_the_rule_forbids_it", simulated_forbidden),
];

fn hello() -> String {
    format!("echo {HELLO}")
}

fn changed_initrd(f: &Fixture) -> Result<()> {
    // A byte of the agent's file name in the archive's trailer would be padding; the middle of the file is code or data.
    let image = attacker::guest_image_with(&f.stack, "initrd", |bytes| {
        let at = bytes.windows(9).rposition(|w| w == b"TRAILER!!").unwrap_or(0) + 200;
        match bytes.get_mut(at) {
            Some(byte) => *byte ^= 1, // padding behind the trailer: the guest boots as ever, only the measurement differs
            None => bytes.push(0),
        }
    })?;
    refused_by_measurement(f, &image)
}

fn changed_command_line(f: &Fixture) -> Result<()> {
    let image = attacker::guest_image_with(&f.stack, "cmdline", |bytes| bytes.extend_from_slice(b" loglevel=7"))?;
    refused_by_measurement(f, &image)
}

fn refused_by_measurement(f: &Fixture, image: &Path) -> Result<()> {
    let policy = f.allowed(&f.shell(&hello()))?;
    let mark = f.stack.mark()?;
    let out = f
        .start(&policy, &hello())
        .configured(&f.stack, &[("guest-image", &format!("{image:?}"))])?
        .go(&f.stack)?;
    refused(&out, &["measurement"])?;
    nothing_used(f, mark)
}

/// The machine boots the pinned firmware with the table of kernel hashes, as with SNP: what the evidence names is what the firmware let through.
fn firmware_boots(f: &Fixture) -> Result<()> {
    let policy = f.allowed(&f.shell(&hello()))?;
    let out = f
        .start(&policy, &hello())
        .configured(&f.stack, &[("sim-firmware-boot", "true")])?
        .go(&f.stack)?;
    ensure!(out.code == 0 && out.stdout.contains(HELLO), "{out:?}");
    Ok(())
}

/// The host leaves the right table in place, which makes a genuine digest, and boots another command line.
fn firmware_refuses(f: &Fixture) -> Result<()> {
    let wrapper = attacker::qemu_wrapper(
        &f.stack,
        "for a in \"$@\"; do args+=(\"${a/#console=/loglevel=7 console=}\"); done\nexec \"$QEMU\" \"${args[@]}\"",
    )?;
    let policy = f.allowed(&f.shell(&hello()))?;
    let mark = f.stack.mark()?;
    let start = |boot: &str| {
        let qemu = format!("{wrapper:?}");
        let keys = [
            ("sim-firmware-boot", boot),
            ("qemu", qemu.as_str()),
            ("boot-timeout-s", "15"),
        ];
        f.start(&policy, &hello()).configured(&f.stack, &keys)?.go(&f.stack)
    };
    // QEMU's own firmware boots it: only the measurement tells.
    refused(&start("false")?, &["measurement"])?;
    // The pinned one does not: the agent never runs.
    refused(&start("true")?, &["the agent did not answer"])?;
    nothing_used(f, mark)
}

fn nothing_used(f: &Fixture, mark: cella_tests::Mark) -> Result<()> {
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, &f.image)
}

fn another_policy(f: &Fixture) -> Result<()> {
    let line = format!("echo {HELLO} under a policy that no rule names");
    let policy = f.shell(&line).write(&f.stack)?; // written, not allowed
    let mark = f.stack.mark()?;
    let out = f.start(&policy, &line).go(&f.stack)?;
    refused(&out, &["initdata digest not in the rule"])?;
    nothing_used(f, mark)
}

fn swapped_initdata(f: &Fixture) -> Result<()> {
    // The launch binds one document; the disk then carries another, which the owner allows too.
    let bound = f.allowed(&f.shell(&hello()))?;
    let other = f.allowed(&f.shell("echo another workload"))?;
    let wrapper = swapping_qemu(f, &other)?;
    let mark = f.stack.mark()?;
    let out = f
        .start(&bound, &hello())
        .configured(&f.stack, &[("qemu", &format!("{wrapper:?}"))])?
        .go(&f.stack)?;
    refused(&out, &["initdata"])?;
    nothing_used(f, mark)
}

/// A QEMU that finds another document on the disk than the one that its launch binds.
pub(crate) fn swapping_qemu(f: &Fixture, other: &Written) -> Result<PathBuf> {
    let image = f.stack.path(&f.stack.fresh("initdata"));
    std::fs::write(&image, device(other)?)?;
    attacker::qemu_wrapper(
        &f.stack,
        &format!(
            "for a in \"$@\"; do case $a in *initdata*filename=*|*filename=*initdata*) f=${{a##*filename=}}; f=${{f%%,*}}; cp {} \"$f\";; esac; done\nexec \"$QEMU\" \"$@\"",
            image.display()
        ),
    )
}

/// The block device that carries a document: magic, length, gzip stream, padding.
fn device(policy: &Written) -> Result<Vec<u8>> {
    use base64::Engine;
    let gzip = base64::engine::general_purpose::STANDARD.decode(policy.annotation.trim())?;
    let mut device = b"initdata".to_vec();
    device.extend(u64::try_from(gzip.len())?.to_le_bytes());
    device.extend(gzip);
    device.resize(device.len().next_multiple_of(512), 0);
    Ok(device)
}

fn unknown_root(f: &Fixture) -> Result<()> {
    let state = f.stack.path(&f.stack.fresh("sim"));
    let made = std::process::Command::new(format!("{}/cella-sim-platform", f.stack.var("BIN")))
        .args(["init", "--state"])
        .arg(&state)
        .output()?;
    ensure!(made.status.success(), "{made:?}");
    let policy = f.allowed(&f.shell(&hello()))?;
    let mark = f.stack.mark()?;
    let out = f
        .start(&policy, &hello())
        .configured(&f.stack, &[("sim-state", &format!("{state:?}"))])?
        .go(&f.stack)?;
    refused(&out, &["root not trusted"])?;
    nothing_used(f, mark)
}

fn debug_bit(f: &Fixture) -> Result<()> {
    let wrapper = attacker::qemu_wrapper(
        &f.stack,
        "for a in \"$@\"; do args+=(\"${a/policy=0x30000/policy=0xb0000}\"); done\nexec \"$QEMU\" \"${args[@]}\"",
    )?;
    let policy = f.allowed(&f.shell(&hello()))?;
    let mark = f.stack.mark()?;
    let out = f
        .start(&policy, &hello())
        .configured(&f.stack, &[("qemu", &format!("{wrapper:?}"))])?
        .go(&f.stack)?;
    refused(&out, &["debug"])?;
    nothing_used(f, mark)
}

fn simulated_forbidden(f: &Fixture) -> Result<()> {
    let policy = f.shell(&hello()).write(&f.stack)?;
    f.set_rules(f.launch_digest(), std::slice::from_ref(&policy.digest), &[])?;
    let mark = f.stack.mark()?;
    let out = f.start(&policy, &hello()).go(&f.stack)?;
    refused(&out, &["simulated"])?;
    nothing_used(f, mark)
}
