//! The disk of the database fills up under two brokers: what was acknowledged stays, nothing is half there, and no key goes without its line.

use serde_json::json;

use crate::faults::attest;
use crate::fixture::{Sent, send};
use crate::guest::Guest;
use crate::postgres::Postgres;
use crate::program::admin_token;
use crate::replicas::{AWAY, KEY, Replicas, ask, challenge, hand_in, of, store};

const MIB: u32 = 96;
const BIG: usize = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_database_loses_nothing_and_is_said() {
    let replicas = Replicas::over(Postgres::on_small_disk(MIB), |postgres| postgres.connection(), "");
    let [(_a, one), (_b, two)] = replicas.serve().await;
    let (guest, token) = (Guest::new(), admin_token(&replicas.one));
    store(&one, &token, "a/b/1", &guest).await;
    let before = attest(&one, &guest).await;
    assert_eq!(ask(&two, &before, "a/b/1").await.status, 200);
    let (cookie, nonce) = challenge(&one).await;
    let body = guest.attestation(&nonce);

    replicas.postgres.lock().unwrap().fill();
    let mut acknowledged = Vec::new();
    let refused = loop {
        let path = format!("full/key/{}", acknowledged.len());
        let big = vec![7; BIG];
        let answer = send(&one, Sent::post(&format!("resource/{path}"), big).bearer(&token)).await;
        if answer.status != 200 {
            assert_eq!(answer.refusal(), AWAY);
            break path;
        }
        acknowledged.push(path);
    };
    // A nonce whose use cannot be written down gives no token; the evidence stays good for later. A key either comes with its line or does not come.
    let mut tokens = 0;
    for client in [&one, &two] {
        let answer = hand_in(client, &cookie, &body).await;
        match answer.status.as_u16() {
            200 => tokens += 1,
            401 if tokens == 1 => {}
            _ => assert_eq!(answer.refusal(), AWAY),
        }
    }
    let mut released = 1;
    for client in [&one, &two] {
        let answer = ask(client, &before, "a/b/1").await;
        match answer.status.as_u16() {
            200 => released += 1,
            _ => assert_eq!(answer.refusal(), AWAY),
        }
    }

    // Room again, and a server that may have given up in the meantime.
    let postgres = replicas.postgres.clone();
    let mend = move || {
        let mut postgres = postgres.lock().unwrap();
        postgres.free();
        postgres.stop("INT");
        postgres.resume();
    };
    tokio::task::spawn_blocking(mend).await.unwrap();
    for client in [&one, &two] {
        let answer = hand_in(client, &cookie, &body).await;
        match answer.status.as_u16() {
            200 => tokens += 1,
            _ => assert_eq!(answer.refusal().0, 401),
        }
        assert_eq!(ask(client, &cookie, "a/b/1").await.status, 200);
        assert_eq!(ask(client, &before, "a/b/1").await.status, 200);
    }
    assert_eq!(tokens, 1, "one nonce, one token");
    let listed = send(&two, Sent::get("cella-resources").bearer(&token)).await.body;
    let listed = listed["resources"].as_array().unwrap();
    let bytes = |path: &str| {
        listed
            .iter()
            .find(|line| line["path"] == path)
            .map(|line| line["bytes"].clone())
    };
    assert_eq!(bytes("a/b/1"), Some(json!(KEY.len())));
    for path in &acknowledged {
        assert_eq!(bytes(path), Some(json!(BIG)), "{path}");
    }
    let bytes = bytes(&refused);
    assert!(bytes.is_none() || bytes == Some(json!(BIG)), "whole or not there");
    let again = Sent::post(&format!("resource/{refused}"), vec![7; BIG]).bearer(&token);
    assert_eq!(send(&two, again).await.status, 200);
    assert_eq!(of(&replicas.audit(), "release", "allowed"), released + 4);
}
