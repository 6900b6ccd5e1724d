//! `/auth` and `/attest`: what counts as proof, and that it counts once.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cella_attest::snp::{POLICY_DEBUG, POLICY_MIGRATE_MA};
use cella_attest::trustee;
use cella_kbs_client::{KbsClient, KbsError, TeeKey};
use serde_json::{Value, json};

use crate::fixture::{Answer, Fixture, Sent};
use crate::guest::{Guest, flip_report_byte, stranger};

const KEY: &[u8] = b"thirty-two bytes of a model key.";

/// Attests with a body made by `body` from a guest's good one.
async fn attest_with(fixture: &Fixture, guest: &Guest, change: impl FnOnce(&mut Value)) -> Answer {
    let (cookie, nonce) = fixture.challenge().await;
    let mut body = guest.attestation(&nonce);
    change(&mut body);
    fixture.attest(&cookie, &body).await
}

fn assert_refused(answer: &Answer, detail: &str) {
    assert_eq!(answer.refusal(), (401, "AttestationError", detail));
    assert_eq!(answer.cookie, None);
}

#[tokio::test]
async fn one_attestation_many_keys() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    fixture.store("demo/model-kek/1", KEY, &guest.rule()).await;
    fixture.store("demo/image-kek/1", b"another", &guest.rule()).await;

    let mut client = KbsClient::new(fixture.client(), "snp");
    let evidence = async |report_data| trustee::to_json(&guest.evidence(report_data));
    let mut session = client.attest(&guest.initdata, evidence).await.unwrap();
    assert_eq!(&**session.resource("demo/model-kek/1").await.unwrap(), KEY);
    assert_eq!(&**session.resource("demo/image-kek/1").await.unwrap(), b"another");
    assert_eq!(&**session.resource("demo/model-kek/1").await.unwrap(), KEY);

    let lines = fixture.audit();
    let attest: Vec<_> = lines.iter().filter(|line| line["event"] == "attest").collect();
    assert_eq!(attest.len(), 1);
    assert_eq!(
        (&attest[0]["outcome"], &attest[0]["simulated"]),
        (&json!("allowed"), &json!(true))
    );
    assert_eq!(attest[0]["measurement"], hex::encode(guest.measurement));
    assert_eq!(attest[0]["initdata"], hex::encode(guest.policy_digest()));
    let released: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "release")
        .map(|line| &line["kid"])
        .collect();
    assert_eq!(released, ["demo/model-kek/1", "demo/image-kek/1", "demo/model-kek/1"]);
    assert!(
        lines
            .iter()
            .filter(|line| line["event"] == "release")
            .all(|line| line["session"] == attest[0]["session"])
    );
}

#[tokio::test]
async fn the_challenge_is_as_the_protocol_has_it() {
    let fixture = Fixture::new().await;
    let (cookie, nonce) = fixture.challenge().await;
    assert_eq!(STANDARD.decode(&nonce).unwrap().len(), 32);
    assert!(
        cookie.len() == 32 && cookie.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
        "{cookie}"
    );
    let (other_cookie, other_nonce) = fixture.challenge().await;
    assert!(cookie != other_cookie && nonce != other_nonce);
}

#[tokio::test]
async fn requests_of_other_protocols_are_refused() {
    let fixture = Fixture::new().await;
    let with = |member: &str, value: Value| {
        let mut request = json!({"version": "0.4.0", "tee": "snp", "extra-params": ""});
        request[member] = value;
        request.to_string().into_bytes()
    };
    for (body, detail) in [
        (with("version", json!("0.1.1")), "request: version is not 0.4.0"),
        (with("version", json!("0.4.1")), "request: version is not 0.4.0"),
        (with("tee", json!("sample")), "request: tee is neither snp nor tdx"),
        (
            with("tee", json!("tdx")),
            "request: tee is tdx, and this broker has no collateral to verify quotes with",
        ),
        (with("version", json!(4)), "request: not valid at line 1, column 42"),
    ] {
        assert_refused(&fixture.send(Sent::post("auth", body)).await, detail);
    }
}

#[tokio::test]
async fn the_token_is_marked_simulated() {
    let fixture = Fixture::new().await;
    let (_, token) = fixture.attested(&Guest::new()).await;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["simulated"], true);
    assert_eq!(claims["submods"]["cpu0"]["ear.status"], "contraindicated");
    let lifetime = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert!((200..=300).contains(&lifetime), "{lifetime}");
}

#[tokio::test]
async fn t17_evidence_is_not_replayed_in_its_own_session() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    let (cookie, nonce) = fixture.challenge().await;
    let body = guest.attestation(&nonce);
    assert_eq!(fixture.attest(&cookie, &body).await.status, 200);

    let spent = "the nonce was already used: start again with /auth";
    assert_refused(&fixture.attest(&cookie, &body).await, spent);
    // Nor is there a token for another key, with evidence for it or without.
    let other = Guest::new();
    assert_refused(&fixture.attest(&cookie, &other.attestation(&nonce)).await, spent);
    let mut swapped = body.clone();
    swapped["runtime-data"]["tee-pubkey"] = serde_json::to_value(other.key.public()).unwrap();
    assert_refused(&fixture.attest(&cookie, &swapped).await, spent);
    // What the first one proved still stands.
    fixture.store("a/b/c", KEY, &guest.rule()).await;
    assert_eq!(
        fixture.send(Sent::get("resource/a/b/c").cookie(&cookie)).await.status,
        200
    );
}

#[tokio::test]
async fn t17_evidence_is_not_replayed_in_another_session() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    let (cookie, nonce) = fixture.challenge().await;
    let body = guest.attestation(&nonce);
    assert_eq!(fixture.attest(&cookie, &body).await.status, 200);

    let (other, _) = fixture.challenge().await;
    assert_refused(&fixture.attest(&other, &body).await, "nonce mismatch");
    // With the nonce of the other session written over the old one, the report does not fit.
    let (other, other_nonce) = fixture.challenge().await;
    let mut renamed = body.clone();
    renamed["runtime-data"]["nonce"] = other_nonce.into();
    assert_refused(&fixture.attest(&other, &renamed).await, "report data mismatch");
}

#[tokio::test]
async fn t17_a_failed_try_spends_the_nonce() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    let spent = "the nonce was already used: start again with /auth";

    let (cookie, nonce) = fixture.challenge().await;
    let good = guest.attestation(&nonce);
    let mut bad = good.clone();
    flip_report_byte(&mut bad, 0x90);
    assert_refused(&fixture.attest(&cookie, &bad).await, "report signature refused");
    assert_refused(&fixture.attest(&cookie, &good).await, spent);

    let (cookie, nonce) = fixture.challenge().await;
    let garbage = fixture.send(Sent::post("attest", b"{".to_vec()).cookie(&cookie)).await;
    assert_refused(&garbage, "the attestation is not valid at line 1, column 1");
    assert_refused(&fixture.attest(&cookie, &guest.attestation(&nonce)).await, spent);
    assert_eq!(
        fixture
            .send(Sent::get("resource/a/b/c").cookie(&cookie))
            .await
            .refusal()
            .1,
        "TokenNotFound"
    );
}

#[tokio::test]
async fn t17_nonces_expire() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    let (cookie, nonce) = fixture.challenge().await;
    let body = guest.attestation(&nonce);
    fixture.clock.advance(300);
    assert_refused(
        &fixture.attest(&cookie, &body).await,
        "the session has expired: start again with /auth",
    );

    let (cookie, nonce) = fixture.challenge().await;
    fixture.clock.advance(290);
    assert_eq!(fixture.attest(&cookie, &guest.attestation(&nonce)).await.status, 200);
    // Attesting late does not make the session longer.
    fixture.clock.advance(10);
    let late = fixture.send(Sent::get("resource/a/b/c").cookie(&cookie)).await;
    assert_eq!(
        late.refusal(),
        (401, "TokenNotFound", "the session has expired: start again with /auth")
    );
}

#[tokio::test]
async fn sessions_cannot_be_made_up() {
    let fixture = Fixture::new().await;
    let body = Guest::new().attestation("bm9uY2U=");
    let unknown = "no such session: start again with /auth";
    for cookie in ["", "x", "00112233445566778899aabbccddeeff", "../../etc/passwd"] {
        assert_refused(&fixture.attest(cookie, &body).await, unknown);
    }
    let without = fixture.send(Sent::post("attest", body.to_string().into_bytes())).await;
    assert_refused(&without, unknown);
}

#[tokio::test]
async fn t22_a_root_that_is_not_known_proves_nothing() {
    let fixture = Fixture::new().await;
    let guest = Guest {
        chip: stranger(),
        ..Guest::new()
    };
    assert_refused(&attest_with(&fixture, &guest, |_| {}).await, "root not trusted");
    // A chain that mixes both.
    let genuine = Guest::new();
    let mixed = attest_with(&fixture, &genuine, |body| {
        let nonce = body["runtime-data"]["nonce"].as_str().unwrap().to_owned();
        let foreign = Guest {
            chip: stranger(),
            ..Guest::new()
        }
        .attestation(&nonce);
        let ark = foreign["tee-evidence"]["primary_evidence"]["cert_chain"][2].clone();
        body["tee-evidence"]["primary_evidence"]["cert_chain"][2] = ark;
    });
    assert_refused(&mixed.await, "root not trusted");
}

#[tokio::test]
async fn t22_simulated_evidence_needs_a_configuration_that_names_the_root() {
    let fixture = Fixture::with(|config| config.simulated_root = None).await;
    let guest = Guest::new();
    fixture.store("a/b/c", KEY, &guest.rule()).await;
    assert_refused(&attest_with(&fixture, &guest, |_| {}).await, "root not trusted");
    assert!(!fixture.log.text().contains("simulated platform is accepted"));

    // The client tells it from a broker that is down, and does not try again.
    let mut client = KbsClient::new(fixture.client(), "snp");
    let evidence = async |report_data| serde_json::to_value(guest.evidence(report_data));
    match client.attest(&guest.initdata, evidence).await.map(|_| ()) {
        Err(KbsError::Refused { kind, detail, .. }) => {
            assert_eq!(kind, "AttestationError");
            assert!(detail.starts_with("root not trusted (ref "), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn t22_guests_that_the_host_can_open_are_refused() {
    let fixture = Fixture::new().await;
    type Change = fn(&mut cella_attest::sim::Claims);
    let cases: [(Change, &str); 5] = [
        (|claims| claims.policy |= POLICY_DEBUG, "guest policy allows debugging"),
        (
            |claims| claims.policy |= POLICY_MIGRATE_MA,
            "guest policy allows migration",
        ),
        (|claims| claims.vmpl = 1, "privilege level refused"),
        (|claims| claims.version = 2, "report version too low"),
        // T20: a Milan under Genoa's root.
        (|claims| claims.cpuid.model = 1, "processor unknown"),
    ];
    for (change, detail) in cases {
        assert_refused(&attest_with(&fixture, &Guest::changed(change), |_| {}).await, detail);
    }
}

#[tokio::test]
async fn evidence_is_bound_to_key_nonce_and_initdata() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    let other_key = serde_json::to_value(TeeKey::generate().unwrap().public()).unwrap();
    let swapped = attest_with(&fixture, &guest, |body| body["runtime-data"]["tee-pubkey"] = other_key).await;
    assert_refused(&swapped, "report data mismatch");
    let initdata = attest_with(&fixture, &guest, |body| {
        body["init-data"]["body"] = json!("algorithm = \"sha256\"")
    })
    .await;
    assert_refused(&initdata, "initdata digest mismatch");
    let unbound = Guest::changed(|claims| claims.host_data = [0; 32]);
    assert_refused(
        &attest_with(&fixture, &unbound, |_| {}).await,
        "initdata digest mismatch",
    );
    let flipped = attest_with(&fixture, &guest, |body| flip_report_byte(body, 0xc0)).await;
    assert_refused(&flipped, "report signature refused");
}

#[tokio::test]
async fn the_tcb_is_the_one_that_the_chip_was_certified_for() {
    let fixture = Fixture::new().await;
    let newer = Guest::changed(|claims| {
        let mut tcb = crate::guest::platform().spec().tcb;
        tcb.snp += 1;
        claims.tcb = Some(tcb);
    });
    let answer = attest_with(&fixture, &newer, |_| {}).await;
    assert_refused(&answer, "endorsement key does not vouch for the report");
    let elsewhere = Guest::changed(|claims| claims.chip_id = Some([1; 64]));
    let answer = attest_with(&fixture, &elsewhere, |_| {}).await;
    assert_refused(&answer, "endorsement key does not vouch for the report");
}

#[tokio::test]
async fn t10_certificates_must_be_valid_by_the_brokers_clock() {
    let fixture = Fixture::new().await;
    fixture.clock.advance(30 * 365 * 24 * 3600);
    let answer = attest_with(&fixture, &Guest::new(), |_| {}).await;
    assert_refused(&answer, "certificate not valid now");
}

#[tokio::test]
async fn bodies_must_be_complete() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    let initdata_missing = "initdata missing: this broker demands it";
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 7] = [
        (|body| body["init-data"] = Value::Null, initdata_missing),
        (
            |body| drop(body.as_object_mut().unwrap().remove("init-data")),
            initdata_missing,
        ),
        (
            |body| body["init-data"]["format"] = json!("json"),
            "initdata format is not toml",
        ),
        (
            |body| body["init-data"]["body"] = json!("x".repeat((1 << 20) + 1)),
            "initdata is larger than 1048576 bytes",
        ),
        (
            |body| body["tee-evidence"]["additional_evidence"] = json!("{\"sampledevice\":{}}"),
            "additional evidence is not supported",
        ),
        (
            |body| body["tee-evidence"]["primary_evidence"] = json!({"svn": "1"}),
            "primary evidence is not a report with its chain",
        ),
        (
            |body| body["tee-evidence"]["primary_evidence"]["report"] = json!("AAAA"),
            "primary evidence is not a report with its chain",
        ),
    ];
    for (change, detail) in cases {
        assert_refused(&attest_with(&fixture, &guest, change).await, detail);
    }
    for change in [
        (|body: &mut Value| body["runtime-data"]["tee-pubkey"]["kid"] = json!("1")) as Change,
        |body| body["runtime-data"]["tee-pubkey"]["kty"] = json!("RSA"),
        |body| body["runtime-data"]["tee-pubkey"]["x"] = body["runtime-data"]["tee-pubkey"]["y"].clone(),
        |body| body["runtime-data"] = json!({}),
        |body| *body = json!([]),
    ] {
        let answer = attest_with(&fixture, &guest, change).await;
        let (status, name, detail) = answer.refusal();
        assert_eq!((status, name), (401, "AttestationError"));
        assert!(
            detail.starts_with("the attestation is not valid at line 1, column "),
            "{detail}"
        );
    }
}
