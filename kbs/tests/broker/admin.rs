//! The admin interface: who may, and what is kept.

use http::Method;
use serde_json::{Value, json};

use cella_kbs::clock::Clock;

use crate::fixture::{Fixture, Sent};
use crate::guest::Guest;

const KEY: &[u8] = b"thirty-two bytes of a model key.";
const ENDPOINTS: [(Method, &str); 14] = [
    (Method::POST, "resource/a/b/c"),
    (Method::DELETE, "resource/a/b/c"),
    (Method::GET, "cella-rule/a/b/c"),
    (Method::POST, "cella-rule/a/b/c"),
    (Method::DELETE, "cella-rule/a/b/c"),
    (Method::GET, "cella-resources"),
    (Method::POST, "cella-floor/model/demo?version=1"),
    (Method::GET, "cella-floors"),
    (Method::POST, "cella-token-key"),
    (Method::GET, "cella-audit?from=0"),
    (Method::GET, "cella-backup"),
    (Method::POST, "cella-restore"),
    (Method::GET, "cella-owners/a/b/c"),
    (Method::POST, "cella-owners/a/b/c"),
];

#[tokio::test]
async fn every_endpoint_needs_a_good_token() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    fixture.store("a/b/c", KEY, &guest.rule()).await;
    let before = fixture.audit();
    let now = fixture.clock.unix().as_secs();
    let claims = |change: Value| {
        let mut claims = json!({"aud": "cella-kbs", "sub": "ada", "iat": now, "exp": now + 60});
        claims
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        fixture.sign(&claims)
    };
    let stranger = Fixture::new().await;
    let (_, guest_token) = fixture.attested(&guest).await;
    let cases = [
        (None, "admin token missing"),
        (Some("garbage".to_owned()), "admin token: not a JWT"),
        (
            Some(stranger.admin_token()),
            "admin token: not signed by an admin key of this broker",
        ),
        (
            Some(claims(json!({"iat": now - 120, "exp": now - 60}))),
            "admin token: expired",
        ),
        (
            Some(claims(json!({"exp": now + 601}))),
            "admin token: exp must be after iat, by at most 600 s",
        ),
        (
            Some(claims(json!({"iat": now + 300, "exp": now + 400}))),
            "admin token: iat is in the future: compare the clocks",
        ),
        (
            Some(claims(json!({"aud": "elsewhere"}))),
            "admin token: aud is not cella-kbs",
        ),
        (
            Some(guest_token),
            "admin token: the JWT must be signed with EdDSA and have no critical extensions",
        ),
    ];
    for (method, path) in ENDPOINTS {
        for (token, detail) in &cases {
            let mut request = Sent::new(method.clone(), path, b"{}".to_vec());
            if let Some(token) = token {
                request = request.bearer(token);
            }
            assert_eq!(
                fixture.send(request).await.refusal(),
                (401, "AdminAuth", *detail),
                "{method} {path}"
            );
        }
    }
    let changes = |lines: Vec<Value>| lines.into_iter().filter(|line| line["admin"].is_string()).count();
    assert_eq!(changes(fixture.audit()), changes(before));
}

#[tokio::test]
async fn t5_resources_and_rules_are_kept_shown_and_removed() {
    let mut fixture = Fixture::new().await;
    let token = fixture.admin_token();
    let mut rule = Guest::new().rule();
    rule["minimum-tcb"] = json!({"bootloader": 3, "tee": 0, "snp": 20, "microcode": 209});
    fixture.store("a/b/c", KEY, &rule).await;
    fixture.store_rule("a/b/d", &rule).await;
    fixture.stop().await;
    fixture.start().await;

    let shown = fixture.send(Sent::get("cella-rule/a/b/c").bearer(&token)).await.body;
    let mut whole = rule.clone();
    whole["allow-milan"] = json!(false);
    assert_eq!(shown, whole);
    let listed = fixture.send(Sent::get("cella-resources").bearer(&token)).await.body;
    assert_eq!(
        listed,
        json!({"resources": [
            {"path": "a/b/c", "version": 1, "bytes": 32, "rule": whole, "rule-version": 1},
            {"path": "a/b/d", "version": null, "bytes": null, "rule": whole, "rule-version": 1},
        ]})
    );

    let delete = |path| Sent::new(Method::DELETE, path, Vec::new()).bearer(&token);
    assert_eq!(fixture.send(delete("resource/a/b/c")).await.status, 200);
    let none = (404, "InvalidRequestPath", "no such resource");
    assert_eq!(fixture.send(delete("resource/a/b/c")).await.refusal(), none);
    assert_eq!(fixture.send(delete("cella-rule/a/b/c")).await.refusal(), none);
    assert_eq!(
        fixture
            .send(Sent::get("cella-rule/a/b/c").bearer(&token))
            .await
            .refusal(),
        none
    );
    assert_eq!(fixture.send(delete("cella-rule/a/b/d")).await.status, 200);
    assert_eq!(
        fixture.send(Sent::get("cella-resources").bearer(&token)).await.body,
        json!({"resources": []})
    );

    let events: Vec<_> = fixture
        .audit()
        .into_iter()
        .filter(|line| line["admin"] == "ada")
        .collect();
    let names: Vec<_> = events.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "store-resource",
            "store-rule",
            "store-rule",
            "delete-resource",
            "delete-rule"
        ]
    );
    assert!(events.iter().all(|line| line["outcome"] == "allowed"));
    assert_eq!(events[1]["rule"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn what_is_stored_must_make_sense() {
    let fixture = Fixture::new().await;
    let token = fixture.admin_token();
    for (path, body, status, start) in [
        ("resource/a/b/c", vec![], 400, "a resource has 1 to 65536 bytes"),
        (
            "resource/a/b/c",
            vec![1; 65537],
            413,
            "the body is larger than 65536 bytes",
        ),
        (
            "cella-rule/a/b/c",
            vec![b' '; 65537],
            413,
            "the body is larger than 65536 bytes",
        ),
        ("cella-rule/a/b/c", b"{".to_vec(), 400, "not a rule: EOF"),
        ("cella-rule/a/b/c", vec![0xff; 10], 400, "not a rule: "),
        (
            "cella-rule/a/b/c",
            br#"{"launch-digests":[],"policy-digests":[],"allow":1}"#.to_vec(),
            400,
            "not a rule: unknown field `allow`",
        ),
        (
            "cella-rule/a/b/c",
            br#"{"launch-digests":["12"],"policy-digests":[]}"#.to_vec(),
            400,
            "launch-digests[0] is neither 96 hex digits nor reference:<name>",
        ),
    ] {
        let answer = fixture.send(Sent::post(path, body).bearer(&token)).await;
        let (found, name, detail) = answer.refusal();
        assert_eq!((found, name), (status, "InvalidRequest"), "{detail}");
        assert!(detail.starts_with(start), "{detail}");
    }
    assert_eq!(
        fixture.send(Sent::get("cella-resources").bearer(&token)).await.body,
        json!({"resources": []})
    );
    let largest = Sent::post("resource/a/b/c", vec![1; 65536]).bearer(&token);
    assert_eq!(fixture.send(largest).await.status, 200);
}
