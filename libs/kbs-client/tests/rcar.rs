//! The client against a broker on loopback that keeps to the protocol, and against ones that do not.
#![allow(clippy::unwrap_used, clippy::panic)]
mod support;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use cella_http::{Client, ClientConfig, HttpError, Origin};
use cella_kbs_client::jwe;
use cella_kbs_client::wire::{Attestation, Request as RcarRequest, report_data};
use cella_kbs_client::{GarbageKind, KbsClient, KbsError, Options, Step};
use serde_json::{Value, json};
use support::{Broker, COOKIE, INIT_DATA, NONCE, evidence, good, recall, refuse, text_of};
use tokio::net::TcpListener;

#[tokio::test]
async fn one_attestation_many_keys_one_connection() {
    let broker = Broker::good().await;
    let mut session = broker.attest().await.unwrap();
    for tag in ["1", "2", "3"] {
        assert_eq!(
            *session.resource(&format!("demo/kek/{tag}")).await.unwrap(),
            format!("key {tag}").into_bytes()
        );
    }
    assert_eq!(*broker.connections.lock().unwrap(), 1);
    let seen = broker.seen.lock().unwrap();
    assert_eq!(seen.len(), 5);

    let request: RcarRequest = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!((request.version.as_str(), request.tee.as_str()), ("0.4.0", "snp"));
    assert_eq!(seen[0].cookie, None);
    let attestation: Attestation = serde_json::from_slice(&seen[1].body).unwrap();
    assert_eq!(attestation.init_data.unwrap().body, INIT_DATA);
    assert_eq!(attestation.runtime_data.nonce, NONCE);
    assert_eq!(attestation.tee_evidence.additional_evidence, "");
    let expected = report_data(NONCE, &attestation.runtime_data.tee_pubkey, "");
    assert_eq!(attestation.tee_evidence.primary_evidence, evidence(expected));
    for request in &seen[..2] {
        assert_eq!(request.content_type.as_deref(), Some("application/json"));
    }
    for request in &seen[1..] {
        assert_eq!(
            request.cookie.as_deref(),
            Some("kbs-session-id=5f3a"),
            "an expiry in the past means nothing"
        );
    }
}

#[tokio::test]
async fn each_attestation_has_a_key_of_its_own() {
    let broker = Broker::good().await;
    broker.attest().await.unwrap();
    let first = recall();
    broker.attest().await.unwrap();
    assert_ne!(first, recall());
}

#[tokio::test]
async fn a_refusal_is_told_once_and_not_tried_again() {
    let broker = Broker::new(|seen, _| match seen.line.as_str() {
        "POST /kbs/v0/attest" => refuse(401, "AttestationError", "measurement not in the rule\u{1b}[2J\n (id 7)"),
        _ => good(seen),
    })
    .await;
    match broker.attest().await.err().unwrap() {
        KbsError::Refused {
            step: Step::Attest,
            kind,
            detail,
            ..
        } => {
            assert_eq!(kind, "AttestationError");
            assert_eq!(detail, "measurement not in the rule?[2J? (id 7)");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(broker.lines().len(), 2);
}

#[tokio::test]
async fn a_denied_and_a_missing_resource_leave_the_session_usable() {
    let broker = Broker::new(|seen, _| match seen.line.as_str() {
        "GET /kbs/v0/resource/demo/kek/2" => refuse(401, "PolicyDeny", &"x".repeat(1000)),
        _ => good(seen),
    })
    .await;
    let mut session = broker.attest().await.unwrap();
    match session.resource("demo/kek/2").await.unwrap_err() {
        KbsError::Refused {
            step: Step::Resource(path),
            kind,
            detail,
            ..
        } => {
            assert_eq!(
                (path.as_str(), kind.as_str(), detail.len()),
                ("demo/kek/2", "PolicyDeny", 300)
            );
        }
        other => panic!("{other:?}"),
    }
    let missing = session.resource("demo/kek/9").await.unwrap_err();
    assert!(matches!(&missing, KbsError::NotFound { path, .. } if path.as_str() == "demo/kek/9"));
    assert!(matches!(session.resource("demo/../kek").await, Err(KbsError::Path(_))));
    assert_eq!(*session.resource("demo/kek/1").await.unwrap(), b"key 1");
    assert_eq!(broker.lines().len(), 5);
}

#[tokio::test]
async fn a_broker_in_trouble_is_asked_again() {
    let broker = Broker::new(|seen, before| match before {
        0 => (503, None, Vec::new()),
        2 => (500, None, b"oops".to_vec()),
        5 => (502, None, Vec::new()),
        _ => good(seen),
    })
    .await;
    let mut session = broker.attest().await.unwrap();
    assert_eq!(*session.resource("demo/kek/1").await.unwrap(), b"key 1");
    let (auth, attest, get) = (
        "POST /kbs/v0/auth",
        "POST /kbs/v0/attest",
        "GET /kbs/v0/resource/demo/kek/1",
    );
    // A handshake that broke off starts anew: its nonce may be used up.
    assert_eq!(broker.lines(), [auth, auth, attest, auth, attest, get, get]);

    let broker = Broker::new(|_, _| (503, None, Vec::new())).await;
    let error = broker.attest().await.err().unwrap();
    assert!(
        matches!(
            error,
            KbsError::Unavailable {
                step: Step::Auth,
                status: 503,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(broker.lines().len(), 3);
}

#[tokio::test]
async fn a_broker_that_is_down_is_tried_three_times() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin: Origin = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let http = Client::new(origin, None, ClientConfig::default()).unwrap();
    let backoff = Duration::from_millis(40);
    let mut client = KbsClient::with_options(
        http,
        "snp",
        Options {
            backoff,
            ..Options::default()
        },
    );
    let started = Instant::now();
    let result = client
        .attest(INIT_DATA, async |_| Ok::<_, Infallible>(Value::Null))
        .await;
    let error = result.err().unwrap();
    assert!(
        matches!(
            &error,
            KbsError::Unreachable {
                step: Step::Auth,
                source: HttpError::Connect { .. },
                ..
            }
        ),
        "{error:?}"
    );
    assert!(started.elapsed() >= backoff * 3, "pauses of one and two");
}

#[tokio::test]
async fn a_broker_that_is_slow_is_left() {
    for slow in [
        "POST /kbs/v0/auth",
        "POST /kbs/v0/attest",
        "GET /kbs/v0/resource/demo/kek/1",
    ] {
        let broker = Broker::new(move |seen, _| {
            if seen.line == slow {
                (0, None, Vec::new())
            } else {
                good(seen)
            }
        })
        .await;
        let error = match broker.attest().await {
            Err(error) => error,
            Ok(mut session) => session.resource("demo/kek/1").await.unwrap_err(),
        };
        assert!(matches!(error, KbsError::Timeout { .. }), "{slow}: {error:?}");
        assert_eq!(broker.lines().iter().filter(|line| *line == slow).count(), 1);
    }
}

async fn garbage(broker: &Broker) -> GarbageKind {
    let error = match broker.attest().await {
        Err(error) => error,
        Ok(mut session) => session.resource("demo/kek/1").await.unwrap_err(),
    };
    match error {
        KbsError::Garbage { what, .. } => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn answers_that_are_not_the_protocol_are_garbage() {
    for line in [
        "POST /kbs/v0/auth",
        "POST /kbs/v0/attest",
        "GET /kbs/v0/resource/demo/kek/1",
    ] {
        for body in [
            "",
            "null",
            "<html>",
            "{\"nonce\":",
            "{\"nonce\":1,\"token\":2}",
            "[[[[[[[[[",
        ] {
            let broker = Broker::new(move |seen, _| {
                if seen.line == line {
                    (200, COOKIE, body.into())
                } else {
                    good(seen)
                }
            });
            assert!(
                matches!(garbage(&broker.await).await, GarbageKind::Json { .. }),
                "{line} {body}"
            );
        }
        let huge = Broker::new(move |seen, _| match seen.line == line {
            true => (200, COOKIE, vec![b' '; (1 << 20) + 1]),
            false => good(seen),
        });
        assert!(
            matches!(garbage(&huge.await).await, GarbageKind::TooLarge { limit: 1_048_576 }),
            "{line}"
        );
        for (status, body) in [(302, ""), (401, ""), (401, "no"), (403, "{}"), (400, "[]")] {
            let broker = Broker::new(move |seen, _| {
                if seen.line == line {
                    (status, None, body.into())
                } else {
                    good(seen)
                }
            });
            let what = garbage(&broker.await).await;
            assert!(
                matches!(what, GarbageKind::Status { status: s } if s == status),
                "{line} {what:?}"
            );
        }
    }
}

#[tokio::test]
async fn challenges_that_lack_something_are_garbage() {
    let challenge = |cookie, body: Value| {
        Broker::new(move |seen, _| match seen.line.as_str() {
            "POST /kbs/v0/auth" => (200, cookie, text_of(&body)),
            _ => good(seen),
        })
    };
    let nothing_set = challenge(None, json!({"nonce": NONCE})).await;
    assert!(matches!(garbage(&nothing_set).await, GarbageKind::NoCookie));
    let other_cookie = challenge(Some("id=1"), json!({"nonce": NONCE})).await;
    assert!(matches!(garbage(&other_cookie).await, GarbageKind::NoCookie));
    for nonce in [String::new(), "n".repeat(1025)] {
        let broker = challenge(COOKIE, json!({"nonce": nonce})).await;
        assert!(matches!(garbage(&broker).await, GarbageKind::Nonce { limit: 1024 }));
    }
    let other_hash = json!({"nonce": NONCE, "extra-params": {"selected-hash-algorithm": "sha512"}});
    assert!(matches!(
        garbage(&challenge(COOKIE, other_hash).await).await,
        GarbageKind::Hash
    ));
    let same_hash = json!({"nonce": NONCE, "extra-params": {"selected-hash-algorithm": "sha384"}});
    assert!(challenge(COOKIE, same_hash).await.attest().await.is_ok());
}

#[tokio::test]
async fn a_resource_for_another_key_does_not_open() {
    let broker = Broker::good().await;
    let mut session = broker.attest().await.unwrap();
    broker.attest().await.unwrap();
    match session.resource("demo/kek/1").await.unwrap_err() {
        KbsError::Sealed {
            path,
            source: jwe::JweError::NotForThisKey,
            ..
        } => assert_eq!(path.as_str(), "demo/kek/1"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_platform_without_evidence_sends_none() {
    let broker = Broker::good().await;
    let result = broker
        .client()
        .attest(INIT_DATA, async |_| Err::<Value, _>("the platform is gone"))
        .await;
    match result.err().unwrap() {
        KbsError::Evidence(source) => assert_eq!(source.to_string(), "the platform is gone"),
        other => panic!("{other:?}"),
    }
    assert_eq!(broker.lines(), ["POST /kbs/v0/auth"]);
}

#[tokio::test]
async fn the_handshake_can_move_between_threads() {
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    let broker = Broker::good().await;
    let mut client = broker.client();
    let platform = "sim".to_owned();
    let handshake = client.attest(INIT_DATA, async |report_data: [u8; 64]| {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(json!({"platform": platform.clone(), "report": hex::encode(report_data)}))
    });
    let mut session = sendable(handshake).await.unwrap();
    sendable(session.resource("demo/kek/1")).await.unwrap();
}
