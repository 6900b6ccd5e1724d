//! A running broker with a clock that tests can move, and ways to talk to it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cella_http::{Client, ClientConfig, TlsRoots};
use cella_kbs::clock::{Clock, SystemClock};
use cella_kbs::init::{InitOptions, init};
use cella_kbs::{Config, Server};
use http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use ring::signature::Ed25519KeyPair;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use slog::{Drain, Logger, o};

use crate::guest::{Guest, ark_pem};

/// Real time, ahead by what a test says.
pub(crate) struct MovedClock {
    system: SystemClock,
    ahead_seconds: AtomicU64,
}

impl MovedClock {
    pub(crate) fn advance(&self, seconds: u64) {
        self.ahead_seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    fn ahead(&self) -> Duration {
        Duration::from_secs(self.ahead_seconds.load(Ordering::SeqCst))
    }
}

impl Clock for MovedClock {
    fn unix(&self) -> Duration {
        self.system.unix() + self.ahead()
    }

    fn uptime(&self) -> Duration {
        self.system.uptime() + self.ahead()
    }
}

/// What the broker logged.
#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A broker's folder, and the broker while it runs.
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<MovedClock>,
    pub(crate) log: Captured,
    server: Option<Server>,
    change: fn(&mut Config),
}

impl Fixture {
    /// A broker that knows the simulated platform's root.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with another configuration.
    pub(crate) async fn with(change: fn(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_folder(dir.path());
        let clock = Arc::new(MovedClock {
            system: SystemClock::new(),
            ahead_seconds: AtomicU64::new(0),
        });
        let mut fixture = Self {
            dir,
            clock,
            log: Captured::default(),
            server: None,
            change,
        };
        fixture.start().await;
        fixture
    }

    pub(crate) async fn start(&mut self) {
        let mut config = Config::load(&self.folder().join("config.toml")).unwrap();
        (self.change)(&mut config);
        let drain = Mutex::new(slog_json::Json::default(self.log.clone())).fuse();
        let log = Logger::root(drain, o!());
        self.server = Some(Server::start(config, self.clock.clone(), log).await.unwrap());
    }

    pub(crate) async fn stop(&mut self) {
        self.server.take().unwrap().stop().await;
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.path().join("kbs")
    }

    pub(crate) fn audit_path(&self) -> PathBuf {
        self.folder().join("state/audit.jsonl")
    }

    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.audit_path()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.server.as_ref().unwrap().address()
    }

    /// A client with connections of its own.
    pub(crate) fn client(&self) -> Client {
        client(&self.folder(), self.address())
    }

    pub(crate) async fn send(&self, request: Sent<'_>) -> Answer {
        send(&self.client(), request).await
    }

    /// A successful answer's bytes and media type.
    pub(crate) async fn send_raw(&self, request: Sent<'_>) -> (Vec<u8>, String) {
        let response = respond(&self.client(), request).await;
        assert_eq!(response.status, StatusCode::OK);
        let kind = response.headers["content-type"].to_str().unwrap().to_owned();
        (response.bytes(64 << 20).await.unwrap().to_vec(), kind)
    }

    /// A page that stands outside of the protocol, as text, and its media type.
    pub(crate) async fn get_page(&self, path: &str) -> (String, String) {
        let client = self.client();
        let response = client
            .send(Method::GET, path, HeaderMap::new(), Bytes::new())
            .await
            .unwrap();
        assert_eq!(response.status, StatusCode::OK);
        let kind = response.headers["content-type"].to_str().unwrap().to_owned();
        let body = response.bytes(1 << 20).await.unwrap();
        (String::from_utf8(body.to_vec()).unwrap(), kind)
    }

    /// An admin's token, good for two minutes.
    pub(crate) fn admin_token(&self) -> String {
        let now = self.clock.unix().as_secs();
        self.sign(&json!({"aud": "cella-kbs", "sub": "ada", "iat": now, "exp": now + 120}))
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        sign(&self.folder(), claims)
    }

    /// Stores a resource with a rule.
    pub(crate) async fn store(&self, path: &str, bytes: &[u8], rule: &Value) {
        let token = self.admin_token();
        let to_resource = Sent::post(&format!("resource/{path}"), bytes.to_vec()).bearer(&token);
        assert_eq!(self.send(to_resource).await.status, StatusCode::OK);
        self.store_rule(path, rule).await;
    }

    pub(crate) async fn store_rule(&self, path: &str, rule: &Value) {
        let token = self.admin_token();
        let to_rule = Sent::post(&format!("cella-rule/{path}"), rule.to_string().into_bytes()).bearer(&token);
        assert_eq!(self.send(to_rule).await.status, StatusCode::OK);
    }

    /// Reads again what can be read again.
    pub(crate) async fn reload(&self) {
        self.server.as_ref().unwrap().reload().await;
    }

    /// Stops, and starts with another configuration.
    pub(crate) async fn restart_with(&mut self, change: fn(&mut Config)) {
        self.stop().await;
        self.change = change;
        self.start().await;
    }

    /// A cookie and a nonce.
    pub(crate) async fn challenge(&self) -> (String, String) {
        self.challenge_for("snp").await
    }

    /// The same for evidence of another kind.
    pub(crate) async fn challenge_for(&self, tee: &str) -> (String, String) {
        let request = json!({"version": "0.4.0", "tee": tee, "extra-params": ""});
        let answer = self.send(Sent::post("auth", request.to_string().into_bytes())).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        (
            answer.cookie.unwrap(),
            answer.body["nonce"].as_str().unwrap().to_owned(),
        )
    }

    pub(crate) async fn attest(&self, cookie: &str, body: &Value) -> Answer {
        self.send(Sent::post("attest", body.to_string().into_bytes()).cookie(cookie))
            .await
    }

    /// The whole handshake; gives cookie and token.
    pub(crate) async fn attested(&self, guest: &Guest) -> (String, String) {
        let (cookie, nonce) = self.challenge().await;
        let answer = self.attest(&cookie, &guest.attestation(&nonce)).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        (cookie, answer.body["token"].as_str().unwrap().to_owned())
    }
}

/// `cella-kbs init` for the loopback address, with the simulated platform's root.
pub(crate) fn make_folder(dir: &Path) -> PathBuf {
    let root = dir.join("ark.pem");
    std::fs::write(&root, ark_pem()).unwrap();
    init(&InitOptions {
        dir: dir.join("kbs"),
        names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        listen: "127.0.0.1:0".parse().unwrap(),
        simulated_root: Some(root),
        tdx_collateral: None,
        simulated_tdx_root: None,
    })
    .unwrap()
}

pub(crate) fn client(folder: &Path, address: std::net::SocketAddr) -> Client {
    let roots = TlsRoots::from_pem(&std::fs::read_to_string(folder.join("ca.pem")).unwrap()).unwrap();
    let origin = format!("https://{address}").parse().unwrap();
    Client::new(origin, Some(roots), ClientConfig::default()).unwrap()
}

pub(crate) fn sign(folder: &Path, claims: &Value) -> String {
    let der = PrivatePkcs8KeyDer::from_pem_file(folder.join("admin.key")).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).unwrap();
    let part = |json: String| URL_SAFE_NO_PAD.encode(json);
    let input = format!(
        "{}.{}",
        part(json!({"alg": "EdDSA", "typ": "JWT"}).to_string()),
        part(claims.to_string())
    );
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(input.as_bytes()));
    format!("{input}.{signature}")
}

pub(crate) fn auth_body() -> Vec<u8> {
    json!({"version": "0.4.0", "tee": "snp", "extra-params": ""})
        .to_string()
        .into_bytes()
}

/// A request; its path counts from `/kbs/v0/`.
pub(crate) struct Sent<'a> {
    method: Method,
    path: String,
    body: Vec<u8>,
    bearer: Option<&'a str>,
    cookie: Option<&'a str>,
}

impl<'a> Sent<'a> {
    pub(crate) fn new(method: Method, path: &str, body: Vec<u8>) -> Self {
        Self {
            method,
            path: format!("/kbs/v0/{path}"),
            body,
            bearer: None,
            cookie: None,
        }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new(Method::GET, path, Vec::new())
    }

    pub(crate) fn post(path: &str, body: Vec<u8>) -> Self {
        Self::new(Method::POST, path, body)
    }

    pub(crate) fn bearer(self, token: &'a str) -> Self {
        Self {
            bearer: Some(token),
            ..self
        }
    }

    pub(crate) fn cookie(self, cookie: &'a str) -> Self {
        Self {
            cookie: Some(cookie),
            ..self
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    pub(crate) cookie: Option<String>,
}

impl Answer {
    /// Status, name and detail of a refusal, the detail without its reference.
    pub(crate) fn refusal(&self) -> (u16, &str, &str) {
        let name = self.body["type"].as_str().unwrap();
        let name = name
            .strip_prefix("https://github.com/confidential-containers/kbs/errors/")
            .unwrap();
        let (detail, reference) = self.body["detail"].as_str().unwrap().rsplit_once(" (ref ").unwrap();
        assert_eq!(reference.len(), 17, "{reference}");
        (self.status.as_u16(), name, detail)
    }
}

async fn respond(client: &Client, request: Sent<'_>) -> cella_http::Response {
    try_send(client, request).await.unwrap()
}

pub(crate) async fn try_send(
    client: &Client,
    request: Sent<'_>,
) -> Result<cella_http::Response, cella_http::HttpError> {
    let mut headers = HeaderMap::new();
    if let Some(token) = request.bearer {
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
    }
    if let Some(cookie) = request.cookie {
        headers.insert(
            COOKIE,
            HeaderValue::try_from(format!("kbs-session-id={cookie}")).unwrap(),
        );
    }
    client
        .send(request.method, &request.path, headers, Bytes::from(request.body))
        .await
}

pub(crate) async fn send(client: &Client, request: Sent<'_>) -> Answer {
    let response = respond(client, request).await;
    let (status, headers) = (response.status, response.headers.clone());
    assert_eq!(headers["cache-control"], "no-store");
    let cookie = headers.get(SET_COOKIE).map(|value| {
        let value = value.to_str().unwrap().strip_prefix("kbs-session-id=").unwrap();
        value.split(';').next().unwrap().to_owned()
    });
    let body = response.bytes(1 << 20).await.unwrap();
    let body = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).unwrap()
    };
    Answer { status, body, cookie }
}
