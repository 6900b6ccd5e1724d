//! T20: processors and platforms whose protection is known to be broken.
use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use cella_attest::{
    Anchors, Expected, VerifyError, VerifyOptions,
    sim::{Authority, ChipSpec},
    snp::{PLATFORM_ALIAS_CHECK, PLATFORM_SMT, Report, TcbVersion},
    verify_with,
};
use serde_json::{Value, json};

use crate::{
    attack::{Attack, Ground, On, Seen, Threat, chain},
    broker::{self, Answer, Broker, Guest},
    own::Own,
    vectors,
};

pub(crate) const THREAT: Threat = Threat {
    number: 20,
    title: "CPU vendor breaks",
    attacks: &[
        Attack {
            name: "a_milan_whose_key_can_be_extracted",
            tried: "a real Milan's report, genuine up to AMD's root",
            on: On::RealEvidence,
            run: milan,
        },
        Attack {
            name: "firmware_below_the_floor",
            tried: "a platform whose bootloader, SNP firmware or microcode is older than the rule's minimum TCB",
            on: On::Broker,
            run: old_firmware,
        },
        Attack {
            name: "a_chip_that_is_not_on_the_list",
            tried: "a genuine chip that the owner's list does not have",
            on: On::Broker,
            run: other_chip,
        },
        Attack {
            name: "a_platform_without_the_alias_check",
            tried: "a platform whose firmware has not looked for memory aliases (BadRAM)",
            on: On::Broker,
            run: no_alias_check,
        },
        Attack {
            name: "a_certificate_that_was_revoked",
            tried: "a genuine guest under a certificate that the vendor's revocation list names; and a list that has expired, or is missing",
            on: On::Broker,
            run: revoked,
        },
    ],
    // Interposers on the memory bus: no software of a guest can refuse them. docs/threat-model.md, "Not defended".
    open: &[],
};

fn milan(_: &Ground) -> Result<Seen> {
    let evidence = vectors::milan()?;
    let report = Report::parse(&evidence.report)?;
    let check = |options: &VerifyOptions| {
        let expected = Expected {
            report_data: &report.report_data,
            host_data: None,
            vmpl: report.vmpl,
        };
        verify_with(&evidence, &Anchors::amd(), &expected, options)
    };
    let options = VerifyOptions::default().min_version(2);
    check(&options.clone().allow_milan(true))?;
    match check(&options) {
        Err(error @ VerifyError::MilanRefused) => Ok(Seen::new(
            "with `allow_milan` the verifier accepts it under AMD's own root",
            chain(&error),
        )),
        other => bail!("{other:?}"),
    }
}

/// Asked for with and without a condition in the rule.
fn conditioned(g: &Ground, name: &str, guest: &Guest, flags: &[&str], word: &str) -> Result<String> {
    let f = g.fixture()?;
    let (broker, key) = (Broker::of(&f.stack)?, format!("attack/{name}/1"));
    broker::store_for(f, &key, &[guest])?;
    broker.ask(guest, &key)?.granted()?;
    broker::rule(f, &key, &[guest], &[&["--allow-simulated"], flags].concat())?;
    broker.ask(guest, &key)?.refused(word)
}

/// The same with conditions that only a rule in a file can say.
fn conditioned_by_file(
    g: &Ground,
    name: &str,
    guest: &Guest,
    member: &str,
    value: Value,
    word: &str,
) -> Result<String> {
    let f = g.fixture()?;
    let (broker, key) = (Broker::of(&f.stack)?, format!("attack/{name}/1"));
    broker::store_for(f, &key, &[guest])?;
    broker.ask(guest, &key)?.granted()?;
    let mut rule = guest.rule();
    rule.as_object_mut()
        .context("an object")?
        .insert(member.to_owned(), value);
    broker::rule_at(f, &|args| f.stack.kbs(args), &key, &rule)?;
    broker.ask(guest, &key)?.refused(word)
}

fn old_firmware(g: &Ground) -> Result<Seen> {
    let guest = Guest::of(&g.fixture()?.stack)?;
    let TcbVersion {
        bootloader,
        tee,
        snp,
        microcode,
        ..
    } = guest.chip.spec().tcb;
    let mut refusal = String::new();
    for (name, floor) in [
        (
            "old-bootloader",
            format!(
                "bootloader={},tee={tee},snp={snp},microcode={microcode}",
                bootloader + 1
            ),
        ),
        (
            "old-snp",
            format!(
                "bootloader={bootloader},tee={tee},snp={},microcode={microcode}",
                snp + 1
            ),
        ),
        (
            "old-microcode",
            format!(
                "bootloader={bootloader},tee={tee},snp={snp},microcode={}",
                microcode + 1
            ),
        ),
    ] {
        refusal = conditioned(g, name, &guest, &["--minimum-tcb", &floor], "TCB below minimum")?;
    }
    let exact = format!("bootloader={bootloader},tee={tee},snp={snp},microcode={microcode}");
    let f = g.fixture()?;
    broker::rule(
        f,
        "attack/old-snp/1",
        &[&guest],
        &["--allow-simulated", "--minimum-tcb", &exact],
    )?;
    Broker::of(&f.stack)?.ask(&guest, "attack/old-snp/1")?.granted()?;
    Ok(Seen::new(
        "a rule without a minimum, or with exactly this TCB, releases the key",
        refusal,
    ))
}

fn other_chip(g: &Ground) -> Result<Seen> {
    let guest = Guest::of(&g.fixture()?.stack)?;
    let list = json!([hex::encode([0x11; 64])]);
    let refusal = conditioned_by_file(g, "chip-list", &guest, "chip-ids", list, "chip")?;
    Ok(Seen::new("a rule without a list releases the key", refusal))
}

fn no_alias_check(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let guest = Guest::of(&f.stack)?;
    let refusal = conditioned_by_file(g, "alias", &guest, "alias-check", true.into(), "platform")?;
    let checked = Guest::of(&f.stack)?.claiming(|claims| claims.platform_info = PLATFORM_SMT | PLATFORM_ALIAS_CHECK);
    Broker::of(&f.stack)?.ask(&checked, "attack/alias/1")?.granted()?;
    Ok(Seen::new(
        "a rule without `alias-check` releases the key; with it, to a platform that has the bit",
        refusal,
    ))
}

/// Under a development authority, since no published revocation list names a published report's certificate.
fn revoked(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let authority = Authority::generate()?;
    let chip = authority.chip(&ChipSpec::random())?;
    let folder = f.stack.path(&f.stack.fresh("crl"));
    fs::create_dir(&folder)?;
    let root = folder.join("ark.pem");
    fs::write(&root, chip.ark_pem()?)?;
    let guest = Guest {
        chip,
        ..Guest::of(&f.stack)?
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let day = Duration::from_secs(24 * 3600);
    let ask = |crl: Option<Vec<u8>>, required: bool| -> Result<Answer> {
        let mut lines = format!("snp.require-crl = {required}\n");
        if let Some(crl) = crl {
            let file = folder.join(f.stack.fresh("crl"));
            fs::write(&file, crl)?;
            lines += &format!("snp.crls = [{file:?}]\n");
        }
        let own = Own::start(f, &root, &lines)?;
        broker::store_at(f, &|args| own.admin(args), "a/b/c")?;
        broker::rule_at(f, &|args| own.admin(args), "a/b/c", &guest.rule())?;
        own.client()?.ask(&guest, "a/b/c")
    };
    ask(None, false)?.granted()?;
    ask(Some(authority.crl(false, now)?), true)?.granted()?;
    let refusals = [
        ask(Some(authority.crl(true, now)?), false)?.refused("certificate revoked")?,
        ask(None, true)?.refused("revocation list")?,
        ask(Some(authority.crl(false, now - day)?), false)?.refused("revocation list")?,
    ];
    Ok(Seen::new(
        "a broker without lists, and one whose list does not name the certificate, release the key",
        refusals.join("; "),
    ))
}
