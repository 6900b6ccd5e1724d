//! Resources: who gets them, who does not, and what is said.

use cella_kbs_client::jwe::{self, Jwe};
use http::Method;
use serde_json::{Value, json};

use crate::fixture::{Answer, Fixture, Sent};
use crate::guest::{Guest, platform};

const KEY: &[u8] = b"thirty-two bytes of a model key.";

/// What a freshly attested guest gets for the resource `a/b/c`, stored with this rule.
async fn ask(fixture: &Fixture, guest: &Guest, rule: &Value) -> Answer {
    fixture.store("a/b/c", KEY, rule).await;
    let (cookie, _) = fixture.attested(guest).await;
    fixture.send(Sent::get("resource/a/b/c").cookie(&cookie)).await
}

fn assert_denied(answer: &Answer, detail: &str) {
    assert_eq!(answer.refusal(), (401, "PolicyDeny", detail));
}

fn open(guest: &Guest, answer: &Answer) -> Vec<u8> {
    let message: Jwe = serde_json::from_value(answer.body.clone()).unwrap();
    jwe::decrypt(&guest.key, &message).unwrap().to_vec()
}

#[tokio::test]
async fn a_named_guest_gets_the_key_and_only_it_can_open_it() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    let answer = ask(&fixture, &guest, &guest.rule()).await;
    assert_eq!(open(&guest, &answer), KEY);
    let message: Jwe = serde_json::from_value(answer.body.clone()).unwrap();
    assert!(jwe::decrypt(&Guest::new().key, &message).is_err());
}

#[tokio::test]
async fn each_condition_of_a_rule_denies() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    let with = |member: &str, value: Value| {
        let mut rule = guest.rule();
        rule[member] = value;
        rule
    };
    let tcb = platform().spec().tcb;
    let minimum = |snp| json!({"bootloader": tcb.bootloader, "tee": tcb.tee, "snp": snp, "microcode": tcb.microcode});
    for (rule, detail) in [
        (
            with("allow-simulated", json!(false)),
            "simulated evidence is not allowed by the rule",
        ),
        (
            with("launch-digests", json!(["11".repeat(48)])),
            "measurement not in the rule",
        ),
        (with("launch-digests", json!([])), "measurement not in the rule"),
        (
            with("policy-digests", json!(["11".repeat(32)])),
            "initdata digest not in the rule",
        ),
        (with("minimum-tcb", minimum(tcb.snp + 1)), "TCB below minimum: snp"),
    ] {
        assert_denied(&ask(&fixture, &guest, &rule).await, detail);
        let line = fixture.audit().pop().unwrap();
        assert_eq!(
            (&line["event"], &line["outcome"]),
            (&json!("release"), &json!("denied"))
        );
        assert_eq!((&line["kid"], &line["reason"]), (&json!("a/b/c"), &json!(detail)));
    }
    assert_eq!(
        ask(&fixture, &guest, &with("minimum-tcb", minimum(tcb.snp)))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn another_image_or_policy_attests_and_gets_nothing() {
    let fixture = Fixture::new().await;
    let rule = Guest::new().rule();
    let image = Guest {
        measurement: [1; 48],
        ..Guest::new()
    };
    assert_denied(&ask(&fixture, &image, &rule).await, "measurement not in the rule");
    let policy = Guest {
        initdata: "algorithm = \"sha256\"\n".to_owned(),
        ..Guest::new()
    };
    assert_denied(&ask(&fixture, &policy, &rule).await, "initdata digest not in the rule");
}

#[tokio::test]
async fn no_rule_no_release() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    let token = fixture.admin_token();
    let store = Sent::post("resource/a/b/c", KEY.to_vec()).bearer(&token);
    assert_eq!(fixture.send(store).await.status, 200);
    let (cookie, _) = fixture.attested(&guest).await;
    let get = || Sent::get("resource/a/b/c").cookie(&cookie);
    assert_denied(&fixture.send(get()).await, "the resource has no rule");
    // Rules count at the moment of asking.
    fixture.store_rule("a/b/c", &guest.rule()).await;
    assert_eq!(fixture.send(get()).await.status, 200);
    let delete = Sent::new(Method::DELETE, "cella-rule/a/b/c", Vec::new()).bearer(&token);
    assert_eq!(fixture.send(delete).await.status, 200);
    assert_denied(&fixture.send(get()).await, "the resource has no rule");
}

#[tokio::test]
async fn what_is_not_there_is_said_to_the_attested_only() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    fixture.store("a/b/c", KEY, &guest.rule()).await;
    let (cookie, _) = fixture.attested(&guest).await;
    let missing = fixture.send(Sent::get("resource/a/b/missing").cookie(&cookie)).await;
    assert_eq!(missing.refusal(), (404, "InvalidRequestPath", "no such resource"));
    // A rule without its resource.
    fixture.store_rule("a/b/d", &guest.rule()).await;
    let missing = fixture.send(Sent::get("resource/a/b/d").cookie(&cookie)).await;
    assert_eq!(missing.refusal(), (404, "InvalidRequestPath", "no such resource"));

    let (unattested, _) = fixture.challenge().await;
    for path in ["resource/a/b/c", "resource/a/b/missing", "resource/a/b/d"] {
        let none = fixture.send(Sent::get(path)).await;
        assert_eq!(none.refusal(), (401, "TokenNotFound", "no session cookie and no token"));
        let bad = fixture
            .send(Sent::get(path).cookie("00112233445566778899aabbccddeeff"))
            .await;
        assert_eq!(
            bad.refusal(),
            (401, "TokenNotFound", "no such session: start again with /auth")
        );
        let early = fixture.send(Sent::get(path).cookie(&unattested)).await;
        assert_eq!(early.refusal(), (401, "TokenNotFound", "the session is not attested"));
        let admin = fixture.send(Sent::get(path).bearer(&fixture.admin_token())).await;
        assert_eq!(admin.refusal().1, "TokenVerifierError");
    }
}

#[tokio::test]
async fn the_token_serves_in_place_of_the_cookie() {
    let mut fixture = Fixture::new().await;
    let guest = Guest::new();
    fixture.store("a/b/c", KEY, &guest.rule()).await;
    let (cookie, token) = fixture.attested(&guest).await;
    let answer = fixture.send(Sent::get("resource/a/b/c").bearer(&token)).await;
    assert_eq!(open(&guest, &answer), KEY);

    // A restart forgets sessions; a token that the broker signed stays good until it expires.
    fixture.stop().await;
    fixture.start().await;
    let gone = fixture.send(Sent::get("resource/a/b/c").cookie(&cookie)).await;
    assert_eq!(
        gone.refusal(),
        (401, "TokenNotFound", "no such session: start again with /auth")
    );
    let answer = fixture.send(Sent::get("resource/a/b/c").bearer(&token)).await;
    assert_eq!(open(&guest, &answer), KEY);
    // Rules apply to tokens too.
    let mut rule = guest.rule();
    rule["allow-simulated"] = json!(false);
    fixture.store_rule("a/b/c", &rule).await;
    let denied = fixture.send(Sent::get("resource/a/b/c").bearer(&token)).await;
    assert_denied(&denied, "simulated evidence is not allowed by the rule");

    fixture.clock.advance(300);
    let expired = fixture.send(Sent::get("resource/a/b/c").bearer(&token)).await;
    assert_eq!(expired.refusal(), (401, "TokenVerifierError", "token: expired"));
    let other = Fixture::new().await;
    let (_, foreign) = other.attested(&guest).await;
    let refused = fixture.send(Sent::get("resource/a/b/c").bearer(&foreign)).await;
    assert_eq!(
        refused.refusal(),
        (401, "TokenVerifierError", "token: not signed by this broker")
    );
}

#[tokio::test]
async fn t26_no_secret_is_logged() {
    let mut fixture = Fixture::new().await;
    let guest = Guest::new();
    let admin = fixture.admin_token();
    let answer = ask(&fixture, &guest, &guest.rule()).await;
    assert_eq!(open(&guest, &answer), KEY);
    let (cookie, token) = fixture.attested(&guest).await;
    fixture.send(Sent::get("resource/a/b/missing").cookie(&cookie)).await;
    fixture
        .send(Sent::post("resource/a/b/c", KEY.to_vec()).bearer(&format!("{admin}x")))
        .await;
    fixture
        .send(Sent::post("cella-rule/a/b/c", KEY.to_vec()).bearer(&admin))
        .await;
    fixture.stop().await;
    let said = fixture.log.text() + &std::fs::read_to_string(fixture.audit_path()).unwrap();
    assert!(
        said.contains("no such resource") && said.contains("not a rule"),
        "{said}"
    );
    let key = String::from_utf8_lossy(KEY);
    for secret in [
        &*key,
        &hex::encode(KEY),
        &cookie,
        &token,
        &admin,
        admin.rsplit('.').next().unwrap(),
    ] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}
