//! Parts of blobs read straight into memory: of Docker's registry, and of servers that lie, redirect, and end when they like.
#![allow(clippy::unwrap_used, clippy::panic)]
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cella_oci::{Digest, RegistryError};

mod support;
use support::{DockerRegistry, NastyRegistry, answer};

const BODY: &str = "0123456789";
const PARTIAL: &str = "206 Partial Content";
const RANGE: &str = "Content-Range: bytes 2-5/10";

fn digest() -> Digest {
    Digest::of(BODY.as_bytes())
}

/// Bytes 2 to 6, or the first error on the way to them.
async fn read(registry: &NastyRegistry) -> Result<[u8; 4], RegistryError> {
    let mut bytes = [0; 4];
    let mut reader = registry.client.blob_reader("a", &digest(), 2..6).await?;
    assert_eq!(reader.offset(), 2);
    // In two pieces, as body and tag are.
    let (first, second) = bytes.split_at_mut(3);
    reader.read_exact(first).await?;
    reader.read_exact(second).await?;
    assert_eq!(reader.offset(), 6);
    Ok(bytes)
}

/// What comes of it when the server says this, whole.
async fn saying(text: impl Into<String>) -> Result<[u8; 4], RegistryError> {
    let text = text.into();
    let registry = NastyRegistry::start(move |head, _| {
        assert!(head.contains("range: bytes=2-5\r\n"), "{head}");
        text.clone()
    })
    .await;
    read(&registry).await
}

#[tokio::test]
async fn every_byte_is_in_its_place_and_nothing_behind_the_range_is_given() {
    let registry = DockerRegistry::start().await;
    let content: Vec<u8> = (0..3_000_000u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let digest = registry.client.push_blob("a", content.clone().into()).await.unwrap();
    for range in [0..3_000_000, 0..1, 2_999_999..3_000_000, 40..1_048_576] {
        let bytes = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let mut reader = registry.client.blob_reader("a", &digest, range.clone()).await.unwrap();
        let mut memory = vec![0; bytes.len()];
        for piece in memory.chunks_mut(700_001) {
            reader.read_exact(piece).await.unwrap();
        }
        assert!(memory == content[bytes], "{range:?}");
        let error = reader.read_exact(&mut [0]).await.unwrap_err();
        assert!(
            matches!(error, RegistryError::Truncated { offset, .. } if offset == range.end),
            "{error}"
        );
        reader.read_exact(&mut []).await.unwrap();
    }
    for range in [3_000_000..3_000_001, 4_000_000..4_000_001] {
        let error = registry.client.blob_reader("a", &digest, range).await.err().unwrap();
        assert!(matches!(error, RegistryError::Status { status: 416, .. }), "{error}");
    }
    let range = 2_999_999..3_000_001;
    let error = registry.client.blob_reader("a", &digest, range).await.err().unwrap();
    assert!(
        matches!(error, RegistryError::ContentRange { status: 206, .. }),
        "{error}"
    );
    let error = registry.client.blob_reader("a", &digest, 5..5).await.err().unwrap();
    assert!(matches!(error, RegistryError::EmptyRange { .. }), "{error}");
    let nothing = Digest::of(b"nothing");
    let error = registry.client.blob_reader("a", &nothing, 0..1).await.err().unwrap();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn only_the_range_that_was_asked_for() {
    assert_eq!(saying(answer(PARTIAL, &[RANGE], "2345")).await.unwrap(), *b"2345");
    for range in [
        "Content-Range: bytes 0-3/10",
        "Content-Range: bytes 2-4/10",
        "Content-Range: bytes 2-6/10",
        "Content-Range: bytes 2-5/5",
        "Content-Range: lines 2-5/10",
        "Other: 1",
    ] {
        let error = saying(answer(PARTIAL, &[range], "2345")).await.unwrap_err();
        assert!(
            matches!(error, RegistryError::ContentRange { status: 206, .. }),
            "{range}: {error}"
        );
    }
    for (status, headers, code) in [("200 OK", &[][..], 200), ("204 No Content", &[RANGE][..], 204)] {
        let error = saying(answer(status, headers, BODY)).await.unwrap_err();
        assert!(
            matches!(error, RegistryError::ContentRange { status, .. } if status == code),
            "{error}"
        );
    }
    for (body, length) in [("234", 3), ("23456", 5)] {
        let error = saying(answer(PARTIAL, &[RANGE], body)).await.unwrap_err();
        assert!(
            matches!(error, RegistryError::Length { expected: 4, found, .. } if found == length),
            "{error}"
        );
    }
}

#[tokio::test]
async fn bodies_without_a_length_come_through_buffers_and_must_have_the_right_one() {
    let head = |framing: &str| format!("HTTP/1.1 {PARTIAL}\r\n{RANGE}\r\n{framing}Connection: close\r\n\r\n");
    let chunked = |bodies: &[&str]| {
        let bodies: String = bodies
            .iter()
            .map(|body| format!("{:x}\r\n{body}\r\n", body.len()))
            .collect();
        head("Transfer-Encoding: chunked\r\n") + &bodies + "0\r\n\r\n"
    };
    for text in [chunked(&["2345"]), chunked(&["2", "34", "5"]), head("") + "2345"] {
        assert_eq!(saying(text).await.unwrap(), *b"2345");
    }
    for text in [chunked(&["234"]), chunked(&["2", "34"]), head("") + "234"] {
        let error = saying(text).await.unwrap_err();
        assert!(
            matches!(
                error,
                RegistryError::Truncated {
                    offset: 5,
                    expected: 6,
                    ..
                }
            ),
            "{error}"
        );
    }
    for text in [chunked(&["23456"]), chunked(&["2345", "6"]), head("") + "23456"] {
        let error = saying(text).await.unwrap_err();
        assert!(matches!(error, RegistryError::Overlong { expected: 6, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_names_blob_and_offset() {
    let text = format!("HTTP/1.1 {PARTIAL}\r\n{RANGE}\r\nContent-Length: 4\r\n\r\n23");
    let error = saying(text).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Interrupted { blob, offset: 4, .. } if blob == digest()),
        "{error}"
    );
    assert!(error.is_transient());
}

#[tokio::test]
async fn redirects_stay_at_the_origin_and_end() {
    let registry = NastyRegistry::start(|head, port| {
        assert!(head.contains("range: bytes=2-5\r\n"), "{head}");
        match head.split(' ').nth(1) {
            Some("/second") => {
                let location = format!("Location: http://127.0.0.1:{port}/third?x=1");
                answer("302 Found", &[&location], "go on")
            }
            Some("/third?x=1") => answer(PARTIAL, &[RANGE], "2345"),
            _ => "HTTP/1.1 307 Temporary Redirect\r\nLocation: /second\r\n\r\n".to_owned(),
        }
    })
    .await;
    assert_eq!(read(&registry).await.unwrap(), *b"2345");
    let redirect = |location| saying(answer("307 Temporary Redirect", &[location], ""));
    let error = redirect("Location: https://cdn.example/blob?token=secret")
        .await
        .unwrap_err();
    assert!(matches!(&error, RegistryError::Elsewhere { target, .. } if target == "https://cdn.example"));
    let error = redirect("Location: /loop").await.unwrap_err();
    assert!(matches!(error, RegistryError::TooManyRedirects { .. }), "{error}");
    let error = redirect("Other: 1").await.unwrap_err();
    assert!(matches!(error, RegistryError::NoLocation { .. }), "{error}");
}

#[tokio::test]
async fn refusals_are_told_apart_whatever_their_length() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let error = saying(answer(status, &[], "")).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    }
    let error = saying(answer("404 Not Found", &[], "")).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
    let refusal = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"<b>"}]}"#;
    let unmeasured = format!("HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\n\r\n{refusal}");
    for text in [answer("429 Too Many Requests", &[], refusal), unmeasured] {
        let error = saying(text).await.unwrap_err();
        let RegistryError::Status {
            status: 429,
            code: Some(code),
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(code.as_str(), "TOOMANYREQUESTS");
    }
    for text in [
        answer("500 Internal Server Error", &[], "<html>"),
        answer("500 Internal Server Error", &[], &"x".repeat(100_000)),
        "HTTP/1.1 500 x\r\nContent-Length: 10\r\n\r\n{".to_owned(),
    ] {
        let error = saying(text).await.unwrap_err();
        assert!(
            matches!(
                error,
                RegistryError::Status {
                    status: 500,
                    code: None,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_answer_of_known_length_is_asked_for_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let registry = NastyRegistry::start(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        answer(PARTIAL, &[RANGE], "2345")
    })
    .await;
    read(&registry).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
