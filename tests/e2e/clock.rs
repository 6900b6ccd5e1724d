//! Threat T10: the host sets the clock. Keys come from the pinned broker alone, and dates are judged by what it states.
use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Result, ensure};
use cella_tests::{attacker::qemu_wrapper, process::succeed, registry::Second};

use crate::{
    Case,
    fixture::{Fixture, HELLO, refused, token_key},
};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("t10_a_clock_ten_years_slow_changes_nothing", ten_years_slow),
    ("t10_a_clock_ten_years_fast_changes_nothing", ten_years_fast),
    ("t10_a_clock_set_back_revives_no_certificate", no_revival),
    ("t10_a_token_that_no_pinned_key_signed_gives_no_keys", unpinned_token),
];

/// A QEMU whose machine begins with this time of day in its CMOS clock.
fn machine_at(f: &Fixture, time: &str) -> Result<PathBuf> {
    qemu_wrapper(&f.stack, &format!("exec \"$QEMU\" \"$@\" -rtc base={time},clock=vm"))
}

fn now() -> Result<u64> {
    Ok(std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs())
}

fn with_clock(f: &Fixture, time: &str) -> Result<()> {
    let line = "date +%s; sleep 1; date +%s";
    let mut workload = f.with_model(line);
    workload.broker = format!("token-keys = [{:?}]\n", token_key(&f.stack)?);
    let policy = f.allowed(&workload)?;
    let qemu = machine_at(f, time)?;
    let started = now()?;
    let run = f
        .start(&policy, line)
        .configured(&f.stack, &[("qemu", &format!("{qemu:?}"))])?;
    let out = run.go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    let ended = now()?;
    for told in out.stdout.lines() {
        let told: u64 = told.parse()?;
        // A token states whole seconds, and the guest leaves a clock alone that is 3 s off.
        ensure!(
            (started.saturating_sub(4)..=ended + 4).contains(&told),
            "{told} is not now: {started} to {ended}"
        );
    }
    ensure!(out.stdout.lines().count() == 2, "{out:?}");
    Ok(())
}

fn ten_years_slow(f: &Fixture) -> Result<()> {
    with_clock(f, "2016-11-23T12:00:00")
}

fn ten_years_fast(f: &Fixture) -> Result<()> {
    with_clock(f, "2036-11-23T12:00:00")
}

/// The same registry behind a certificate that has ended an hour ago, on a machine whose clock is two hours slow: by that clock it is good, and so is the
/// broker's, so that nothing but the broker's word stands against it.
fn no_revival(f: &Fixture) -> Result<()> {
    let dir = f.stack.path(&f.stack.fresh("expired"));
    fs::create_dir(&dir)?;
    let (certificate, key) = expired(f, &dir)?;
    let registry = Second::start(&f.stack, &dir, &certificate, &key)?;
    let line = format!("echo {HELLO}");
    let mut workload = f.shell(&line);
    workload.registry = registry.guest_url();
    let policy = f.allowed(&workload)?;
    let qemu = machine_at(f, &date("-2 hours", "+%Y-%m-%dT%H:%M:%S")?)?;
    let run = f
        .start(&policy, &line)
        .configured(&f.stack, &[("qemu", &format!("{qemu:?}"))])?;
    let out = run.go(&f.stack)?;
    refused(&out, &["certificate", &registry.guest_url()])?;
    // The host's own clock is right: that there is a registry, and that it has the image, is not what is missing.
    drop(registry);
    let out = f.start(&f.allowed(&f.shell(&line))?, &line).go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    Ok(())
}

/// A time of day, UTC.
fn date(when: &str, format: &str) -> Result<String> {
    let text = succeed(
        Command::new("date").args(["-u", "-d", when, format]),
        Duration::from_secs(5),
    )?;
    Ok(text.trim().to_owned())
}

/// A certificate for the registry by its own authority, valid until an hour ago.
fn expired(f: &Fixture, dir: &std::path::Path) -> Result<(PathBuf, PathBuf)> {
    let pki = PathBuf::from(f.stack.var("STATE")).join("pki");
    let (from, to) = (date("-30 days", "+%Y%m%d%H%M%SZ")?, date("-1 hour", "+%Y%m%d%H%M%SZ")?);
    let script = format!(
        "cd {dir:?}; umask 077; touch index; echo 01 > serial
         printf '[ca]\\ndefault_ca=x\\n[x]\\ndatabase=index\\nserial=serial\\nnew_certs_dir=.\\ndefault_md=sha256\\npolicy=p\\nunique_subject=no\\n[p]\\ncommonName=supplied\\n[e]\\nbasicConstraints=CA:FALSE\\nsubjectAltName=DNS:localhost,IP:127.0.0.1,IP:10.0.2.2\\n' > conf
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=expired registry' -keyout key.pem -out csr
         openssl ca -batch -config conf -extensions e -notext -cert {pki:?}/ca.pem -keyfile {pki:?}/ca.key -startdate {from} -enddate {to} -in csr -out cert.pem"
    );
    succeed(Command::new("bash").args(["-ec", &script]), Duration::from_secs(30))?;
    Ok((dir.join("cert.pem"), dir.join("key.pem")))
}

fn unpinned_token(f: &Fixture) -> Result<()> {
    let line = format!("echo {HELLO}");
    let mut workload = f.shell(&line);
    workload.broker = "token-keys = [\"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs\"]\n".to_owned();
    let policy = f.allowed(&workload)?;
    let mark = f.stack.mark()?;
    let out = f.start(&policy, &line).go(&f.stack)?;
    refused(&out, &["token"])?;
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, &f.image)
}
