//! Files that are wrong: the error names the key or the file, and nothing starts.
use std::{fs, process::Command};

use anyhow::{Result, ensure};
use cella_tests::{process::run, workload::Written};

use crate::{
    Case,
    fixture::{Fixture, HELLO, read, refused},
};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("an_unknown_key_in_the_shims_file", unknown_shim_key),
    ("an_unknown_key_in_the_brokers_file", unknown_kbs_key),
    ("an_unknown_key_in_the_snapshotters_file", unknown_snapshotter_key),
    ("an_unknown_key_in_the_workload_file", unknown_workload_key),
    ("an_unknown_key_in_the_policy", unknown_policy_key),
    ("no_qemu", no_qemu),
    ("no_kernel", no_kernel),
    ("no_firmware", no_firmware),
    ("no_initdata", no_initdata),
    ("initdata_that_is_no_gzip", initdata_no_gzip),
    ("auto_never_means_simulated", auto_is_not_sim),
];

fn hello() -> String {
    format!("echo {HELLO}")
}

fn with_config(f: &Fixture, key: &str, value: &str, words: &[&str]) -> Result<()> {
    let policy = f.allowed(&f.shell(&hello()))?;
    let out = f
        .start(&policy, &hello())
        .configured(&f.stack, &[(key, value)])?
        .go(&f.stack)?;
    refused(&out, words)
}

fn unknown_shim_key(f: &Fixture) -> Result<()> {
    with_config(f, "memory-mb", "512", &["memory-mb"])
}

fn program(f: &Fixture, name: &str, args: &[&str]) -> Result<String> {
    let out = run(
        Command::new(format!("{}/{name}", f.stack.var("BIN"))).args(args),
        std::time::Duration::from_secs(20),
    )?;
    ensure!(!out.status.success(), "{name} took it");
    Ok(String::from_utf8_lossy(&out.stderr).into_owned())
}

fn unknown_kbs_key(f: &Fixture) -> Result<()> {
    let path = f.stack.path("kbs-wrong.toml");
    fs::write(
        &path,
        format!("no-such-key = 1\n{}", read(f.stack.var("KBS_CONFIG").as_ref())?),
    )?;
    let said = program(f, "cella-kbs", &["serve", "--config", &path.to_string_lossy()])?;
    ensure!(said.contains("no-such-key"), "{said}");
    Ok(())
}

fn unknown_snapshotter_key(f: &Fixture) -> Result<()> {
    let path = f.stack.path("snapshotter-wrong.toml");
    fs::write(
        &path,
        format!("no-such-key = 1\n{}", read(&f.stack.path("snapshotter.toml"))?),
    )?;
    let said = program(f, "cella-snapshotter", &["--config", &path.to_string_lossy()])?;
    ensure!(said.contains("no-such-key"), "{said}");
    Ok(())
}

fn unknown_workload_key(f: &Fixture) -> Result<()> {
    let path = f.stack.path("workload-wrong.toml");
    fs::write(&path, "no-such-key = 1\n")?;
    let said = program(
        f,
        "cellactl",
        &[
            "policy",
            "write",
            "--from",
            &path.to_string_lossy(),
            "--out",
            "/dev/null",
        ],
    )?;
    ensure!(said.contains("no-such-key"), "{said}");
    Ok(())
}

fn unknown_policy_key(f: &Fixture) -> Result<()> {
    // Bound by the launch and allowed by the rule, but not a policy that this agent understands: it refuses to guess.
    let policy = f.allowed(&f.shell(&hello()))?;
    let text = read(&policy.initdata)?;
    let changed = text.replacen("[kbs]", "[kbs]\nno-such-key = 1", 1);
    ensure!(changed != text);
    let path = f.stack.path(&f.stack.fresh("unknown"));
    fs::write(&path, &changed)?;
    // cellactl refuses such a document, so digest and annotation are made by hand.
    let digest = run(Command::new("sha256sum").arg(&path), std::time::Duration::from_secs(5))?;
    let gzip = run(
        Command::new("sh").args(["-c", &format!("gzip -9nc {} | base64 -w0", path.display())]),
        std::time::Duration::from_secs(5),
    )?;
    let policy = Written {
        initdata: path,
        digest: String::from_utf8_lossy(&digest.stdout)
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned(),
        annotation: String::from_utf8_lossy(&gzip.stdout).into_owned(),
    };
    f.allow(&policy)?;
    let mark = f.stack.mark()?;
    let out = f.start(&policy, &hello()).go(&f.stack)?;
    refused(&out, &["no-such-key"])?;
    f.stack.no_key_released(mark)
}

fn no_qemu(f: &Fixture) -> Result<()> {
    with_config(f, "qemu", "\"/nowhere/qemu\"", &["qemu", "/nowhere/qemu"])
}

fn no_kernel(f: &Fixture) -> Result<()> {
    let dir = cella_tests::attacker::guest_image_with(&f.stack, "cmdline", |_| ())?;
    fs::remove_file(dir.join("vmlinuz"))?;
    with_config(f, "guest-image", &format!("{dir:?}"), &["guest-image", "vmlinuz"])
}

fn no_firmware(f: &Fixture) -> Result<()> {
    with_config(f, "firmware", "\"/nowhere/OVMF.fd\"", &["firmware", "/nowhere/OVMF.fd"])
}

fn no_initdata(f: &Fixture) -> Result<()> {
    let policy = Written {
        initdata: "/dev/null".into(),
        digest: String::new(),
        annotation: String::new(),
    };
    let out = f.start(&policy, &hello()).go(&f.stack)?;
    refused(&out, &["cc_init_data"])
}

fn initdata_no_gzip(f: &Fixture) -> Result<()> {
    let policy = Written {
        initdata: "/dev/null".into(),
        digest: String::new(),
        annotation: "bm90IGd6aXA=".to_owned(),
    };
    let out = f.start(&policy, &hello()).go(&f.stack)?;
    refused(&out, &["initdata"])
}

fn auto_is_not_sim(f: &Fixture) -> Result<()> {
    with_config(f, "tee", "\"auto\"", &["tee"])
}
