//! Blobs that are sent before their digest is known: to a real registry, and to servers that answer otherwise.
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use cella_oci::{Digest, RegistryError};
use tokio::io::{AsyncRead, ReadBuf};

mod support;
use support::{DockerRegistry, NastyRegistry, answer, descriptor};

const REPOSITORY: &str = "models/tuned";

fn pattern(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

#[tokio::test]
async fn what_was_sent_becomes_a_blob_by_its_digest() {
    let registry = DockerRegistry::start().await;
    let client = &registry.client;
    client.check_push(REPOSITORY).await.unwrap();
    for length in [1, 56, 3_000_000] {
        let bytes = pattern(length);
        let blob = descriptor(&bytes);
        let sent = client
            .send_blob(REPOSITORY, blob.size, io::Cursor::new(bytes.clone()))
            .await
            .unwrap();
        assert!(
            !client.blob_exists(REPOSITORY, &blob.digest).await.unwrap(),
            "too early"
        );
        client.finish_blob(REPOSITORY, sent, &blob.digest).await.unwrap();
        assert_eq!(client.blob(REPOSITORY, &blob, 4_000_000).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn another_digest_is_refused() {
    let registry = DockerRegistry::start().await;
    let sent = registry.client.send_blob(REPOSITORY, 3, &b"abc"[..]).await.unwrap();
    let refused = registry.client.finish_blob(REPOSITORY, sent, &Digest::of(b"abd")).await;
    assert!(
        matches!(&refused, Err(RegistryError::Status { status: 400, .. })),
        "{refused:?}"
    );
}

/// A reader that fails in the middle.
struct Fails(usize);

impl AsyncRead for Fails {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0 == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let take = self.0.min(buf.remaining());
        buf.initialize_unfilled_to(take).fill(7);
        buf.advance(take);
        self.0 -= take;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_reader_that_fails_leaves_no_blob() {
    let registry = DockerRegistry::start().await;
    let sent = registry.client.send_blob(REPOSITORY, 2_000_000, Fails(1_000_000)).await;
    assert!(matches!(sent, Err(RegistryError::Http { .. })), "{sent:?}");
    let short = registry.client.send_blob(REPOSITORY, 10, &b"abc"[..]).await;
    assert!(matches!(short, Err(RegistryError::Http { .. })), "{short:?}");
    registry.client.check_push(REPOSITORY).await.unwrap();
}

#[tokio::test]
async fn refusals_are_told_apart() {
    for (status, is_right) in [
        (
            "401 Unauthorized",
            (|error| matches!(error, RegistryError::Unauthorized { .. })) as fn(&RegistryError) -> bool,
        ),
        ("405 Method Not Allowed", |error| {
            matches!(error, RegistryError::Status { status: 405, .. })
        }),
        ("201 Created", |error| {
            matches!(error, RegistryError::Status { status: 201, .. })
        }),
    ] {
        let registry = NastyRegistry::start(move |_, _| answer(status, &[], "")).await;
        let error = registry.client.check_push(REPOSITORY).await.unwrap_err();
        assert!(is_right(&error), "{status}: {error}");
        let error = registry.client.send_blob(REPOSITORY, 3, &b"abc"[..]).await.unwrap_err();
        assert!(is_right(&error), "{status}: {error}");
    }
    let elsewhere = NastyRegistry::start(|_, _| answer("202 Accepted", &["Location: http://127.0.0.2/x"], "")).await;
    let error = elsewhere
        .client
        .send_blob(REPOSITORY, 3, &b"abc"[..])
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Elsewhere { .. }), "{error}");
    let nowhere = NastyRegistry::start(|_, _| answer("202 Accepted", &[], "")).await;
    let error = nowhere.client.check_push(REPOSITORY).await.unwrap_err();
    assert!(matches!(error, RegistryError::NoLocation { .. }), "{error}");
}
