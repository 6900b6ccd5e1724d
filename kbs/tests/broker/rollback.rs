//! Old versions of keys, models, policies and rules (threat T5): refused, with both versions, also after a restart.

use cella_policy::initdata::{Algorithm, write};
use http::Method;
use serde_json::{Value, json};

use crate::fixture::{Answer, Fixture, Sent};
use crate::guest::Guest;

const KEY: &[u8] = b"thirty-two bytes of a model key.";
const POLICY: &str = include_str!("../../../libs/policy/src/policy/example.toml");

/// A guest whose measured policy has this revision and names the model at this version.
fn guest(revision: u64, model: u64) -> Guest {
    let policy = POLICY
        .replacen(
            "version = 1",
            &format!("version = 1\nname = \"demo\"\nrevision = {revision}"),
            1,
        )
        .replacen(
            "name = \"models/demo\"\nversion = 1",
            &format!("name = \"models/demo\"\nversion = {model}"),
            1,
        );
    Guest {
        initdata: write(&policy, Algorithm::Sha256),
        ..Guest::new()
    }
}

/// A rule that names all of them: a floor is for what rules still let in.
fn rule(guests: &[&Guest]) -> Value {
    let mut rule = guests[0].rule();
    rule["policy-digests"] = guests.iter().map(|guest| hex::encode(guest.policy_digest())).collect();
    rule
}

async fn raise(fixture: &Fixture, floor: &str, to: u64) -> Answer {
    let token = fixture.admin_token();
    let path = format!("cella-floor/{floor}?version={to}");
    fixture.send(Sent::post(&path, Vec::new()).bearer(&token)).await
}

async fn ask(fixture: &Fixture, guest: &Guest, path: &str) -> Answer {
    let (cookie, token) = fixture.attested(guest).await;
    let by_session = fixture
        .send(Sent::get(&format!("resource/{path}")).cookie(&cookie))
        .await;
    let by_token = fixture
        .send(Sent::get(&format!("resource/{path}")).bearer(&token))
        .await;
    // The token knows of the guest what the session knows.
    assert_eq!(by_session.status, by_token.status);
    if by_session.status != 200 {
        assert_eq!(by_session.refusal(), by_token.refusal());
    }
    by_session
}

fn denied(detail: &str) -> (u16, &'static str, &str) {
    (401, "PolicyDeny", detail)
}

#[tokio::test]
async fn t5_old_models_keys_and_policies_are_each_refused_and_stay_so() {
    let mut fixture = Fixture::new().await;
    let (old, new, old_model) = (guest(1, 2), guest(2, 2), guest(2, 1));
    let rule = rule(&[&old, &new, &old_model]);
    for path in ["demo/image-kek/1", "demo/image-kek/2", "demo/image-kek/latest"] {
        fixture.store(path, KEY, &rule).await;
    }
    // Without floors all of it is released: it is the floors that refuse below.
    for guest in [&old, &new, &old_model] {
        for path in ["demo/image-kek/1", "demo/image-kek/2", "demo/image-kek/latest"] {
            assert_eq!(ask(&fixture, guest, path).await.status, 200);
        }
    }
    for floor in ["resource/demo/image-kek", "model/models/demo", "policy/demo"] {
        assert_eq!(raise(&fixture, floor, 2).await.status, 200, "{floor}");
    }
    for restarted in [false, true] {
        if restarted {
            fixture.stop().await;
            fixture.start().await;
        }
        assert_eq!(ask(&fixture, &new, "demo/image-kek/2").await.status, 200);
        assert_eq!(
            ask(&fixture, &new, "demo/image-kek/1").await.refusal(),
            denied("rollback: version 1 of demo/image-kek is below the floor 2")
        );
        assert_eq!(
            ask(&fixture, &new, "demo/image-kek/latest").await.refusal(),
            denied("rollback: demo/image-kek/latest has no version in its name, and 2 is the floor")
        );
        assert_eq!(
            ask(&fixture, &old_model, "demo/image-kek/2").await.refusal(),
            denied("rollback: the policy names model models/demo at version 1, the floor is 2")
        );
        assert_eq!(
            ask(&fixture, &old, "demo/image-kek/2").await.refusal(),
            denied("rollback: policy demo is revision 1, the floor is 2")
        );
    }
    let lowered = raise(&fixture, "policy/demo", 1).await;
    let detail = "rollback: the floor of policy/demo is 2, 1 was offered";
    assert_eq!(lowered.refusal(), (409, "Rollback", detail));
    let token = fixture.admin_token();
    let floors = fixture.send(Sent::get("cella-floors").bearer(&token)).await.body;
    let floor = |name: &str| json!({"name": name, "floor": 2});
    let expected = ["resource/demo/image-kek", "model/models/demo", "policy/demo"].map(floor);
    assert_eq!(floors, json!({"floors": expected}));
    // Of the raise that was refused: one line before, one that says so.
    let lines = fixture.audit();
    let raised: Vec<_> = lines.iter().filter(|line| line["event"] == "raise-floor").collect();
    let outcomes: Vec<_> = raised.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["allowed", "allowed", "allowed", "allowed", "denied"]);
    assert_eq!(
        (&raised[4]["reason"], &raised[4]["version"]),
        (&json!(detail), &json!(1))
    );
}

/// What a guest that no rule names is told is no version.
#[tokio::test]
async fn floors_are_told_to_those_that_the_rule_names() {
    let fixture = Fixture::new().await;
    let (old, new) = (guest(1, 1), guest(2, 2));
    fixture.store("a/b/1", KEY, &new.rule()).await;
    assert_eq!(raise(&fixture, "policy/demo", 2).await.status, 200);
    let answer = ask(&fixture, &old, "a/b/1").await;
    assert_eq!(answer.refusal(), denied("initdata digest not in the rule"));
}

#[tokio::test]
async fn t5_an_older_key_or_rule_does_not_take_the_place_of_a_newer() {
    let mut fixture = Fixture::new().await;
    let guest = Guest::new();
    let rule = guest.rule().to_string().into_bytes();
    let token = fixture.admin_token();
    let store = |path: &str, body: &[u8]| Sent::post(path, body.to_vec()).bearer(&token);
    let put = fixture.send(store("resource/a/b/c?version=3", KEY)).await;
    assert_eq!((put.status.as_u16(), &put.body), (200, &json!({"version": 3})));
    assert_eq!(
        fixture.send(store("cella-rule/a/b/c", &rule)).await.body,
        json!({"version": 1})
    );
    assert_eq!(
        fixture.send(store("cella-rule/a/b/c?version=5", &rule)).await.body,
        json!({"version": 5})
    );
    for round in ["there", "restarted", "removed"] {
        match round {
            "restarted" => {
                fixture.stop().await;
                fixture.start().await;
            }
            "removed" => {
                let delete = Sent::new(Method::DELETE, "resource/a/b/c", Vec::new()).bearer(&token);
                assert_eq!(fixture.send(delete).await.status, 200);
            }
            _ => {}
        }
        let older = fixture.send(store("resource/a/b/c?version=2", KEY)).await;
        let detail = "rollback: a/b/c is at version 3, version 2 was offered";
        assert_eq!(older.refusal(), (409, "Rollback", detail), "{round}");
        let older = fixture.send(store("cella-rule/a/b/c?version=4", &rule)).await;
        let detail = "rollback: a/b/c is at version 5, version 4 was offered";
        assert_eq!(older.refusal(), (409, "Rollback", detail), "{round}");
    }
    assert_eq!(
        fixture.send(store("resource/a/b/c", KEY)).await.body,
        json!({"version": 4})
    );
    let other = fixture.send(store("resource/a/b/c?version=4", b"other")).await;
    assert_eq!(
        other.refusal().2,
        "a/b/c is at version 4 with other contents: give a higher version"
    );
}

#[tokio::test]
async fn a_policy_that_cannot_be_compared_is_refused() {
    let fixture = Fixture::new().await;
    let guest = Guest {
        initdata: write("version = 9\n", Algorithm::Sha256),
        ..Guest::new()
    };
    let (cookie, nonce) = fixture.challenge().await;
    let answer = fixture.attest(&cookie, &guest.attestation(&nonce)).await;
    let detail = "the policy in the initdata cannot be read by this broker";
    assert_eq!(answer.refusal(), (401, "AttestationError", detail));
}
