//! Bodies read straight into the caller's memory, from servers on loopback that behave, and that do not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use cella_http::{Client, ClientConfig, Download, HttpError, Step, TlsRoots};
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response as Answer};
use support::{Authority, Server, read_head};
use tokio::io::AsyncWriteExt;

const SHORT: Duration = Duration::from_millis(200);

fn plain(server: &Server) -> Client {
    let origin = format!("http://127.0.0.1:{}", server.address.port()).parse().unwrap();
    let config = ClientConfig {
        read_timeout: SHORT,
        ..ClientConfig::default()
    };
    Client::new(origin, None, config).unwrap()
}

fn secure(server: &Server, authority: &Authority) -> Client {
    let origin = format!("https://127.0.0.1:{}", server.address.port()).parse().unwrap();
    let roots = TlsRoots::from_pem(&authority.pem()).unwrap();
    Client::new(origin, Some(roots), ClientConfig::default()).unwrap()
}

async fn get(client: &Client) -> Result<Download, HttpError> {
    client.download("/", HeaderMap::new()).await
}

/// What reading a whole answer in pieces of `piece` gives: the error of the head or of the body.
async fn pieces(client: &Client, piece: usize) -> Result<Vec<u8>, HttpError> {
    let (mut download, mut whole, mut buffer) = (get(client).await?, Vec::new(), vec![0; piece]);
    loop {
        match download.read(&mut buffer).await? {
            0 => return Ok(whole),
            count => whole.extend_from_slice(&buffer[..count]),
        }
    }
}

async fn get_all(client: &Client) -> Result<Vec<u8>, HttpError> {
    pieces(client, 1000).await
}

fn content() -> Vec<u8> {
    (0..3_000_000u32).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Answers with the range that is asked for.
async fn ranges(request: Request<Incoming>) -> Answer<Full<Bytes>> {
    let asked = request.headers()[RANGE].to_str().unwrap();
    let (first, last) = asked.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let mut answer = Answer::new(Full::new(content()[first..=last].to_vec().into()));
    *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    let range = HeaderValue::try_from(format!("bytes {first}-{last}/3000000")).unwrap();
    answer.headers_mut().insert(CONTENT_RANGE, range);
    answer
}

#[tokio::test]
async fn ranges_arrive_where_they_belong_over_one_connection() {
    let authority = Authority::new();
    for tls in [false, true] {
        let acceptor = tls.then(|| authority.acceptor(&["127.0.0.1"]));
        let server = Server::hyper(acceptor, ranges).await;
        let client = if tls {
            secure(&server, &authority)
        } else {
            plain(&server)
        };
        let mut memory = vec![0; 3_000_000];
        for (at, part) in memory.chunks_mut(1_000_000).enumerate().rev() {
            let (first, last) = (at * 1_000_000, (at + 1) * 1_000_000 - 1);
            let range = HeaderValue::try_from(format!("bytes={first}-{last}")).unwrap();
            let mut download = client
                .download("/", HeaderMap::from_iter([(RANGE, range)]))
                .await
                .unwrap();
            assert_eq!(download.status, StatusCode::PARTIAL_CONTENT);
            assert_eq!(download.left(), Some(1_000_000));
            let mut have = 0;
            while have < part.len() {
                have += download.read(&mut part[have..]).await.unwrap();
                assert_eq!(download.left(), Some(1_000_000 - u64::try_from(have).unwrap()));
            }
            assert_eq!(download.read(&mut [0; 10]).await.unwrap(), 0, "the end stays the end");
        }
        assert!(memory == content());
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn the_request_has_what_it_must_and_nothing_else() {
    let server = Server::accept(|mut tcp| async move {
        let head = read_head(&mut tcp).await;
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        tcp.write_all(text.as_bytes()).await.unwrap();
    })
    .await;
    let client = plain(&server);
    let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=0-1"))]);
    let said = client.download("/v2/a?b=c", headers).await.unwrap();
    let said = said.bytes(1000).await.unwrap();
    let mut lines: Vec<_> = std::str::from_utf8(&said).unwrap().split("\r\n").collect();
    assert_eq!(lines.remove(0), "GET /v2/a?b=c HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: {}", client.origin().authority());
    let agent = concat!("user-agent: cella/", env!("CARGO_PKG_VERSION"));
    assert_eq!(lines, ["", "", &host, "range: bytes=0-1", agent]);
}

#[tokio::test]
async fn requests_that_are_none_are_refused_before_connecting() {
    let server = Server::hyper(None, ranges).await;
    let client = plain(&server);
    for path in ["", "v2", "http://other/", "/a b", "/a\r\nX: y"] {
        let result = client.download(path, HeaderMap::new()).await;
        assert!(matches!(result, Err(HttpError::Request { .. })), "{path:?}");
    }
    let name = HeaderName::from_static("connection");
    let headers = HeaderMap::from_iter([(name, HeaderValue::from_static("close"))]);
    let result = client.download("/", headers).await;
    assert!(matches!(result, Err(HttpError::Request { .. })), "{result:?}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn bodies_end_where_they_were_announced_to() {
    for (said, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345", "12345"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1234567890", "12345"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n12345", "12345"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "ok",
        ),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "no"),
        (
            "HTTP/1.1 307 There\r\nLocation: http://evil/\r\nContent-Length: 2\r\n\r\nno",
            "no",
        ),
    ] {
        let server = Server::saying(said).await;
        for piece in [1, 3, 1000] {
            assert_eq!(
                pieces(&plain(&server), piece).await.unwrap(),
                body.as_bytes(),
                "{said:?}"
            );
        }
    }
}

#[tokio::test]
async fn bodies_without_a_length_are_not_read() {
    for said in [
        "HTTP/1.1 200 OK\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
    ] {
        let server = Server::saying(said).await;
        let mut download = get(&plain(&server)).await.unwrap();
        assert_eq!((download.status, download.left()), (StatusCode::OK, None));
        let result = download.read(&mut [0; 10]).await;
        assert!(matches!(result, Err(HttpError::NoLength { .. })), "{result:?}");
        let result = download.bytes(10).await;
        assert!(matches!(result, Err(HttpError::NoLength { .. })), "{result:?}");
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    for length in ["11", "18446744073709551615"] {
        let server = Server::saying(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n1")).await;
        let result = get(&plain(&server)).await.unwrap().bytes(10).await;
        assert!(
            matches!(result, Err(HttpError::TooLarge { limit: 10, .. })),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn garbage_is_an_error() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101));
    for said in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "\0\0\0\0\0\0\0\0",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
        "HTTP/1.1 200 OK\r\nX-Secret\r\n\r\n",
        &many,
    ] {
        let server = Server::saying(said).await;
        let error = get_all(&plain(&server)).await.unwrap_err();
        assert!(matches!(error, HttpError::Protocol { .. }), "{said:?}: {error:?}");
        assert!(!format!("{error:?}").contains("Secret"));
    }
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000));
    let server = Server::saying(long).await;
    let result = get_all(&plain(&server)).await;
    assert!(
        matches!(result, Err(HttpError::HeadTooLarge { limit: 65536, .. })),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_server_that_closes_midway_is_an_error_and_stays_one() {
    for said in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let server = Server::saying(said).await;
        let result = get(&plain(&server)).await;
        assert!(matches!(result, Err(HttpError::Closed { .. })), "{said:?}: {result:?}");
    }
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345").await;
    let (mut download, mut memory) = (get(&plain(&server)).await.unwrap(), [0; 20]);
    assert_eq!(download.read(&mut memory).await.unwrap(), 5);
    for _ in 0..2 {
        let result = download.read(&mut memory).await;
        assert!(matches!(result, Err(HttpError::Closed { .. })), "{result:?}");
    }
    assert_eq!(download.left(), Some(5));
}

#[tokio::test]
async fn silence_times_out_and_slowness_does_not() {
    for (said, step) in [
        ("", Step::Head),
        ("HTTP/1.1 200 OK\r\n", Step::Head),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", Step::Body),
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
    let server = Server::accept(|mut tcp| async move {
        read_head(&mut tcp).await;
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nxxxxxxxx" {
            tokio::time::sleep(SHORT / 16).await;
            tcp.write_all(&[*byte]).await.unwrap();
        }
    })
    .await;
    assert_eq!(get_all(&plain(&server)).await.unwrap(), b"xxxxxxxx");
}

#[tokio::test]
async fn connections_are_kept_only_behind_a_whole_body_of_a_server_that_keeps_them() {
    for (said, connections) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", 3),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 3),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 3),
    ] {
        let server = Server::accept(move |mut tcp| async move {
            while !read_head(&mut tcp).await.is_empty() {
                tcp.write_all(said.as_bytes()).await.unwrap();
            }
        })
        .await;
        let client = plain(&server);
        for _ in 0..3 {
            assert_eq!(get_all(&client).await.unwrap(), b"ok");
        }
        assert_eq!(server.connections(), connections, "{said:?}");
        // What is not read to its end is closed.
        drop(get(&client).await.unwrap().read(&mut [0]).await);
        get_all(&client).await.unwrap();
        let more = if connections == 1 { 1 } else { 2 };
        assert_eq!(server.connections(), connections + more, "{said:?}");
    }
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
    for connections in 1..4 {
        assert_eq!(get_all(&client).await.unwrap(), b"ok");
        assert_eq!(server.connections(), connections);
    }
}

#[tokio::test]
async fn another_authority_is_refused() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = Server::hyper(Some(other.acceptor(&["127.0.0.1"])), ranges).await;
    let result = get(&secure(&server, &ours)).await;
    assert!(matches!(result, Err(HttpError::Tls { .. })), "{result:?}");
}
