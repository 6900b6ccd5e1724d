//! Evidence in the form of Trustee and its clients: the same verdicts as for the raw report.

use cella_attest::snp::POLICY_DEBUG;
use serde_json::{Value, json};

use crate::fixture::{Answer, Fixture, Sent};
use crate::guest::{Guest, stranger};

const KEY: &[u8] = b"thirty-two bytes of a model key.";

async fn attest(fixture: &Fixture, guest: &Guest, change: impl FnOnce(&mut Value)) -> Answer {
    let (cookie, nonce) = fixture.challenge().await;
    let mut body = guest.attestation_as_trustee(&nonce);
    change(&mut body);
    fixture.attest(&cookie, &body).await
}

fn primary(body: &mut Value) -> &mut Value {
    &mut body["tee-evidence"]["primary_evidence"]
}

#[tokio::test]
async fn a_guest_that_speaks_as_trustees_client_gets_its_key() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    fixture.store("a/b/c", KEY, &guest.rule()).await;
    let (cookie, nonce) = fixture.challenge().await;
    let answer = fixture.attest(&cookie, &guest.attestation_as_trustee(&nonce)).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    // Their client takes a resource by cookie or by token, and may hang a query on the path.
    let token = answer.body["token"].as_str().unwrap();
    for request in [
        Sent::get("resource/a/b/c").cookie(&cookie),
        Sent::get("resource/a/b/c").bearer(token),
        Sent::get("resource/a/b/c?x=y").bearer(token),
    ] {
        assert_eq!(fixture.send(request).await.status, 200);
    }
}

#[tokio::test]
async fn what_is_refused_as_raw_report_is_refused_in_this_form() {
    let fixture = Fixture::new().await;
    let debug = Guest::changed(|claims| claims.policy |= POLICY_DEBUG);
    let strange = Guest {
        chip: stranger(),
        ..Guest::new()
    };
    for guest in [debug, strange] {
        let (cookie, nonce) = fixture.challenge().await;
        let raw = fixture.attest(&cookie, &guest.attestation(&nonce)).await;
        let theirs = attest(&fixture, &guest, |_| {}).await;
        assert_eq!(theirs.refusal(), raw.refusal());
        assert_eq!(theirs.status, 401);
    }
}

#[tokio::test]
async fn t6_each_member_of_the_report_is_under_its_signature() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    let (_, nonce) = fixture.challenge().await;
    let sample = guest.attestation_as_trustee(&nonce);
    let report = sample["tee-evidence"]["primary_evidence"]["attestation_report"]
        .as_object()
        .unwrap()
        .clone();
    for (name, value) in report {
        let changed = match &value {
            Value::Number(number) => json!(number.as_u64().unwrap() ^ 1),
            Value::Array(bytes) => {
                let mut bytes = bytes.clone();
                bytes[0] = json!(bytes[0].as_u64().unwrap() ^ 1);
                json!(bytes)
            }
            Value::Null => json!(1),
            Value::Object(members) => {
                let mut members = members.clone();
                for member in ["snp", "build", "r"] {
                    match members.get_mut(member) {
                        Some(Value::Array(bytes)) => bytes[0] = json!(bytes[0].as_u64().unwrap() ^ 1),
                        Some(number) => *number = json!(number.as_u64().unwrap() ^ 1),
                        None => {}
                    }
                }
                json!(members)
            }
            other => panic!("{name}: {other}"),
        };
        assert_ne!(changed, value, "{name}");
        let answer = attest(&fixture, &guest, |body| {
            primary(body)["attestation_report"][&name] = changed;
        })
        .await;
        let (status, kind, detail) = answer.refusal();
        assert_eq!((status, kind), (401, "AttestationError"), "{name}: {detail}");
    }
}

#[tokio::test]
async fn other_forms_are_refused_by_name() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    type Change = fn(&mut Value);
    let changes: [Change; 4] = [
        |evidence| evidence["extra"] = json!(1),
        |evidence| evidence["report"] = json!("AAAA"),
        |evidence| evidence["attestation_report"] = json!("AAAA"),
        |evidence| evidence["attestation_report"]["report_data"] = json!([1, 2, 3]),
    ];
    for change in changes {
        let answer = attest(&fixture, &guest, |body| change(primary(body))).await;
        let detail = "primary evidence is not a report with its chain";
        assert_eq!(answer.refusal(), (401, "AttestationError", detail));
    }
    let none = attest(&fixture, &guest, |body| primary(body)["cert_chain"] = Value::Null).await;
    assert_eq!(none.refusal().0, 401);
}
