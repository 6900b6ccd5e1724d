//! Bytes that no client sends, and clients that take their time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fixture::{Fixture, Sent};
use crate::guest::Guest;

const PATIENCE: Duration = Duration::from_secs(20);

/// A TLS connection to write anything on.
async fn connect(fixture: &Fixture) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(fixture.folder().join("ca.pem")).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(fixture.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

/// Writes, then reads until the broker closes.
async fn exchange(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the broker closes the connection");
    // It may close without TLS's goodbye.
    drop(end);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads from a plain socket until the broker closes it.
async fn closed(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    drop(
        timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("the broker closes the connection"),
    );
    answer
}

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn garbage_at_every_endpoint() {
    let fixture = Fixture::new().await;
    let token = fixture.admin_token();
    let deep = "[".repeat(200_000).into_bytes();
    let garbage: [&[u8]; 7] = [
        b"",
        b"{",
        b"null",
        b"\xff\xfe\x00",
        b"{\"version\":",
        b"\"\\ud800\"",
        &deep[..60_000],
    ];
    for body in garbage {
        let auth = fixture.send(Sent::post("auth", body.to_vec())).await;
        assert_eq!(auth.refusal().0, 401);
        assert!(auth.refusal().2.starts_with("request: not valid at line "), "{auth:?}");
        let (cookie, _) = fixture.challenge().await;
        let attest = fixture.send(Sent::post("attest", body.to_vec()).cookie(&cookie)).await;
        assert!(
            attest.refusal().2.starts_with("the attestation is not valid at line "),
            "{attest:?}"
        );
        let rule = fixture
            .send(Sent::post("cella-rule/a/b/c", body.to_vec()).bearer(&token))
            .await;
        assert!(rule.refusal().2.starts_with("not a rule: "), "{rule:?}");
    }
    let (cookie, _) = fixture.challenge().await;
    let attest = fixture.send(Sent::post("attest", deep).cookie(&cookie)).await;
    assert_eq!(attest.refusal().1, "AttestationError");
}

#[tokio::test]
async fn bodies_are_bounded_whether_announced_or_not() {
    let fixture = Fixture::new().await;
    for (path, limit) in [("auth", 64 * 1024), ("attest", 2 << 20)] {
        // Announced: refused before a byte of it is read.
        let head = format!(
            "POST /kbs/v0/{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            limit + 1
        );
        let answer = exchange(&mut connect(&fixture).await, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(
            answer.contains(&format!("the body is larger than {limit} bytes")),
            "{answer}"
        );
        let huge = head.replace(&(limit + 1).to_string(), &u64::MAX.to_string());
        let answer = exchange(&mut connect(&fixture).await, huge.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");

        // In chunks: refused at the first one too many.
        let mut body = format!("POST /kbs/v0/{path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = format!("8000\r\n{}\r\n", " ".repeat(0x8000));
        for _ in 0..limit / 0x8000 {
            body.push_str(&chunk);
        }
        body.push_str("1\r\n");
        let mut stream = connect(&fixture).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        let answer = exchange(&mut stream, b" ").await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}

#[tokio::test]
async fn a_body_of_the_largest_size_is_read() {
    let fixture = Fixture::new().await;
    let (cookie, _) = fixture.challenge().await;
    let full = fixture
        .send(Sent::post("attest", vec![b' '; 2 << 20]).cookie(&cookie))
        .await;
    assert!(
        full.refusal().2.starts_with("the attestation is not valid at line 1"),
        "{full:?}"
    );
}

#[tokio::test]
async fn an_unauthenticated_body_is_not_read() {
    let fixture = Fixture::new().await;
    let head = "POST /kbs/v0/resource/a/b/c HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n";
    let answer = exchange(&mut connect(&fixture).await, head.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.contains("admin token missing"),
        "{answer}"
    );
}

#[tokio::test]
async fn paths_and_methods() {
    let fixture = Fixture::new().await;
    let refusal = async |method: Method, path: &str| {
        let answer = fixture.send(Sent::new(method, path, Vec::new())).await;
        let (status, name, _) = answer.refusal();
        (status, name.to_owned())
    };
    let (none, name) = (
        (404, "InvalidRequestPath".to_owned()),
        (405, "InvalidRequest".to_owned()),
    );
    assert_eq!(refusal(Method::GET, "attestation-policy").await, none);
    assert_eq!(refusal(Method::POST, "resource-policy").await, none);
    assert_eq!(refusal(Method::GET, "resource/a/b").await, none);
    assert_eq!(refusal(Method::GET, "resource/a/../c").await, none);
    assert_eq!(refusal(Method::GET, "resource/a/%2e%2e/c").await, none);
    assert_eq!(refusal(Method::GET, "auth").await, name);
    assert_eq!(refusal(Method::PUT, "resource/a/b/c").await, name);
    let health = fixture
        .client()
        .send(Method::GET, "/healthz", http::HeaderMap::new(), bytes::Bytes::new())
        .await;
    assert_eq!(health.unwrap().status, 200);
}

#[tokio::test]
async fn large_headers_and_what_is_not_http() {
    let fixture = Fixture::new().await;
    let large = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    let answer = exchange(&mut connect(&fixture).await, large.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(100));
    let answer = exchange(&mut connect(&fixture).await, many.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let answer = exchange(&mut connect(&fixture).await, b"\x16\x03\x01 this is not HTTP\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // Without TLS there is nothing.
    let plain = closed(fixture.address(), b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!plain.starts_with(b"HTTP"), "{plain:?}");
    fixture.challenge().await;
}

#[tokio::test]
async fn whoever_stalls_in_the_handshake_is_closed() {
    let fixture = Fixture::with(|config| config.deadlines.handshake = SHORT).await;
    assert!(closed(fixture.address(), b"").await.is_empty());
}

#[tokio::test]
async fn whoever_stalls_in_the_headers_is_closed() {
    let fixture = Fixture::with(|config| config.deadlines.headers = SHORT).await;
    assert_eq!(exchange(&mut connect(&fixture).await, b"").await, "");
    let answer = exchange(&mut connect(&fixture).await, b"GET /healthz HTTP/1.1\r\nhost").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn whoever_stalls_in_the_body_is_told_and_closed() {
    let fixture = Fixture::with(|config| config.deadlines.body = SHORT).await;
    let head = b"POST /kbs/v0/auth HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    let answer = exchange(&mut connect(&fixture).await, head).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("did not arrive in time"),
        "{answer}"
    );
}

#[tokio::test]
async fn connections_end() {
    let fixture = Fixture::with(|config| config.deadlines.connection = Duration::from_secs(2)).await;
    let mut stream = connect(&fixture).await;
    let answer = exchange(&mut stream, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn connections_are_bounded() {
    let fixture = Fixture::with(|config| config.limits.connections = 1).await;
    let held = connect(&fixture).await;
    let second = tokio::spawn({
        let client = fixture.client();
        async move {
            client
                .send(Method::GET, "/healthz", http::HeaderMap::new(), bytes::Bytes::new())
                .await
        }
    });
    // The second connection is served when the first one is gone, and not before.
    let early = timeout(Duration::from_millis(300), async {
        while !second.is_finished() {
            tokio::task::yield_now().await;
        }
    });
    assert!(early.await.is_err());
    drop(held);
    assert_eq!(timeout(PATIENCE, second).await.unwrap().unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_full_store_forgets_the_oldest_challenge() {
    let fixture = Fixture::with(|config| config.limits.sessions = 2).await;
    let guest = Guest::new();
    let (first, first_nonce) = fixture.challenge().await;
    let (second, second_nonce) = fixture.challenge().await;
    fixture.challenge().await;
    let gone = fixture.attest(&first, &guest.attestation(&first_nonce)).await;
    assert_eq!(gone.refusal().2, "no such session: start again with /auth");
    assert_eq!(
        fixture.attest(&second, &guest.attestation(&second_nonce)).await.status,
        200
    );
    fixture.attested(&guest).await;
    // Two have proved themselves: no room for a third until they expire.
    let (third, nonce) = fixture.challenge().await;
    let full = fixture.attest(&third, &guest.attestation(&nonce)).await;
    assert_eq!(
        full.refusal(),
        (503, "Overloaded", "too many sessions: try again later")
    );
    fixture.clock.advance(300);
    fixture.attested(&guest).await;
}

#[tokio::test]
async fn stopping_lets_an_open_request_finish() {
    let mut fixture = Fixture::new().await;
    let address = fixture.address();
    let mut stream = connect(&fixture).await;
    let body = crate::fixture::auth_body();
    let length = body.len();
    let head =
        format!("POST /kbs/v0/auth HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // The broker has begun to read the body: the request is under way when it is told to stop.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    let (answer, ()) = tokio::join!(
        async {
            // Told: nobody else gets in. Bounded, because another test's server may take the port.
            let refused = async { while TcpStream::connect(address).await.is_ok() {} };
            drop(timeout(Duration::from_secs(1), refused).await);
            exchange(&mut stream, &body).await
        },
        fixture.stop()
    );
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let json: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert!(json["nonce"].is_string());
}
