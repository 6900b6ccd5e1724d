//! The simulated platform as TDX: a guest gives a quote and gets its keys, and whatever was changed about its launch keeps them away.
use std::fs;

use anyhow::{Context, Result, ensure};
use cella_policy::initdata;
use cella_tests::{
    Outcome, attacker,
    fixture::{Fixture, HELLO, refused},
    workload::Written,
};
use serde_json::{Value, json};

use crate::Case;

pub(crate) const CASES: &[(&str, Case)] = &[
    ("a_guest_gets_its_keys_for_a_quote", keys_for_a_quote),
    ("t13_the_kernel_command_line_changed", changed_command_line),
    ("t9_initdata_swapped_after_launch", swapped_initdata),
    ("t22_a_guest_that_may_be_debugged", debug_attribute),
    ("t22_a_rule_for_the_other_tee", rule_of_the_other_tee),
    ("t22_evidence_of_an_unknown_root", unknown_root),
];

fn line() -> String {
    format!("echo {HELLO}")
}

/// The registers that an owner computes, in the members of a rule.
fn registers(f: &Fixture) -> Result<Value> {
    let text = f.stack.cellactl([
        "measure",
        "--image-dir",
        f.stack.var("GUEST_IMAGE"),
        "--firmware",
        f.stack.var("OVMF_TDX"),
        "--memory",
        f.stack.var("MEMORY_MIB"),
        "--tee",
        "tdx",
        "--json",
    ])?;
    let measured: Value = serde_json::from_str(&text)?;
    let of = |name: &str| measured.get(name).context("a register is missing");
    Ok(json!({
        "mrtd": of("mrtd")?, "rtmr0": "any", "rtmr1": [of("rtmr1")?], "rtmr2": [of("rtmr2")?], "event-log": true,
    }))
}

/// A policy that a rule for TDX guests of this image allows.
fn allowed(f: &Fixture) -> Result<Written> {
    let policy = f.shell(&line()).write(&f.stack)?;
    let rule = json!({
        "launch-digests": [], "policy-digests": [policy.digest], "allow-simulated": true, "tdx": registers(f)?,
    });
    let path = f.stack.path(&f.stack.fresh("rule"));
    fs::write(&path, rule.to_string())?;
    for key in ["test/image-kek/1", "test/model-kek/1"] {
        f.stack.kbs(&["set-rule", key, "--rule", &path.to_string_lossy()])?;
    }
    Ok(policy)
}

/// Runs the probe as a TDX guest with further changes to the shim's configuration.
fn run(f: &Fixture, policy: &Written, changes: &[(&str, &str)]) -> Result<Outcome> {
    let firmware = format!("{:?}", f.stack.var("OVMF_TDX"));
    let mut all = vec![("tee", "\"sim-tdx\""), ("firmware", firmware.as_str())];
    all.extend(changes);
    // A key of simulated SNP alone.
    f.start(policy, &line())
        .configured(&f.stack, &all)?
        .without(&f.stack, "sim-firmware-boot")?
        .go(&f.stack)
}

fn keys_for_a_quote(f: &Fixture) -> Result<()> {
    let policy = allowed(f)?;
    let mark = f.stack.mark()?;
    let out = run(f, &policy, &[])?;
    ensure!(out.code == 0 && out.stdout == format!("{HELLO}\n"), "{out:?}");
    let lines = f.stack.audit_since(mark)?;
    let releases: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .filter(|line| {
            line.as_ref()
                .is_ok_and(|line: &Value| line.get("event") == Some(&json!("release")))
        })
        .collect::<Result<_, _>>()?;
    ensure!(releases.len() == 1, "one key, asked for once: {lines}");
    for release in releases {
        let says = |member: &str, value: Value| release.get(member) == Some(&value);
        let as_expected =
            says("outcome", json!("allowed")) && says("tee", json!("tdx")) && says("simulated", json!(true));
        ensure!(as_expected, "{release}");
    }
    let attests = lines.lines().filter(|line| line.contains("\"attest\"")).count();
    ensure!(attests == 1, "one evidence for a boot: {lines}");
    Ok(())
}

fn changed_command_line(f: &Fixture) -> Result<()> {
    let policy = allowed(f)?;
    let image = attacker::guest_image_with(&f.stack, "cmdline", |bytes| bytes.extend_from_slice(b" loglevel=7"))?;
    let mark = f.stack.mark()?;
    let out = run(f, &policy, &[("guest-image", &format!("{image:?}"))])?;
    refused(&out, &["RTMR2"])?;
    f.stack.no_key_released(mark)
}

fn swapped_initdata(f: &Fixture) -> Result<()> {
    let bound = allowed(f)?;
    let other = f.shell("echo another workload").write(&f.stack)?;
    let device = initdata::encode_device(&fs::read(&other.initdata)?);
    let wrapper = attacker::qemu_with_initdata(&f.stack, &device)?;
    let mark = f.stack.mark()?;
    let out = run(f, &bound, &[("qemu", &format!("{wrapper:?}"))])?;
    refused(&out, &["initdata", "MRCONFIGID"])?;
    f.stack.no_key_released(mark)
}

fn debug_attribute(f: &Fixture) -> Result<()> {
    let policy = allowed(f)?;
    let wrapper = attacker::qemu_wrapper(
        &f.stack,
        "for a in \"$@\"; do args+=(\"${a/identity=tdx-guest,,/identity=tdx-guest,,attributes=1,,}\"); done\nexec \"$QEMU\" \"${args[@]}\"",
    )?;
    let mark = f.stack.mark()?;
    let out = run(f, &policy, &[("qemu", &format!("{wrapper:?}"))])?;
    refused(&out, &["debug"])?;
    f.stack.no_key_released(mark)
}

/// A rule that names SNP's launch digest only says nothing about a TDX guest.
fn rule_of_the_other_tee(f: &Fixture) -> Result<()> {
    let policy = f.allowed(&f.shell(&line()))?;
    let mark = f.stack.mark()?;
    let out = run(f, &policy, &[])?;
    refused(&out, &[])?;
    f.stack.no_key_released(mark)
}

fn unknown_root(f: &Fixture) -> Result<()> {
    let policy = allowed(f)?;
    let state = f.stack.path(&f.stack.fresh("sim"));
    let made = std::process::Command::new(format!("{}/cella-sim-platform", f.stack.var("BIN")))
        .args(["init", "--state"])
        .arg(&state)
        .output()?;
    ensure!(made.status.success(), "{made:?}");
    let mark = f.stack.mark()?;
    let out = run(f, &policy, &[("sim-state", &format!("{state:?}"))])?;
    refused(&out, &[])?;
    f.stack.no_key_released(mark)
}
