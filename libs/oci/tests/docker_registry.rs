//! Against the registry that Debian ships: what it keeps, what it lost, and what somebody changed on its disk.
use bytes::Bytes;
use cella_oci::{Manifest, RegistryError, Verifier, media_type};

mod support;
use support::{DockerRegistry, descriptor};

const REPOSITORY: &str = "demo/model";

fn pattern(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

#[tokio::test]
async fn pushes_and_pulls_by_digest() {
    let mut registry = DockerRegistry::start().await;
    let client = &registry.client;
    let (config, layer) = (b"{}".to_vec(), pattern(3_000_000));
    assert!(
        !client
            .blob_exists(REPOSITORY, &descriptor(&layer).digest)
            .await
            .unwrap()
    );
    client.push_blob(REPOSITORY, Bytes::from(config.clone())).await.unwrap();
    let reader = std::io::Cursor::new(layer.clone());
    client
        .push_blob_from(REPOSITORY, &descriptor(&layer).digest, layer.len() as u64, reader)
        .await
        .unwrap();
    assert!(
        client
            .blob_exists(REPOSITORY, &descriptor(&layer).digest)
            .await
            .unwrap()
    );

    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: descriptor(&config),
        layers: vec![descriptor(&layer)],
        annotations: Default::default(),
    };
    let bytes = Bytes::from(manifest.to_json().unwrap());
    let pushed = client
        .push_manifest(REPOSITORY, Some("v1"), media_type::OCI_MANIFEST, bytes.clone())
        .await
        .unwrap();
    let untagged = client
        .push_manifest(REPOSITORY, None, media_type::OCI_MANIFEST, bytes.clone())
        .await
        .unwrap();
    assert_eq!(pushed, untagged);
    assert_eq!(
        client.resolve_tag(REPOSITORY, "v1").await.unwrap(),
        (pushed, bytes.to_vec())
    );
    let pulled = Manifest::parse(&client.manifest(REPOSITORY, &pushed).await.unwrap()).unwrap();
    assert_eq!(pulled, manifest);
    assert_eq!(client.blob(REPOSITORY, &pulled.config, 1000).await.unwrap(), config);
    assert_eq!(
        client.blob(REPOSITORY, &pulled.layers[0], 4_000_000).await.unwrap(),
        layer
    );
    let error = client.blob(REPOSITORY, &pulled.layers[0], 1000).await.unwrap_err();
    assert!(matches!(
        error,
        RegistryError::TooLarge {
            size: 3_000_000,
            limit: 1000,
            ..
        }
    ));
    registry.stop().await;
}

#[tokio::test]
async fn streams_whole_blobs_and_ranges() {
    let mut registry = DockerRegistry::start().await;
    let client = &registry.client;
    let layer = pattern(3_000_000);
    let digest = client.push_blob(REPOSITORY, layer.clone().into()).await.unwrap();
    for range in [
        None,
        Some(0..3_000_000),
        Some(0..1),
        Some(1_048_576..2_097_152),
        Some(2_999_999..3_000_000),
    ] {
        let mut stream = client.blob_stream(REPOSITORY, &digest, range.clone()).await.unwrap();
        let (mut verifier, mut bytes) = (Verifier::new(), Vec::new());
        while let Some(chunk) = stream.chunk().await.unwrap() {
            verifier.update(&chunk);
            bytes.extend_from_slice(&chunk);
        }
        let range = range.unwrap_or(0..3_000_000);
        assert_eq!(stream.offset(), range.end);
        let (start, end) = (
            usize::try_from(range.start).unwrap(),
            usize::try_from(range.end).unwrap(),
        );
        assert!(bytes == layer[start..end]);
        assert_eq!(verifier.finish(&digest).is_ok(), bytes.len() == layer.len());
    }
    let beyond = client
        .blob_stream(REPOSITORY, &digest, Some(2_999_999..3_000_001))
        .await
        .err()
        .unwrap();
    assert!(matches!(beyond, RegistryError::ContentRange { .. }), "{beyond}");
    let behind = client
        .blob_stream(REPOSITORY, &digest, Some(3_000_000..3_000_001))
        .await
        .err()
        .unwrap();
    assert!(matches!(behind, RegistryError::Status { status: 416, .. }), "{behind}");
    let empty = client.blob_stream(REPOSITORY, &digest, Some(5..5)).await.err().unwrap();
    assert!(matches!(empty, RegistryError::EmptyRange { .. }), "{empty}");
    registry.stop().await;
}

#[tokio::test]
async fn what_changed_on_its_disk_is_refused() {
    let mut registry = DockerRegistry::start().await;
    let client = &registry.client;
    let (flipped, cut) = (pattern(100_000), pattern(100_001));
    for blob in [&flipped, &cut] {
        client.push_blob(REPOSITORY, blob.clone().into()).await.unwrap();
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: descriptor(&flipped),
        layers: vec![descriptor(&cut)],
        annotations: [("note".to_owned(), "aaaa".to_owned())].into(),
    };
    let bytes = manifest.to_json().unwrap();
    let at = bytes.windows(4).position(|four| four == b"aaaa").unwrap();
    let manifest = client
        .push_manifest(REPOSITORY, None, media_type::OCI_MANIFEST, bytes.into())
        .await
        .unwrap();

    registry.flip(&manifest, at);
    let error = client.manifest(REPOSITORY, &manifest).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::Digest { source, .. } if source.expected == manifest),
        "{error}"
    );
    let shown = format!("pulling manifest {manifest} of registry.example/demo/model: the registry gave other content");
    assert!(error.to_string().starts_with(&shown), "{error}");

    let blob = descriptor(&flipped);
    registry.flip(&blob.digest, 50_000);
    let error = client.blob(REPOSITORY, &blob, 1 << 20).await.unwrap_err();
    assert!(matches!(error, RegistryError::Digest { source, .. } if source.length == 100_000));

    let blob = descriptor(&cut);
    let file = std::fs::File::options()
        .write(true)
        .open(registry.stored(&blob.digest))
        .unwrap();
    file.set_len(60_000).unwrap();
    let error = client.blob(REPOSITORY, &blob, 1 << 20).await.unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Length {
                expected: 100_001,
                found: 60_000,
                ..
            }
        ),
        "{error}"
    );
    let error = client
        .blob_stream(REPOSITORY, &blob.digest, Some(50_000..100_001))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, RegistryError::ContentRange { .. }), "{error}");
    registry.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let mut registry = DockerRegistry::start().await;
    let client = &registry.client;
    let nowhere = descriptor(b"nowhere");
    let error = client.manifest(REPOSITORY, &nowhere.digest).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }));
    let error = client.blob(REPOSITORY, &nowhere, 100).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }));
    let error = client.manifest("../etc", &nowhere.digest).await.unwrap_err();
    assert!(matches!(error, RegistryError::Name(_)));

    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{0}","config":{{"mediaType":"a/b","digest":"{1}","size":7}},"layers":[]}}"#,
        media_type::OCI_MANIFEST,
        nowhere.digest
    );
    let error = client
        .push_manifest(REPOSITORY, None, media_type::OCI_MANIFEST, manifest.into())
        .await
        .unwrap_err();
    let RegistryError::Status {
        status: 400,
        code: Some(code),
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(code.as_str(), "MANIFEST_BLOB_UNKNOWN");
    let reader = std::io::Cursor::new(b"something".to_vec());
    let error = client
        .push_blob_from(REPOSITORY, &nowhere.digest, 9, reader)
        .await
        .unwrap_err();
    let RegistryError::Status {
        status: 400,
        code: Some(code),
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(code.as_str(), "DIGEST_INVALID");
    registry.stop().await;
}

#[tokio::test]
async fn a_registry_that_dies_midway_leaves_blob_and_offset() {
    let mut registry = DockerRegistry::start().await;
    let layer = pattern(64 << 20);
    let digest = registry.client.push_blob(REPOSITORY, layer.into()).await.unwrap();
    let mut stream = registry
        .client
        .blob_stream(REPOSITORY, &digest, Some(1000..64 << 20))
        .await
        .unwrap();
    let mut received = 1000 + stream.chunk().await.unwrap().unwrap().len() as u64;
    registry.stop().await;
    let error = loop {
        match stream.chunk().await {
            Ok(chunk) => received += chunk.expect("the whole blob came from a dead registry").len() as u64,
            Err(error) => break error,
        }
    };
    let RegistryError::Interrupted { blob, offset, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*blob, *offset), (digest, received));
    assert_eq!(
        error.to_string(),
        format!("pulling blob {digest} of registry.example/demo/model: interrupted at offset {received}")
    );
    let error = registry.client.manifest(REPOSITORY, &digest).await.unwrap_err();
    assert!(matches!(error, RegistryError::Http { .. }), "{error}");
}
