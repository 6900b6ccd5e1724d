//! T17: recorded evidence presented again.
use anyhow::{Context, Result};
use cella_attest::{Anchors, Expected, VerifyOptions, snp::Report, verify_with};
use cella_tests::Fixture;
use serde_json::Value;

use crate::{
    attack::{Attack, Ground, On, Seen, Threat},
    broker::{self, Broker, Guest},
};

pub(crate) const THREAT: Threat = Threat {
    number: 17,
    title: "Replay of evidence at the broker",
    attacks: &[
        Attack {
            name: "in_its_own_session",
            tried: "a recorded /attest, sent again in its own session, as it is and with the host's key in it",
            on: On::Broker,
            run: own_session,
        },
        Attack {
            name: "in_another_session",
            tried: "a recorded /attest in another session, as it is and with that session's nonce written into it",
            on: On::Broker,
            run: other_session,
        },
        Attack {
            name: "after_a_failed_try",
            tried: "a first try with a flipped byte, then the good one, so that evidence could be tried out against a nonce",
            on: On::Broker,
            run: after_failure,
        },
        Attack {
            name: "a_session_that_did_not_attest",
            tried: "a resource asked for in a session that was begun and never attested, and with another session's cookie made up",
            on: On::Broker,
            run: unattested,
        },
    ],
    open: &[],
};

const SPENT: &str = "the nonce was already used: start again with /auth";

/// That the recorded evidence verifies for a verifier that does not ask for its own nonce: it is genuine for ever.
fn genuine_without_nonce(f: &Fixture, guest: &Guest, nonce: &str) -> Result<&'static str> {
    let evidence = guest.evidence(cella_kbs_client::wire::report_data(nonce, &guest.key.public(), ""))?;
    let own = Report::parse(&evidence.report)?.report_data;
    let pem = std::fs::read_to_string(std::path::Path::new(f.stack.var("SIM_STATE")).join("ark.pem"))?;
    let anchors = Anchors::none().with_simulated_pem(&pem)?;
    let expected = Expected {
        report_data: &own,
        host_data: None,
        vmpl: 0,
    };
    verify_with(&evidence, &anchors, &expected, &VerifyOptions::default())?;
    Ok("the verifier without a nonce of its own accepts the recorded evidence as often as it comes")
}

fn set(body: &mut Value, pointer: &str, value: Value) -> Result<()> {
    *body.pointer_mut(pointer).with_context(|| pointer.to_owned())? = value;
    Ok(())
}

fn own_session(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (broker, guest, host) = (Broker::of(&f.stack)?, Guest::of(&f.stack)?, Guest::of(&f.stack)?);
    broker::store_for(f, "attack/replay/1", &[&guest])?;
    let (cookie, nonce) = broker.challenge()?;
    let body = guest.attestation(&nonce)?;
    broker.attest(&cookie, &body)?.granted()?;
    let refusal = broker.attest(&cookie, &body)?.refused(SPENT)?;
    broker.attest(&cookie, &host.attestation(&nonce)?)?.refused(SPENT)?;
    let mut swapped = body;
    set(
        &mut swapped,
        "/runtime-data/tee-pubkey",
        serde_json::to_value(host.key.public())?,
    )?;
    broker.attest(&cookie, &swapped)?.refused(SPENT)?;
    // What the first one proved still stands: a replay does not take a guest's session from it.
    broker.resource(&cookie, "attack/replay/1")?.granted()?;
    Ok(Seen::new(genuine_without_nonce(f, &guest, &nonce)?, refusal))
}

fn other_session(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (broker, guest) = (Broker::of(&f.stack)?, Guest::of(&f.stack)?);
    let (cookie, nonce) = broker.challenge()?;
    let body = guest.attestation(&nonce)?;
    broker.attest(&cookie, &body)?.granted()?;
    let (other, _) = broker.challenge()?;
    let plain = broker.attest(&other, &body)?.refused("nonce mismatch")?;
    let (other, other_nonce) = broker.challenge()?;
    let mut renamed = body;
    set(&mut renamed, "/runtime-data/nonce", other_nonce.into())?;
    let written = broker.attest(&other, &renamed)?.refused("report data mismatch")?;
    Ok(Seen::new(
        genuine_without_nonce(f, &guest, &nonce)?,
        format!("{plain}; {written}"),
    ))
}

fn after_failure(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (broker, guest) = (Broker::of(&f.stack)?, Guest::of(&f.stack)?);
    let (cookie, nonce) = broker.challenge()?;
    let good = guest.attestation(&nonce)?;
    let mut bad = good.clone();
    set(
        &mut bad,
        "/runtime-data/tee-pubkey",
        serde_json::to_value(Guest::of(&f.stack)?.key.public())?,
    )?;
    let first = broker.attest(&cookie, &bad)?.refused("report data mismatch")?;
    let second = broker.attest(&cookie, &good)?.refused(SPENT)?;
    // The same evidence as the first try with this nonce would have been taken.
    let (cookie, nonce) = broker.challenge()?;
    broker.attest(&cookie, &guest.attestation(&nonce)?)?.granted()?;
    Ok(Seen::new(
        "without the failed try before it the good one is taken",
        format!("{first}; {second}"),
    ))
}

fn unattested(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (broker, guest) = (Broker::of(&f.stack)?, Guest::of(&f.stack)?);
    broker::store_for(f, "attack/unattested/1", &[&guest])?;
    let (cookie, nonce) = broker.challenge()?;
    let refusal = broker.resource(&cookie, "attack/unattested/1")?.refused("")?;
    let made_up = broker.resource(&"0".repeat(32), "attack/unattested/1")?.refused("")?;
    broker.attest(&cookie, &guest.attestation(&nonce)?)?.granted()?;
    broker.resource(&cookie, "attack/unattested/1")?.granted()?;
    Ok(Seen::new(
        "the same session, once it has attested, gets the resource",
        format!("{refusal}; {made_up}"),
    ))
}
