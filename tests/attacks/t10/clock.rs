//! The host sets the machine's clock. A guest goes by the time that the broker's token states.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use cella_tests::{
    Fixture, Outcome, Run, Workload,
    attacker::qemu_wrapper,
    fixture::{HELLO, refused, token_key},
    process::succeed,
    registry::Second,
};

use crate::{
    attack::{Ground, Seen, said},
    relay::{Identity, Relay, judged_at},
};

const TEN_YEARS: u64 = 10 * 365 * 24 * 3600;
const BY_THE_CLOCK: &str = "a verifier that goes by the machine's clock (openssl verify -attime) takes the certificate";

fn hello() -> String {
    format!("echo {HELLO}")
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// A QEMU whose machine begins with this time in its CMOS clock, in seconds since the Unix epoch.
fn at(f: &Fixture, time: u64) -> Result<String> {
    let base = format!("$(date -u -d @{time} +%Y-%m-%dT%H:%M:%S)");
    let wrapper = qemu_wrapper(&f.stack, &format!("exec \"$QEMU\" \"$@\" -rtc base={base},clock=vm"))?;
    Ok(format!("{wrapper:?}"))
}

pub(super) fn broker_revived(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (identity, then) = (Identity::expired(&f.stack)?, now()? - 10 * 3600);
    let authority = Path::new(f.stack.var("KBS_CA"));
    ensure!(
        judged_at(authority, identity.chain(), now()?)?.contains("expired"),
        "it has not expired"
    );
    let by_the_clock = judged_at(authority, identity.chain(), then)?;
    ensure!(by_the_clock.contains("OK"), "it was never good: {by_the_clock}");
    let relay = Relay::start(&f.stack, &identity, Box::new(|_| ()))?;
    let mut workload = f.shell(&hello());
    workload.kbs = relay.guest_url();
    let policy = f.allowed(&workload)?;
    let mark = f.stack.mark()?;
    let out = f
        .start(&policy, &hello())
        .configured(&f.stack, &[("qemu", &at(f, then)?)])?
        .go(&f.stack)?;
    refused(&out, &["certificate", &relay.guest_url()])?;
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, &f.image)?;
    Ok(Seen::new(BY_THE_CLOCK, said(&out)))
}

/// The same registry behind a certificate that has ended an hour ago, on a machine whose clock is two hours slow: by that clock it is good, and so is the
/// broker's, so that nothing but the broker's word stands against it.
pub(super) fn registry_revived(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let dir = f.stack.path(&f.stack.fresh("revived"));
    fs::create_dir(&dir)?;
    let (certificate, key) = expired(f, &dir)?;
    let then = now()? - 2 * 3600;
    let by_the_clock = judged_at(Path::new(f.stack.var("REGISTRY_CA")), &certificate, then)?;
    // The authority itself is younger: openssl says so of it alone, a client with pinned roots does not ask.
    ensure!(!by_the_clock.contains("expired"), "it was never good: {by_the_clock}");
    let registry = Second::start(&f.stack, &dir, &certificate, &key)?;
    let mut workload = f.shell(&hello());
    workload.registry = registry.guest_url();
    let policy = f.allowed(&workload)?;
    let out = f
        .start(&policy, &hello())
        .configured(&f.stack, &[("qemu", &at(f, then)?)])?
        .go(&f.stack)?;
    refused(&out, &["certificate", &registry.guest_url()])?;
    drop(registry);
    // The host's own clock is right: that there is a registry, and that it has the image, is not what is missing.
    let out_of_date = said(&out);
    let ran = f.start(&f.allowed(&f.shell(&hello()))?, &hello()).go(&f.stack)?;
    ensure!(ran.code == 0, "{ran:?}");
    Ok(Seen::new(
        "at the machine's clock (openssl verify -attime) the certificate is in its time",
        out_of_date,
    ))
}

/// A certificate for the registry by its own authority, valid until an hour ago.
fn expired(f: &Fixture, dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let pki = PathBuf::from(f.stack.var("STATE")).join("pki");
    let script = format!(
        "cd {dir:?}; umask 077; touch index; echo 01 > serial
         printf '[ca]\\ndefault_ca=x\\n[x]\\ndatabase=index\\nserial=serial\\nnew_certs_dir=.\\ndefault_md=sha256\\npolicy=p\\nunique_subject=no\\n[p]\\ncommonName=supplied\\n[e]\\nbasicConstraints=CA:FALSE\\nsubjectAltName=DNS:localhost,IP:127.0.0.1,IP:10.0.2.2\\n' > conf
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=expired registry' -keyout key.pem -out csr
         openssl ca -batch -config conf -extensions e -notext -cert {pki:?}/ca.pem -keyfile {pki:?}/ca.key -startdate $(date -u -d '30 days ago' +%Y%m%d%H%M%SZ) -enddate $(date -u -d '1 hour ago' +%Y%m%d%H%M%SZ) -in csr -out cert.pem"
    );
    succeed(Command::new("bash").args(["-ec", &script]), Duration::from_secs(30))?;
    Ok((dir.join("cert.pem"), dir.join("key.pem")))
}

/// What the guest's clock says, twice.
fn clocks(out: &Outcome) -> Result<Vec<u64>> {
    ensure!(out.code == 0, "{out:?}");
    Ok(out.stdout.lines().map(str::parse).collect::<Result<_, _>>()?)
}

pub(super) fn another_time(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let line = "date +%s; sleep 1; date +%s";
    let mut told = Vec::new();
    for machine in [now()? + TEN_YEARS, now()? - TEN_YEARS] {
        let mut workload = f.with_model(line);
        workload.broker = format!("token-keys = [{:?}]\n", token_key(&f.stack)?);
        let policy = f.allowed(&workload)?;
        let started = now()?;
        let out = f
            .start(&policy, line)
            .configured(&f.stack, &[("qemu", &at(f, machine)?)])?
            .go(&f.stack)?;
        let ended = now()?;
        let clocks = clocks(&out)?;
        // A token states whole seconds, and the guest leaves a clock alone that is 3 s off.
        let right = |clock: &u64| (started.saturating_sub(4)..=ended + 4).contains(clock);
        ensure!(
            clocks.len() == 2 && clocks.iter().all(right),
            "{clocks:?} is not {started} to {ended}"
        );
        told.push(format!(
            "{} s after the start",
            clocks.first().copied().unwrap_or_default().saturating_sub(started)
        ));
    }
    // Without keys there is no broker whose token could state the time: the machine's clock is all there is.
    let args = ["/bin/busybox", "date", "+%s"];
    let mut workload = Workload::new(&f.stack, &f.plain_image, &[], &args);
    workload.kbs.clear();
    let policy = workload.write(&f.stack)?;
    let out = Run::new(&f.stack, &f.plain_image, &policy, &args)
        .configured(&f.stack, &[("qemu", &at(f, now()? + TEN_YEARS)?)])?
        .go(&f.stack)?;
    let clocks = clocks(&out)?;
    ensure!(
        clocks
            .iter()
            .all(|clock| *clock > now().unwrap_or_default() + TEN_YEARS / 2),
        "{clocks:?}"
    );
    Ok(Seen::new(
        "a pod without a key broker, which no token tells the time, believes the machine's clock",
        format!("the pods ran, and their clocks said {}", told.join(" and ")),
    ))
}

pub(super) fn unpinned_token(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let start = |key: &str| -> Result<Outcome> {
        let mut workload = f.shell(&hello());
        workload.broker = format!("token-keys = [{key:?}]\n");
        f.start(&f.allowed(&workload)?, &hello()).go(&f.stack)
    };
    let mark = f.stack.mark()?;
    let out = start("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs")?;
    refused(&out, &["token"])?;
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, &f.image)?;
    let ran = start(&token_key(&f.stack)?)?;
    ensure!(ran.code == 0 && ran.stdout.contains(HELLO), "{ran:?}");
    Ok(Seen::new(
        "a policy that pins the key which signed, like one that pins none, lets the pod run",
        said(&out),
    ))
}
