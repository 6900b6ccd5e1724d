//! Boot records: fetched from a running guest, checked on a desk that trusts nobody, and refused once changed.
use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use cella_tests::{
    Run,
    process::{run, wait_until},
    workload::Written,
};
use serde_json::Value;

use crate::{
    Case,
    fixture::{Fixture, IMAGE_KEY, MODEL_KEY, token_key},
};

pub(crate) const CASES: &[(&str, Case)] = &[
    (
        "a_record_is_verified_offline_and_refused_once_changed",
        verified_and_tampered,
    ),
    ("a_guest_without_keys_has_no_record", no_keys_no_record),
];

const LINE: &str = "sleep 1000 & wait";

/// A guest that runs, its policy, and its record in a file.
struct Guest<'f> {
    fixture: &'f Fixture,
    run: Run,
    policy: Written,
    file: PathBuf,
}

impl<'f> Guest<'f> {
    fn start(fixture: &'f Fixture, policy: Written) -> Result<Self> {
        let run = fixture.start(&policy, LINE).detached();
        let out = run.go(&fixture.stack)?;
        ensure!(out.code == 0, "{out:?}");
        Ok(Self {
            fixture,
            run,
            policy,
            file: fixture.stack.path(&fixture.stack.fresh("record")),
        })
    }

    /// `cellactl record`, on the node.
    fn fetch(&self) -> Result<std::process::Output> {
        let stack = &self.fixture.stack;
        let run_dir = stack.path("vm");
        let mut command = Command::new(format!("{}/cellactl", stack.var("BIN")));
        command
            .arg("record")
            .arg(&self.run.id)
            .arg("--run-dir")
            .arg(run_dir)
            .arg("--out")
            .arg(&self.file);
        run(&mut command, Duration::from_secs(30))
    }

    /// `cellactl verify-record` of a text: `Ok` is what it prints, `Err` what it says against it.
    fn verify(&self, text: &str, more: &[&str]) -> Result<Result<String, String>> {
        let stack = &self.fixture.stack;
        fs::write(&self.file, text)?;
        let mut command = Command::new(format!("{}/cellactl", stack.var("BIN")));
        command
            .arg("verify-record")
            .arg(&self.file)
            .args(["--simulated-root", &format!("{}/ark.pem", stack.var("SIM_STATE"))]);
        if !more.contains(&"--measurement") {
            command.args(["--measurement", self.fixture.launch_digest()]);
        }
        let out = run(command.args(more), Duration::from_secs(30))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(if out.status.success() {
            Ok(text(&out.stdout))
        } else {
            Err(text(&out.stderr))
        })
    }
}

fn verified_and_tampered(f: &Fixture) -> Result<()> {
    let (mark, kid) = (f.stack.mark()?, token_key(&f.stack)?);
    let mut workload = f.with_model(LINE);
    workload.broker = format!("token-keys = [{kid:?}]\n");
    let guest = Guest::start(f, f.allowed(&workload)?)?;
    // The container starts when what it names is there; the record is made a moment later.
    wait_until(Duration::from_secs(20), || {
        Ok(guest.fetch()?.status.success().then_some(()))
    })?;
    let text = fs::read_to_string(&guest.file)?;

    let initdata = guest.policy.initdata.to_string_lossy().into_owned();
    let model = format!("sha256:{}", f.model_sha256);
    let image = f.image.split_once('@').context("digest")?.1;
    let wanted = [
        "--initdata",
        &initdata,
        "--policy-digest",
        &guest.policy.digest,
        "--model-digest",
        &model,
        "--image-digest",
        image,
        "--broker-key",
        &kid,
        "--not-before",
        "1767225600",
        "--json",
    ];
    let told = guest.verify(&text, &wanted)?.map_err(anyhow::Error::msg)?;
    let told: Value = serde_json::from_str(&told)?;
    let record = told.get("record").context("record")?;
    let at = |place: &str| record.pointer(place).with_context(|| format!("{place} in {record}"));
    ensure!(told.get("simulated") == Some(&Value::Bool(true)), "{told}");
    ensure!(at("/measurement")? == f.launch_digest(), "{record}");
    ensure!(
        at("/broker/keys/0/key")? == IMAGE_KEY && at("/broker/keys/1/key")? == MODEL_KEY,
        "{record}"
    );
    ensure!(
        at("/models/0/files/0/bytes")?.as_u64() == Some(f.model_bytes),
        "{record}"
    );
    ensure!(
        at("/models/0/files/0/locked-bytes")?.as_u64() == Some(f.model_bytes.next_multiple_of(2 << 20)),
        "{record}"
    );
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    ensure!(
        at("/time/recorded")?
            .as_u64()
            .is_some_and(|time| now.abs_diff(time) < 300),
        "{record}"
    );

    // The session that it names is the broker's own, and both keys were released in it.
    let session = at("/broker/token/id")?.as_str().context("session")?.to_owned();
    let audit = f.stack.audit_since(mark)?;
    for kid in ["test/image-kek/1", "test/model-kek/1"] {
        let is_release = |line: &&str| line.contains(&session) && line.contains(kid) && line.contains("\"release\"");
        ensure!(
            audit.lines().any(|line| is_release(&line)),
            "no release of {kid} in session {session}:\n{audit}"
        );
    }

    tampered(&guest, &text)?;
    expected_otherwise(f, &guest, &text)?;
    guest.run.remove(&f.stack)
}

/// Each value of the record, of its binding and of its evidence changed in turn.
fn tampered(guest: &Guest<'_>, text: &str) -> Result<()> {
    let whole: Value = serde_json::from_str(text)?;
    let mut places = Vec::new();
    leaves(&whole, "", &mut places);
    ensure!(places.len() > 30, "{places:?}");
    for place in places {
        let mut other = whole.clone();
        let leaf = other.pointer_mut(&place).context("leaf")?;
        *leaf = match &*leaf {
            Value::Bool(value) => Value::from(!value),
            Value::Number(number) => Value::from(number.as_u64().unwrap_or_default() ^ 1),
            // The first character of base64 and of hexadecimal alike; of `snp`, another TEE.
            Value::String(text) if text.starts_with('0') => Value::from(format!("1{}", &text[1..])),
            Value::String(text) => Value::from(text.get(1..).map_or_else(|| "0".to_owned(), |rest| format!("0{rest}"))),
            other => other.clone(),
        };
        let refusal = guest.verify(&(other.to_string() + "\n"), &[])?;
        ensure!(refusal.is_err(), "{place} was changed, and the record believed");
    }
    let spaced = text.replacen(':', ": ", 1);
    let said = guest
        .verify(&spaced, &[])?
        .err()
        .context("another text of the same was believed")?;
    ensure!(said.contains("canonical"), "{said}");
    Ok(())
}

fn leaves(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, value)| leaves(value, &format!("{place}/{name}"), found)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(at, value)| leaves(value, &format!("{place}/{at}"), found)),
        _ => found.push(place.to_owned()),
    }
}

/// A genuine record that is not the expected one.
fn expected_otherwise(f: &Fixture, guest: &Guest<'_>, text: &str) -> Result<()> {
    let zeros = "00".repeat(32);
    let other = f.with_model("echo another").write(&f.stack)?;
    let (digest, other) = (format!("sha256:{zeros}"), other.initdata.to_string_lossy().into_owned());
    for (more, said) in [
        (["--measurement", &"00".repeat(48)], "launch digest"),
        (["--policy-digest", &zeros], "policy digest"),
        (["--initdata", &other], "not the one that the guest was launched with"),
        (["--model-digest", &digest], "no model"),
        (["--image-digest", &digest], "no image"),
        (
            ["--broker-key", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"],
            "expected key",
        ),
        (["--not-after", "1767225600"], "time"),
    ] {
        let refusal = guest
            .verify(text, &more)?
            .err()
            .with_context(|| format!("{more:?} was met"))?;
        ensure!(refusal.contains(said), "{more:?}: {refusal}");
    }
    Ok(())
}

fn no_keys_no_record(f: &Fixture) -> Result<()> {
    let mut workload = f.shell(LINE);
    workload.image.clone_from(&f.plain_image);
    workload.image_keys.clear();
    let policy = workload.write(&f.stack)?;
    let run = Run::new(&f.stack, &f.plain_image, &policy, &["/bin/busybox", "sh", "-c", LINE]).detached();
    let out = run.go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    let guest = Guest {
        fixture: f,
        run,
        policy,
        file: f.stack.path(&f.stack.fresh("record")),
    };
    let out = guest.fetch()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(!out.status.success() && said.contains("no boot record"), "{said}");
    guest.run.remove(&f.stack)
}
