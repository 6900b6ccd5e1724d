//! The client against a broker on loopback that keeps to the protocol, and against ones that do not.
#![allow(clippy::unwrap_used, clippy::panic)]
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cella_http::{Client, ClientConfig, HttpError, Origin};
use cella_kbs_client::jwe;
use cella_kbs_client::wire::{Attestation, ErrorInformation, Request as RcarRequest, TeePubKey, report_data};
use cella_kbs_client::{GarbageKind, KbsClient, KbsError, Options, Session, Step};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const INIT_DATA: &str = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n";

/// What a broker answers: status, `Set-Cookie`, body.
type Reply = (u16, Option<&'static str>, Vec<u8>);

/// One request as the broker saw it.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    cookie: Option<String>,
    content_type: Option<String>,
    body: Vec<u8>,
}

struct Broker {
    origin: Origin,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl Broker {
    /// Answers each request with what `reply` makes of it and of the number of requests before it.
    async fn new(reply: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (seen, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (reply, log, counter) = (Arc::new(reply), Arc::clone(&seen), Arc::clone(&connections));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                *counter.lock().unwrap() += 1;
                let (reply, log) = (Arc::clone(&reply), Arc::clone(&log));
                let service = service_fn(move |request| answer(request, Arc::clone(&reply), Arc::clone(&log)));
                open.spawn(async move {
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(tcp), service)
                        .await
                        .ok();
                });
            }
        });
        Self {
            origin,
            seen,
            connections,
            _tasks: tasks,
        }
    }

    /// A broker that does it right and has the resources `demo/kek/1` to `demo/kek/3`.
    async fn good() -> Self {
        Self::new(|seen, _| good(seen)).await
    }

    fn client(&self) -> KbsClient {
        let options = Options {
            request_timeout: Duration::from_millis(500),
            tries: 3,
            backoff: Duration::from_millis(20),
        };
        let http = Client::new(self.origin.clone(), None, ClientConfig::default()).unwrap();
        KbsClient::with_options(http, "snp", options)
    }

    async fn attest(&self) -> Result<Session, KbsError> {
        self.client()
            .attest(INIT_DATA, async |report_data: [u8; 64]| {
                Ok::<_, Infallible>(evidence(report_data))
            })
            .await
    }

    fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|seen| seen.line.clone()).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    reply: Arc<impl Fn(&Seen, usize) -> Reply>,
    log: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let (line, cookie, content_type) = (
        format!("{} {}", request.method(), request.uri()),
        header("cookie"),
        header("content-type"),
    );
    let body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
    let seen = Seen {
        line,
        cookie,
        content_type,
        body,
    };
    let before = {
        let mut log = log.lock().unwrap();
        log.push(seen.clone());
        log.len() - 1
    };
    let (status, cookie, body) = reply(&seen, before);
    if status == 0 {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(status);
    if let Some(cookie) = cookie {
        response = response.header("set-cookie", cookie);
    }
    Ok(response.body(Full::new(body.into())).unwrap())
}

const COOKIE: Option<&str> = Some("kbs-session-id=5f3a; Expires=Thu, 01 Jan 1970 00:00:00 GMT");

/// The broker that keeps to the protocol; the key of the last attestation is kept with [`remember`].
fn good(seen: &Seen) -> Reply {
    match seen.line.as_str() {
        "POST /kbs/v0/auth" => (200, COOKIE, json(&json!({"nonce": NONCE, "extra-params": ""}))),
        "POST /kbs/v0/attest" => {
            remember(key_of(seen));
            (200, None, json(&json!({"token": "e30.e30.e30"})))
        }
        line => match line.strip_prefix("GET /kbs/v0/resource/demo/kek/") {
            Some(tag @ ("1" | "2" | "3")) => (200, None, sealed(&recall(), tag.as_bytes())),
            _ => refuse(404, "PluginNotFound", "no such resource"),
        },
    }
}

thread_local! {
    // Each test has a runtime of one thread, so client and broker share it.
    static KEY: std::cell::RefCell<Option<TeePubKey>> = const { std::cell::RefCell::new(None) };
}

fn remember(key: TeePubKey) {
    KEY.set(Some(key));
}

fn recall() -> TeePubKey {
    KEY.with_borrow(|key| key.clone().unwrap())
}

fn key_of(seen: &Seen) -> TeePubKey {
    serde_json::from_slice::<Attestation>(&seen.body)
        .unwrap()
        .runtime_data
        .tee_pubkey
}

fn sealed(key: &TeePubKey, tag: &[u8]) -> Vec<u8> {
    serde_json::to_vec(&jwe::encrypt(key, &[b"key ", tag].concat()).unwrap()).unwrap()
}

fn refuse(status: u16, name: &str, detail: &str) -> Reply {
    (
        status,
        None,
        serde_json::to_vec(&ErrorInformation::new(name, detail)).unwrap(),
    )
}

fn json(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn evidence(report_data: [u8; 64]) -> Value {
    json!({"report": hex::encode(report_data)})
}

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
            "POST /kbs/v0/auth" => (200, cookie, json(&body)),
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
