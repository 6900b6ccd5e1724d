//! The client against servers on loopback that behave, and that do not.
#![allow(clippy::unwrap_used, clippy::panic)]
mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use cella_http::{BuildError, Client, ClientConfig, HttpError, Origin, RequestBody, Response, Step, TlsRoots};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response as Answer};
use support::{Authority, Server, read_head};
use tokio::io::AsyncWriteExt;

const SHORT: Duration = Duration::from_millis(200);

fn origin(server: &Server, scheme: &str) -> Origin {
    format!("{scheme}://127.0.0.1:{}", server.address.port())
        .parse()
        .unwrap()
}

fn plain(server: &Server) -> Client {
    let config = ClientConfig {
        read_timeout: SHORT,
        ..ClientConfig::default()
    };
    Client::new(origin(server, "http"), None, config).unwrap()
}

fn secure(server: &Server, authority: &Authority) -> Client {
    let roots = TlsRoots::from_pem(&authority.pem()).unwrap();
    Client::new(origin(server, "https"), Some(roots), ClientConfig::default()).unwrap()
}

async fn get(client: &Client, path: &str) -> Result<Response, HttpError> {
    client.send(Method::GET, path, HeaderMap::new(), Bytes::new()).await
}

/// What reading a whole answer gives: the error of the head or of the body.
async fn get_all(client: &Client) -> Result<Bytes, HttpError> {
    get(client, "/").await?.bytes(1 << 20).await
}

async fn echo(request: Request<Incoming>) -> Answer<Full<Bytes>> {
    let line = format!("{} {} ", request.method(), request.uri());
    let length = request
        .headers()
        .get("content-length")
        .map_or("-".to_owned(), |v| v.to_str().unwrap().to_owned());
    let host = request.headers().get("host").unwrap().to_str().unwrap().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut text = format!("{line}{host} {length} ").into_bytes();
    text.extend_from_slice(&body);
    Answer::new(Full::new(text.into()))
}

#[tokio::test]
async fn sequential_requests_share_a_connection() {
    let authority = Authority::new();
    let server = Server::hyper(Some(authority.acceptor(&["127.0.0.1"])), echo).await;
    let client = secure(&server, &authority);
    for n in 0..5 {
        let path = format!("/v2/?n={n}");
        let body = get(&client, &path).await.unwrap().bytes(1000).await.unwrap();
        assert_eq!(body, format!("GET {path} {} - ", client.origin().authority()));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn concurrent_requests_open_connections_and_keep_at_most_eight() {
    let server = Server::hyper(None, echo).await;
    let client = plain(&server);
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(get(&client, "/").await.unwrap());
    }
    assert_eq!(server.connections(), 10);
    for answer in answers {
        answer.bytes(1000).await.unwrap();
    }
    let mut answers = Vec::new();
    for _ in 0..9 {
        answers.push(get(&client, "/").await.unwrap());
    }
    assert_eq!(server.connections(), 11, "eight were kept, one was opened");
}

#[tokio::test]
async fn an_unread_answer_gives_its_connection_up() {
    let server = Server::hyper(None, echo).await;
    let client = plain(&server);
    drop(get(&client, "/").await.unwrap());
    get_all(&client).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn bodies_of_both_kinds_arrive_with_their_length() {
    let server = Server::hyper(None, echo).await;
    let client = plain(&server);
    let send = |body: RequestBody| client.send_body(Method::PUT, "/b", HeaderMap::new(), body);
    let host = client.origin().authority();
    let body = send(Bytes::from_static(b"abc").into())
        .await
        .unwrap()
        .bytes(100)
        .await
        .unwrap();
    assert_eq!(body, format!("PUT /b {host} 3 abc"));
    let body = send(Bytes::new().into()).await.unwrap().bytes(100).await.unwrap();
    assert_eq!(body, format!("PUT /b {host} 0 "));
    let large = RequestBody::from_reader(tokio::io::repeat(b'x'), 300_000);
    let body = send(large).await.unwrap().bytes(400_000).await.unwrap();
    assert_eq!(body.len(), format!("PUT /b {host} 300000 ").len() + 300_000);
    let short = RequestBody::from_reader(&b"abc"[..], 4);
    assert!(matches!(send(short).await, Err(HttpError::RequestBody { .. })));
}

#[tokio::test]
async fn a_head_answer_has_a_length_and_no_body() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n").await;
    let answer = plain(&server)
        .send(Method::HEAD, "/", HeaderMap::new(), Bytes::new())
        .await
        .unwrap();
    assert_eq!(answer.content_length(), Some(5000));
    assert!(answer.bytes(10_000).await.unwrap().is_empty());
}

#[tokio::test]
async fn redirects_and_refusals_are_answers() {
    let server =
        Server::saying("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n");
    let server = server.await;
    let answer = get(&plain(&server), "/").await.unwrap();
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(answer.headers["location"], "http://evil/");
    let server = Server::saying("HTTP/1.1 401 x\r\nContent-Length: 2\r\n\r\nno").await;
    assert_eq!(
        get(&plain(&server), "/").await.unwrap().status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn another_authority_or_name_is_refused() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = Server::hyper(Some(other.acceptor(&["127.0.0.1"])), echo).await;
    assert!(matches!(
        get(&secure(&server, &ours), "/").await,
        Err(HttpError::Tls { .. })
    ));
    let server = Server::hyper(Some(ours.acceptor(&["10.0.2.2", "kbs.example"])), echo).await;
    assert!(matches!(
        get(&secure(&server, &ours), "/").await,
        Err(HttpError::Tls { .. })
    ));
    let server = Server::hyper(None, echo).await;
    assert!(
        matches!(get(&secure(&server, &ours), "/").await, Err(HttpError::Tls { .. })),
        "no TLS at all"
    );
}

#[tokio::test]
async fn https_needs_roots() {
    let origin: Origin = "https://10.0.2.2:8443".parse().unwrap();
    let result = Client::new(origin, None, ClientConfig::default());
    assert!(matches!(result, Err(BuildError::NoRoots { .. })));
}

#[tokio::test]
async fn nobody_there() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin: Origin = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let client = Client::new(origin, None, ClientConfig::default()).unwrap();
    match get(&client, "/").await {
        Err(HttpError::Connect { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_handshake_that_hangs_times_out() {
    let authority = Authority::new();
    let server = Server::accept(|tcp| async move {
        let _open = tcp;
        std::future::pending().await
    })
    .await;
    let config = ClientConfig {
        connect_timeout: SHORT,
        ..ClientConfig::default()
    };
    let roots = TlsRoots::from_pem(&authority.pem()).unwrap();
    let client = Client::new(origin(&server, "https"), Some(roots), config).unwrap();
    assert!(matches!(
        get(&client, "/").await,
        Err(HttpError::Timeout {
            what: Step::Connect,
            after: SHORT,
            ..
        })
    ));
}

#[tokio::test]
async fn silence_before_and_within_an_answer_times_out() {
    for (said, step) in [
        ("", Step::Head),
        ("HTTP/1.1 200 OK\r\n", Step::Head),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", Step::Body),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
            Step::Body,
        ),
    ] {
        let server = Server::accept(move |mut tcp| async move {
            read_head(&mut tcp).await;
            tcp.write_all(said.as_bytes()).await.unwrap();
            std::future::pending().await
        })
        .await;
        let started = Instant::now();
        match get_all(&plain(&server)).await {
            Err(HttpError::Timeout { what, after: SHORT, .. }) => assert_eq!(what, step, "{said:?}"),
            other => panic!("{said:?}: {other:?}"),
        }
        assert!(started.elapsed() >= SHORT);
    }
}

#[tokio::test]
async fn a_slow_but_steady_answer_is_no_timeout() {
    let server = Server::accept(|mut tcp| async move {
        read_head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
            .await
            .unwrap();
        for _ in 0..8 {
            tokio::time::sleep(SHORT / 4).await;
            tcp.write_all(b"x").await.unwrap();
        }
    })
    .await;
    assert_eq!(get_all(&plain(&server)).await.unwrap(), "xxxxxxxx");
}

#[tokio::test]
async fn a_server_that_closes_midway_is_an_error() {
    for said in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    ] {
        let server = Server::saying(said).await;
        let result = get_all(&plain(&server)).await;
        assert!(matches!(result, Err(HttpError::Closed { .. })), "{said:?}: {result:?}");
    }
}

#[tokio::test]
async fn garbage_is_an_error() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101));
    for said in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "\0\0\0\0\0\0\0\0",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        &many,
    ] {
        let server = Server::saying(said).await;
        let result = get_all(&plain(&server)).await;
        assert!(
            matches!(result, Err(HttpError::Protocol { .. } | HttpError::HeadTooLarge { .. })),
            "{said:?}: {result:?}"
        );
    }
    let server = Server::saying(long).await;
    let result = get_all(&plain(&server)).await;
    assert!(
        matches!(result, Err(HttpError::HeadTooLarge { limit: 65536, .. })),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    for said in [
        "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n12345678901",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551613\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n5\r\n12345\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n12345678901",
    ] {
        let server = Server::saying(said).await;
        let answer = get(&plain(&server), "/").await.unwrap();
        assert!(
            matches!(answer.bytes(10).await, Err(HttpError::TooLarge { limit: 10, .. })),
            "{said:?}"
        );
    }
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1234567890").await;
    assert_eq!(
        get(&plain(&server), "/").await.unwrap().bytes(10).await.unwrap(),
        "1234567890"
    );
}

#[tokio::test]
async fn chunks_stream_and_the_connection_is_reused_after_the_last() {
    let server = Server::hyper(None, |_| async { Answer::new(Full::new(vec![9; 1_000_000].into())) }).await;
    let client = plain(&server);
    for _ in 0..2 {
        let mut answer = get(&client, "/").await.unwrap();
        let (mut length, mut chunks) = (0, 0);
        while let Some(chunk) = answer.chunk().await.unwrap() {
            length += chunk.len();
            chunks += 1;
        }
        assert_eq!(length, 1_000_000);
        assert!(chunks > 1);
        assert!(answer.chunk().await.unwrap().is_none(), "the end stays the end");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced() {
    let server = Server::accept(|mut tcp| async move {
        read_head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .unwrap();
        // Taken for the next request, and then dropped without an answer.
        read_head(&mut tcp).await;
    })
    .await;
    let client = plain(&server);
    assert_eq!(get_all(&client).await.unwrap(), "ok");
    assert_eq!(get_all(&client).await.unwrap(), "ok");
    assert_eq!(server.connections(), 2);
    let post = client
        .send(Method::POST, "/", HeaderMap::new(), Bytes::from_static(b"x"))
        .await;
    assert!(
        matches!(post, Err(HttpError::Closed { .. })),
        "a POST may have been acted upon: {post:?}"
    );
}

#[tokio::test]
async fn requests_that_are_none_are_refused_before_connecting() {
    let server = Server::hyper(None, echo).await;
    let client = plain(&server);
    for path in ["", "v2", "http://other/", "/a b", "/a\r\nX: y"] {
        assert!(
            matches!(get(&client, path).await, Err(HttpError::Request { .. })),
            "{path:?}"
        );
    }
    for name in ["content-length", "transfer-encoding", "connection"] {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static("1"))]);
        let result = client.send(Method::GET, "/", headers, Bytes::new()).await;
        assert!(matches!(result, Err(HttpError::Request { .. })), "{name}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn errors_do_not_repeat_what_the_server_said() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nX-Secret\r\n\r\nsecret").await;
    let mut error: &dyn std::error::Error = &get_all(&plain(&server)).await.unwrap_err();
    loop {
        assert!(!error.to_string().to_lowercase().contains("secret"), "{error}");
        match error.source() {
            Some(source) => error = source,
            None => break,
        }
    }
}
