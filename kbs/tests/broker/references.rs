//! Reference values: who may publish them, and when they end.

use std::sync::LazyLock;

use cella_attest::reference::{Document, Measured, Values};
use cella_kbs::Config;
use cella_kbs::clock::Clock;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::fixture::{Answer, Fixture, Sent};
use crate::guest::Guest;
use crate::td::{self, TdGuest};

const KEY: &[u8] = b"thirty-two bytes of a model key.";
const HOUR: u64 = 3600;

static PUBLISHER: LazyLock<Ed25519KeyPair> = LazyLock::new(pair);

fn pair() -> Ed25519KeyPair {
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap()
}

/// The configuration trusts the publisher.
fn trusting(config: &mut Config) {
    use base64::Engine;
    let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let der = [&prefix, PUBLISHER.public_key().as_ref()].concat();
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let path = config.state_dir.join("publisher.pub");
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    std::fs::write(&path, pem).unwrap();
    config.reference_signers = vec![path];
    td::known(config);
}

fn now(fixture: &Fixture) -> u64 {
    fixture.clock.unix().as_secs()
}

fn values(measurement: [u8; 48]) -> Values {
    let mut values = Values::new();
    values.add(Measured::SnpLaunchDigest, measurement);
    values
}

/// A document named `guest`, issued now, for an hour.
fn signed(fixture: &Fixture, pair: &Ed25519KeyPair, values: &Values) -> Document {
    let issued = now(fixture);
    Document::of(values)
        .sign(pair, "guest".parse().unwrap(), issued, issued + HOUR)
        .unwrap()
}

async fn import(fixture: &Fixture, document: &Document) -> Answer {
    let token = fixture.admin_token();
    fixture
        .send(Sent::post("cella-reference", document.to_json()).bearer(&token))
        .await
}

async fn listed(fixture: &Fixture) -> Value {
    let token = fixture.admin_token();
    let mut answer = fixture.send(Sent::get("cella-references").bearer(&token)).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.body["references"].take()
}

fn rule(guest: &Guest) -> Value {
    json!({
        "launch-digests": ["reference:guest"],
        "policy-digests": [hex::encode(guest.policy_digest())],
        "allow-simulated": true,
    })
}

async fn ask(fixture: &Fixture, guest: &Guest) -> Answer {
    let (cookie, _) = fixture.attested(guest).await;
    fixture.send(Sent::get("resource/a/b/c").cookie(&cookie)).await
}

fn assert_denied(answer: &Answer, detail: &str) {
    assert_eq!(answer.refusal(), (401, "PolicyDeny", detail));
}

#[tokio::test]
async fn a_rule_names_what_a_publisher_signed() {
    let fixture = Fixture::with(trusting).await;
    let guest = Guest::new();
    fixture.store("a/b/c", KEY, &rule(&guest)).await;
    assert_denied(&ask(&fixture, &guest).await, "reference values unknown");
    let document = signed(&fixture, &PUBLISHER, &values(guest.measurement));
    let imported = import(&fixture, &document).await;
    assert_eq!(imported.status, 200, "{:?}", imported.body);
    let value = json!({"of": "snp_launch_measurement", "value": hex::encode(guest.measurement)});
    assert_eq!(
        (&imported.body["added"], &imported.body["removed"]),
        (&json!([value]), &json!([]))
    );
    assert_eq!(ask(&fixture, &guest).await.status, 200);
    let other = Guest {
        measurement: [1; 48],
        ..Guest::new()
    };
    assert_denied(&ask(&fixture, &other).await, "measurement not in the rule");

    let [kept] = <[Value; 1]>::try_from(listed(&fixture).await.as_array().unwrap().clone()).unwrap();
    assert_eq!((&kept["name"], &kept["refused"]), (&json!("guest"), &Value::Null));
    assert_eq!(
        (&kept["signer"], &kept["values"]),
        (&json!(hex::encode(PUBLISHER.public_key())), &json!([value]))
    );
    let lines = fixture.audit();
    let line = lines.iter().find(|line| line["event"] == "import-reference").unwrap();
    assert_eq!(
        (&line["kid"], &line["admin"], &line["outcome"]),
        (&json!("guest"), &json!("ada"), &json!("allowed"))
    );
    let digest = ring::digest::digest(&ring::digest::SHA256, &document.to_json());
    assert_eq!(line["document"], hex::encode(digest));
}

#[tokio::test]
async fn a_rule_for_tdx_names_them_register_by_register() {
    let fixture = Fixture::with(trusting).await;
    let guest = TdGuest::new();
    let mut values = Values::new();
    values.add(Measured::Mrtd, guest.mrtd);
    values.add(Measured::Rtmr1, guest.rtmr[1]);
    values.add(Measured::Rtmr2, guest.rtmr[2]);
    assert_eq!(
        import(&fixture, &signed(&fixture, &PUBLISHER, &values)).await.status,
        200
    );
    let mut rule = guest.rule();
    for register in ["mrtd", "rtmr1", "rtmr2"] {
        rule["tdx"][register] = json!(["reference:guest"]);
    }
    fixture.store("a/b/c", KEY, &rule).await;
    let (cookie, nonce) = fixture.challenge_for("tdx").await;
    assert_eq!(fixture.attest(&cookie, &guest.attestation(&nonce)).await.status, 200);
    let released = fixture.send(Sent::get("resource/a/b/c").cookie(&cookie)).await;
    assert_eq!(released.status, 200, "{:?}", released.body);
}

#[tokio::test]
async fn t28_unsigned_wrong_signer_and_expired_are_refused_by_name() {
    let fixture = Fixture::with(trusting).await;
    let values = values([1; 48]);
    let issued = now(&fixture);
    let at = |issued, expires| {
        Document::of(&values)
            .sign(&PUBLISHER, "guest".parse().unwrap(), issued, expires)
            .unwrap()
    };
    for (document, status, name, detail) in [
        (
            Document::of(&values),
            403,
            "ReferenceSigner",
            "the reference values are not signed",
        ),
        (
            signed(&fixture, &pair(), &values),
            403,
            "ReferenceSigner",
            "the reference values are not signed by a trusted signer",
        ),
        (
            at(issued - HOUR, issued - 1),
            400,
            "InvalidRequest",
            "the reference values have expired: import newer ones",
        ),
        (
            at(issued + HOUR, issued + 2 * HOUR),
            400,
            "InvalidRequest",
            "the reference values are from the future: compare the clocks",
        ),
    ] {
        let answer = import(&fixture, &document).await;
        assert_eq!(answer.refusal(), (status, name, detail));
    }
    let token = fixture.admin_token();
    let other = Sent::post("cella-reference", b"{}".to_vec()).bearer(&token);
    assert_eq!(fixture.send(other).await.refusal().0, 400);
    assert_eq!(listed(&fixture).await, json!([]));
    // Without an admin nobody gets as far.
    let document = signed(&fixture, &PUBLISHER, &values);
    let answer = fixture.send(Sent::post("cella-reference", document.to_json())).await;
    assert_eq!(answer.refusal().1, "AdminAuth");
}

#[tokio::test]
async fn t28_old_values_end() {
    let fixture = Fixture::with(trusting).await;
    let guest = Guest::new();
    fixture.store("a/b/c", KEY, &rule(&guest)).await;
    let document = signed(&fixture, &PUBLISHER, &values(guest.measurement));
    import(&fixture, &document).await;
    assert_eq!(ask(&fixture, &guest).await.status, 200);
    fixture.clock.advance(HOUR);
    assert_denied(&ask(&fixture, &guest).await, "reference values expired");
    assert_eq!(listed(&fixture).await[0]["refused"], "reference values expired");
    // What a publisher takes out is out at once; what it had said before does not come back.
    let newer = signed(&fixture, &PUBLISHER, &values([1; 48]));
    let imported = import(&fixture, &newer).await;
    assert_eq!(imported.body["removed"][0]["value"], hex::encode(guest.measurement));
    assert_denied(&ask(&fixture, &guest).await, "measurement not in the rule");
    let again = Document::of(&values(guest.measurement))
        .sign(
            &PUBLISHER,
            "guest".parse().unwrap(),
            now(&fixture) - 60,
            now(&fixture) + HOUR,
        )
        .unwrap();
    let answer = import(&fixture, &again).await;
    assert_eq!((answer.refusal().0, answer.refusal().1), (409, "Rollback"));
    // The same again changes nothing.
    assert_eq!(import(&fixture, &newer).await.body["added"], json!([]));
}

#[tokio::test]
async fn t28_a_signer_who_is_not_trusted_any_more_counts_for_nothing() {
    let mut fixture = Fixture::with(trusting).await;
    let guest = Guest::new();
    fixture.store("a/b/c", KEY, &rule(&guest)).await;
    import(&fixture, &signed(&fixture, &PUBLISHER, &values(guest.measurement))).await;
    assert_eq!(ask(&fixture, &guest).await.status, 200);
    fixture.restart_with(|_| {}).await;
    let refused = "reference values not signed by a trusted signer";
    assert_denied(&ask(&fixture, &guest).await, refused);
    assert_eq!(listed(&fixture).await[0]["refused"], refused);
    fixture.restart_with(trusting).await;
    assert_eq!(ask(&fixture, &guest).await.status, 200);
}
