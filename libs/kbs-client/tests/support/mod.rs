//! Brokers on loopback: one that keeps to the protocol, and any other.
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cella_http::{Client, ClientConfig, Origin};
use cella_kbs_client::jwe;
use cella_kbs_client::wire::{Attestation, ErrorInformation, TeePubKey};
use cella_kbs_client::{KbsClient, KbsError, Options, Session};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub(crate) const INIT_DATA: &str = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n";

/// What a broker answers: status, `Set-Cookie`, body.
pub(crate) type Reply = (u16, Option<&'static str>, Vec<u8>);

/// One request as the broker saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) cookie: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Broker {
    pub(crate) origin: Origin,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl Broker {
    /// Answers each request with what `reply` makes of it and of the number of requests before it.
    pub(crate) async fn new(reply: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
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
    pub(crate) async fn good() -> Self {
        Self::new(|seen, _| good(seen)).await
    }

    pub(crate) fn client(&self) -> KbsClient {
        let options = Options {
            request_timeout: Duration::from_millis(500),
            tries: 3,
            backoff: Duration::from_millis(20),
            ..Options::default()
        };
        let http = Client::new(self.origin.clone(), None, ClientConfig::default()).unwrap();
        KbsClient::with_options(http, "snp", options)
    }

    pub(crate) async fn attest(&self) -> Result<Session, KbsError> {
        self.client()
            .attest(INIT_DATA, async |report_data: [u8; 64]| {
                Ok::<_, Infallible>(evidence(report_data))
            })
            .await
    }

    pub(crate) fn lines(&self) -> Vec<String> {
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

pub(crate) const COOKIE: Option<&str> = Some("kbs-session-id=5f3a; Expires=Thu, 01 Jan 1970 00:00:00 GMT");

/// The broker that keeps to the protocol; the key of the last attestation is kept with [`remember`].
pub(crate) fn good(seen: &Seen) -> Reply {
    match seen.line.as_str() {
        "POST /kbs/v0/auth" => (200, COOKIE, text_of(&json!({"nonce": NONCE, "extra-params": ""}))),
        "POST /kbs/v0/attest" => {
            remember(key_of(seen));
            (200, None, text_of(&json!({"token": "e30.e30.e30"})))
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

pub(crate) fn recall() -> TeePubKey {
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

pub(crate) fn refuse(status: u16, name: &str, detail: &str) -> Reply {
    (
        status,
        None,
        serde_json::to_vec(&ErrorInformation::new(name, detail)).unwrap(),
    )
}

pub(crate) fn text_of(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

pub(crate) fn evidence(report_data: [u8; 64]) -> Value {
    json!({"report": hex::encode(report_data)})
}
