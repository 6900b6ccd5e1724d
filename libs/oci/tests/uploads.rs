//! Uploads in chunks: against the registry that Debian ships, and against answers that no registry should give.
use bytes::Bytes;
use cella_oci::{Digest, RegistryError};

mod support;
use support::{DockerRegistry, NastyRegistry, answer, descriptor};

const REPOSITORY: &str = "demo/model";

#[tokio::test]
async fn chunks_become_a_blob_and_an_upload_goes_on_where_it_was_left() {
    let mut registry = DockerRegistry::start().await;
    let client = &registry.client;
    let blob: Vec<u8> = (0..251).cycle().take(3_000_000).collect();
    let digest = Digest::of(&blob);
    let mut upload = client.start_upload(REPOSITORY).await.unwrap();
    assert_eq!(upload.offset(), 0);
    let chunk = |range: std::ops::Range<usize>| Bytes::copy_from_slice(&blob[range]);
    client
        .append(REPOSITORY, &mut upload, chunk(0..1_000_000))
        .await
        .unwrap();
    // All that another run knows is the place.
    let place = upload.place().to_owned();
    let mut upload = client.upload_status(REPOSITORY, &place).await.unwrap().unwrap();
    assert_eq!(upload.offset(), 1_000_000);
    client
        .append(REPOSITORY, &mut upload, chunk(1_000_000..3_000_000))
        .await
        .unwrap();
    assert!(!client.blob_exists(REPOSITORY, &digest).await.unwrap());
    client.finish_upload(REPOSITORY, upload.clone(), &digest).await.unwrap();
    let pulled = client.blob(REPOSITORY, &descriptor(&blob), 4_000_000).await.unwrap();
    assert!(pulled == blob);
    // An upload that ended is forgotten.
    assert_eq!(client.upload_status(REPOSITORY, upload.place()).await.unwrap(), None);
    registry.stop().await;
}

#[tokio::test]
async fn other_bytes_are_not_taken_for_the_blob() {
    let mut registry = DockerRegistry::start().await;
    let client = &registry.client;
    let mut upload = client.start_upload(REPOSITORY).await.unwrap();
    client
        .append(REPOSITORY, &mut upload, Bytes::from_static(b"abc"))
        .await
        .unwrap();
    let error = client
        .finish_upload(REPOSITORY, upload, &Digest::of(b"abd"))
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 400, .. }), "{error}");
    registry.stop().await;
}

#[tokio::test]
async fn odd_answers_are_refused() {
    for (status, headers) in [
        ("202 Accepted", &["Location: /v2/x", "Range: 0-5"][..]),
        ("202 Accepted", &["Location: /v2/x", "Range: 1-2"]),
        ("202 Accepted", &["Location: /v2/x", "Range: 0-18446744073709551615"]),
        ("202 Accepted", &["Location: /v2/x", "Range: 0-+2"]),
        ("202 Accepted", &["Location: http://evil.example/x", "Range: 0-2"]),
        ("202 Accepted", &["Range: 0-2"]),
        ("500 Internal Server Error", &[]),
    ] {
        let registry = NastyRegistry::start(move |head, _| {
            if head.starts_with("POST") {
                answer("202 Accepted", &["Location: /v2/demo/model/blobs/uploads/1"], "")
            } else {
                answer(status, headers, "")
            }
        })
        .await;
        let client = &registry.client;
        let mut upload = client.start_upload(REPOSITORY).await.unwrap();
        let error = client
            .append(REPOSITORY, &mut upload, Bytes::from_static(b"abc"))
            .await
            .unwrap_err();
        assert_eq!(error.is_transient(), status.starts_with('5'), "{headers:?}: {error}");
        assert_eq!(upload.offset(), 0);
        for place in ["//evil.example/x", "http://evil.example/", "x"] {
            let refused = client.upload_status(REPOSITORY, place).await;
            assert!(matches!(refused, Err(RegistryError::UploadPlace { .. })), "{place}");
        }
    }
}
