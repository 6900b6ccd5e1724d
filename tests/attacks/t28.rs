//! T28: the provider exchanges what may have the keys, without telling anybody.
use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use cella_attest::reference::{Document, Measured, Values};
use cella_tests::Fixture;
use ring::signature::Ed25519KeyPair;
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

use crate::{
    attack::{Attack, Ground, On, Open, Seen, Threat, told},
    broker::{self, Broker, Guest},
    own::Own,
};

pub(crate) const THREAT: Threat = Threat {
    number: 28,
    title: "Unannounced update of the provider",
    attacks: &[
        Attack {
            name: "a_rule_changed_without_the_owners",
            tried: "the broker's admin lets a new build have a key that has two owners, and one of them said yes",
            on: On::Broker,
            run: without_owners,
        },
        Attack {
            name: "owners_replaced_by_the_admin",
            tried: "the admin names another owner in the place of the two",
            on: On::Broker,
            run: owners_replaced,
        },
        Attack {
            name: "a_rule_set_with_another_key",
            tried: "somebody who is not the admin sets a rule",
            on: On::Broker,
            run: not_the_admin,
        },
        Attack {
            name: "the_audit_log_written_anew",
            tried: "the line of a rule's change is taken out of the audit log, changed, or the log cut",
            on: On::Desk,
            run: audit_rewritten,
        },
        Attack {
            name: "reference_values_that_nobody_signed",
            tried: "the broker's admin imports reference values that are unsigned, signed by another, expired, or changed after signing",
            on: On::Broker,
            run: reference_values,
        },
    ],
    open: &[Open {
        name: "values_without_a_log_entry",
        part: "signed reference values that stand in no public log",
        because: "values are signed and end, but no transparency log is kept yet: a signer can sign what nobody else has seen",
    }],
};

fn keygen(f: &Fixture, name: &str) -> Result<(String, String)> {
    let key = f.stack.path(&format!("{name}.key")).to_string_lossy().into_owned();
    f.stack.cellactl(["kbs", "keygen", &key])?;
    Ok((key.clone(), format!("{key}.pub")))
}

/// One owner's yes to a guest.
fn approve(f: &Fixture, key: &str, guest: &Guest, owner: &str, with: &str) -> Result<String> {
    let (launch, policy) = (hex::encode(guest.measurement), hex::encode(guest.policy_digest()));
    f.stack.cellactl([
        "kbs",
        "approve",
        key,
        "--version",
        "1",
        "--launch-digest",
        &launch,
        "--policy-digest",
        &policy,
        "--owner",
        owner,
        "--owner-key",
        with,
        "--url",
        f.stack.var("KBS"),
        "--ca",
        f.stack.var("KBS_CA"),
    ])
}

fn without_owners(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (broker, key) = (Broker::of(&f.stack)?, "attack/two-owners/1");
    let old = Guest::of(&f.stack)?;
    let new = Guest {
        measurement: [0xa5; 48],
        ..Guest::of(&f.stack)?
    };
    broker::store_for(f, key, &[&old])?;
    broker::rule(f, key, &[&old, &new], &["--allow-simulated"])?;
    broker.ask(&new, key)?.granted()?; // no owners: the admin's word is enough
    let ((alice, alice_pub), (bob, bob_pub)) = (keygen(f, "alice")?, keygen(f, "bob")?);
    f.stack.kbs(&[
        "owners",
        "set",
        key,
        "--owner",
        &format!("alice={alice_pub}"),
        "--owner",
        &format!("bob={bob_pub}"),
    ])?;
    approve(f, key, &new, "alice", &alice)?;
    let refusal = broker.ask(&new, key)?.refused("approval missing")?;
    ensure!(refusal.contains("bob"), "{refusal}");
    approve(f, key, &new, "bob", &bob)?;
    broker.ask(&new, key)?.granted()?;
    broker.ask(&old, key)?.refused("approval missing")?;
    Ok(Seen::new(
        "of a key without owners the admin's change of the rule was enough; with both owners' yes it is released",
        refusal,
    ))
}

fn owners_replaced(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let key = "attack/replaced-owners/1";
    broker::store(f, key)?;
    let ((carol, carol_pub), (_, mallory_pub)) = (keygen(f, "carol")?, keygen(f, "mallory")?);
    let set = |owner: &str, further: &[&str]| {
        f.stack
            .kbs(&[&["owners", "set", key, "--owner", owner], further].concat())
    };
    set(&format!("carol={carol_pub}"), &[])?;
    let mallory = format!("mallory={mallory_pub}");
    let Err(error) = set(&mallory, &[]) else {
        bail!("the owners were replaced");
    };
    let said = told(&error);
    ensure!(said.contains("carol"), "{said}");
    let signed = f.stack.cellactl([
        "kbs",
        "owners",
        "sign",
        key,
        "--generation",
        "2",
        "--owner",
        &mallory,
        "--owner-key",
        &carol,
    ])?;
    set(&mallory, &["--consent", &format!("carol={}", signed.trim())])?;
    Ok(Seen::new(
        "a key without owners is given some by the admin alone; and with the owner's signed consent they change",
        said,
    ))
}

fn not_the_admin(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let guest = Guest::of(&f.stack)?;
    broker::store_for(f, "attack/admin/1", &[&guest])?;
    let (other, _) = keygen(f, "stranger")?;
    let (launch, policy) = (hex::encode([0xa5; 48]), hex::encode(guest.policy_digest()));
    let set = |key: &str| {
        f.stack.cellactl([
            "kbs",
            "set-rule",
            "attack/admin/1",
            "--launch-digest",
            &launch,
            "--policy-digest",
            &policy,
            "--allow-simulated",
            "--url",
            f.stack.var("KBS"),
            "--ca",
            f.stack.var("KBS_CA"),
            "--admin-key",
            key,
        ])
    };
    let Err(error) = set(&other) else {
        bail!("a stranger set a rule");
    };
    let broker = Broker::of(&f.stack)?;
    let new = Guest {
        measurement: [0xa5; 48],
        ..Guest::of(&f.stack)?
    };
    broker
        .ask(&new, "attack/admin/1")?
        .refused("measurement not in the rule")?;
    set(f.stack.var("KBS_ADMIN_KEY"))?;
    broker.ask(&new, "attack/admin/1")?.granted()?;
    Ok(Seen::new(
        "with the admin's key the same command changes who gets the key",
        told(&error),
    ))
}

fn audit_rewritten(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let guest = Guest::of(&f.stack)?;
    for key in ["attack/audited/1", "attack/audited/later"] {
        broker::store_for(f, key, &[&guest])?;
    }
    let copy = f.stack.path("audit.copy");
    f.stack.kbs(&["audit", "fetch", "--out", &copy.to_string_lossy()])?;
    let verify = |path: &std::path::Path| f.stack.cellactl(["kbs", "audit", "verify", &path.to_string_lossy()]);
    let text = fs::read_to_string(&copy)?;
    let whole = verify(&copy)?;
    let head = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(
        text.trim_end().lines().last().context("a line")?,
    ));
    let lines: Vec<_> = text.lines().collect();
    let at = lines
        .iter()
        .rposition(|line| line.contains("attack/audited/1"))
        .context("the change is not in the log")?;
    let without: String = lines
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != at)
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    let forged = f.stack.path("audit.forged");
    let mut said = Vec::new();
    for changed in [without, text.replacen("attack/audited/1", "attack/audited/2", 1)] {
        fs::write(&forged, changed)?;
        match verify(&forged) {
            Ok(_) => bail!("a log that was written anew passed"),
            Err(error) => said.push(told(&error)),
        }
    }
    // A log that is cut is whole as far as it goes: only a head that was kept tells.
    let cut: String = lines.iter().take(at).map(|line| format!("{line}\n")).collect();
    fs::write(&forged, cut)?;
    verify(&forged)?;
    match f
        .stack
        .cellactl(["kbs", "audit", "verify", &forged.to_string_lossy(), "--contains", &head])
    {
        Ok(_) => bail!("a log that was cut passed"),
        Err(error) => said.push(told(&error)),
    }
    Ok(Seen::new(
        format!(
            "the log as it was is whole ({}); one that is cut is too, for a reader who kept no head",
            whole.trim()
        ),
        said.join("; "),
    ))
}

fn reference_values(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let ((publisher, publisher_pub), (stranger, _)) = (keygen(f, "publisher")?, keygen(f, "no-publisher")?);
    let lines = format!("reference-signers = [{publisher_pub:?}]");
    let own = Own::start(f, &Path::new(f.stack.var("SIM_STATE")).join("ark.pem"), &lines)?;
    let (guest, client) = (Guest::of(&f.stack)?, own.client()?);
    let admin = |args: &[&str]| own.admin(args);
    broker::store_at(f, &admin, "a/b/c")?;
    let named = |launch: &str| {
        let mut rule = guest.rule();
        if let Some(list) = rule.pointer_mut("/launch-digests") {
            *list = serde_json::json!([launch]);
        }
        broker::rule_at(f, &admin, "a/b/c", &rule)
    };
    let mut values = Values::new();
    values.add(Measured::SnpLaunchDigest, guest.measurement);
    let unsigned = Document::of(&values).to_json();
    let file = f.stack.path(&f.stack.fresh("values"));
    let import = |document: &[u8]| {
        fs::write(&file, document)?;
        own.admin(&["reference", "import", &file.to_string_lossy()])
    };
    let sign = |document: &[u8], key: &str| -> Result<Vec<u8>> {
        let file = f.stack.path(&f.stack.fresh("values"));
        fs::write(&file, document)?;
        f.stack.cellactl([
            "reference",
            "sign",
            &file.to_string_lossy(),
            "--name",
            "guest",
            "--key",
            key,
        ])?;
        Ok(fs::read(&file)?)
    };
    // A digest by hand needs nobody's signature.
    named(&hex::encode(guest.measurement))?;
    client.ask(&guest, "a/b/c")?.granted()?;
    named("reference:guest")?;
    client.ask(&guest, "a/b/c")?.refused("reference values unknown")?;
    // Signed for another value, and this one put in its place.
    let mut other = Values::new();
    other.add(Measured::SnpLaunchDigest, [7; 48]);
    let mut changed: serde_json::Value = serde_json::from_slice(&sign(&Document::of(&other).to_json(), &publisher)?)?;
    let payload: serde_json::Value = serde_json::from_slice(&unsigned)?;
    *changed.pointer_mut("/payload").context("payload")? = payload.pointer("/payload").context("payload")?.clone();
    let mut said = Vec::new();
    for document in [
        unsigned.clone(),
        sign(&unsigned, &stranger)?,
        changed.to_string().into_bytes(),
        expired(&values, &publisher)?,
    ] {
        match import(&document) {
            Ok(text) => bail!("the values were imported: {text}"),
            Err(error) => said.push(told(&error)),
        }
        client.ask(&guest, "a/b/c")?.refused("reference values unknown")?;
    }
    let shown = import(&sign(&unsigned, &publisher)?)?;
    ensure!(
        shown.contains(&format!("+ snp_launch_measurement  {}", hex::encode(guest.measurement))),
        "{shown}"
    );
    client.ask(&guest, "a/b/c")?.granted()?;
    Ok(Seen::new(
        "a rule with the digest itself, and values that the pinned publisher signed, release the key; the import says what is new",
        said.join("; "),
    ))
}

/// Values that the publisher signed for an hour, two hours ago.
fn expired(values: &Values, key: &str) -> Result<Vec<u8>> {
    let der = PrivatePkcs8KeyDer::from_pem_file(key)?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
        .ok()
        .context("the key")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(Document::of(values)
        .sign(&pair, "guest".parse()?, now - 7200, now - 3600)?
        .to_json())
}
