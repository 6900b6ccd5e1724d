//! T7: a man in the middle of an attested channel. The one that exists is between guest and broker; clients have none yet.
use std::fs;

use anyhow::{Result, ensure};
use base64::Engine;
use cella_kbs_client::{TeeKey, jwe};
use cella_tests::{
    Fixture, Outcome,
    fixture::{HELLO, refused},
    workload::Written,
};

use crate::{
    attack::{Attack, Ground, On, Open, Seen, Threat, chain, said},
    broker::{self, Broker, Guest},
    relay::{Identity, Relay},
};

pub(crate) const THREAT: Threat = Threat {
    number: 7,
    title: "Relay and diversion of attested TLS",
    attacks: &[
        Attack {
            name: "a_relay_with_a_certificate_of_its_own",
            tried: "a relay before the broker that ends TLS with a certificate for its name, by another authority",
            on: On::Machine,
            run: own_certificate,
        },
        Attack {
            name: "a_relay_that_writes_its_own_key",
            tried: "a relay with the broker's stolen certificate exchanges the guest's key for its own in the attestation",
            on: On::Machine,
            run: own_key,
        },
        Attack {
            name: "an_answer_diverted",
            tried: "an attacker who relayed a guest's attestation through a session of his own asks for the key in it",
            on: On::Broker,
            run: diverted,
        },
    ],
    open: &[Open {
        name: "a_client_that_is_shown_another_machine",
        part: "a client's TLS ended by a proxy that shows genuine evidence of another machine",
        because: "clients have no attested endpoint yet: it comes with the ingress, and with it the binding to the TLS exporter",
    }],
};

/// A pod whose policy has this broker and this authority.
fn pod(f: &Fixture, url: &str, authority: Option<&str>) -> Result<(Written, Outcome)> {
    let line = format!("echo {HELLO}");
    let mut workload = f.shell(&line);
    workload.kbs = url.to_owned();
    if let Some(path) = authority {
        path.clone_into(&mut workload.kbs_ca);
    }
    let written = f.allowed(&workload)?;
    let out = f.start(&written, &line).go(&f.stack)?;
    Ok((written, out))
}

/// Whether a key stands in what was heard, in any of the forms that it could.
fn heard_key(heard: &[u8], key: &[u8]) -> bool {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    [
        key.to_vec(),
        STANDARD.encode(key).into_bytes(),
        URL_SAFE_NO_PAD.encode(key).into_bytes(),
        hex::encode(key).into_bytes(),
    ]
    .iter()
    .any(|form| memchr::memmem::find(heard, form).is_some())
}

fn own_certificate(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (identity, authority) = Identity::own(&f.stack)?;
    let relay = Relay::start(&f.stack, &identity, Box::new(|_| ()))?;
    let mark = f.stack.mark()?;
    let (_, out) = pod(f, &relay.guest_url(), None)?;
    refused(&out, &[&relay.guest_url()])?;
    ensure!(relay.heard().is_empty(), "the guest spoke to it");
    f.stack.no_key_released(mark)?;
    // A policy that pins the attacker's authority: the relay hears all of it, and still no key.
    let (_, ran) = pod(f, &relay.guest_url(), Some(&authority.to_string_lossy()))?;
    ensure!(ran.code == 0 && ran.stdout.contains(HELLO), "{ran:?}");
    let heard = relay.heard();
    ensure!(
        memchr::memmem::find(&heard, b"tee-pubkey").is_some(),
        "the relay heard nothing"
    );
    ensure!(
        !heard_key(&heard, &fs::read(f.stack.path("image.kek"))?),
        "the relay heard the key"
    );
    Ok(Seen::new(
        format!(
            "under a policy that pins the relay's authority it read {} bytes of the exchange; the key in it is encrypted for the guest",
            heard.len()
        ),
        said(&out),
    ))
}

fn own_key(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let identity = Identity::stolen(&f.stack);
    let mine = serde_json::to_value(TeeKey::generate()?.public())?;
    let exchange = move |request: &mut Vec<u8>| {
        for coordinate in ["x", "y"] {
            let value = mine
                .get(coordinate)
                .and_then(|value| value.as_str())
                .unwrap_or_default();
            let name = format!("\"{coordinate}\":\"");
            if let Some(at) = memchr::memmem::find(request, name.as_bytes()).map(|at| at + name.len())
                && let Some(place) = request.get_mut(at..at + value.len())
            {
                place.copy_from_slice(value.as_bytes());
            }
        }
    };
    let silent = Relay::start(&f.stack, &identity, Box::new(|_| ()))?;
    let (_, ran) = pod(f, &silent.guest_url(), None)?;
    ensure!(ran.code == 0 && ran.stdout.contains(HELLO), "{ran:?}");
    let relay = Relay::start(&f.stack, &identity, Box::new(exchange))?;
    let mark = f.stack.mark()?;
    let (_, out) = pod(f, &relay.guest_url(), None)?;
    refused(&out, &["report data mismatch"])?;
    f.stack.no_key_released(mark)?;
    Ok(Seen::new(
        "with the stolen certificate and no change the relay passes unseen, and the pod runs",
        said(&out),
    ))
}

fn diverted(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (broker, guest) = (Broker::of(&f.stack)?, Guest::of(&f.stack)?);
    broker::store_for(f, "attack/diverted/1", &[&guest])?;
    // The attacker's session; the nonce goes to the guest, whose evidence comes back.
    let (cookie, nonce) = broker.challenge()?;
    broker.attest(&cookie, &guest.attestation(&nonce)?)?.granted()?;
    let answer = broker.resource(&cookie, "attack/diverted/1")?;
    answer.granted()?;
    let sealed: jwe::Jwe = serde_json::from_value(answer.body)?;
    let opened = jwe::decrypt(&guest.key, &sealed)?;
    ensure!(opened.as_slice() == [0x4b; 32], "another key");
    match jwe::decrypt(&TeeKey::generate()?, &sealed) {
        Ok(_) => anyhow::bail!("the attacker opened it"),
        Err(error) => Ok(Seen::new(
            "the session takes the relayed evidence, and answers; with the guest's own key the answer opens",
            chain(&error),
        )),
    }
}
