//! Connections that are reset, keys of other versions, memory that is not there, and what a record says of what is.

use std::{
    io::ErrorKind,
    sync::atomic::{AtomicUsize, Ordering},
};

use cella_seal::packet::{unwrap_layer, wrap_layer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::workload::{Blame, record, testkit::liar::Liar};

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_a_segment_is_survived_and_one_too_many_is_named() {
    let bench = Bench::new();
    let file = sealed("model.gguf", Kind::Weight, content(20 << 20, 5));
    let files = std::slice::from_ref(&file);
    let artifact = push(&bench.registry, files).await;
    // What the proxy does is a reset.
    let proxy = Proxy::resetting(bench.registry.port, 1, 10).await;
    let mut raw = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    raw.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let ended = raw.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);

    let proxy = Proxy::resetting(bench.registry.port, 2, 1_500_000).await;
    let (result, store) = bench.pull_as(proxy.port, &artifact, 1, total(files)).await;
    assert_eq!(result.unwrap().files[0].content(), file.plain);
    assert!(proxy.cut() > 0, "nothing was reset");
    drop(store);

    let proxy = Proxy::resetting(bench.registry.port, usize::MAX, 500_000).await;
    let (result, _store) = bench.pull_as(proxy.port, &artifact, 1, total(files)).await;
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("model models/demo: segment ") && text.contains(" of model.gguf could not be fetched: "),
        "{text}"
    );
    assert_eq!(error.blame(), Blame::Registry);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_other_versions_open_nothing() {
    let bench = Bench::new();
    let file = weights();
    let bytes = total(std::slice::from_ref(&file));
    // Version 2, and with it what was wrapped with version 1: under the right key of the broker, of the other file.
    let mut newer = sealed_for("models/demo", 2, 2, "model.gguf", Kind::Weight, file.plain.clone());
    newer.layer.key_annotations = file.layer.key_annotations.clone();
    let mixed = push_changed(&bench.registry, &[newer], |manifest| {
        let (key, version) = (VERSION_ANNOTATION.to_owned(), "2".to_owned());
        manifest.annotations.insert(key, version);
    })
    .await;
    let (result, store) = bench.pull_as(bench.registry.port, &mixed, 2, bytes).await;
    assert!(
        matches!(&result, Err(WorkloadError::Segment { segment: 4, .. })),
        "{result:?}"
    );
    drop(store);
    // Sealed under the broker's next key, of which the policy knows nothing; and under one that has taken the place of the policy's.
    let (ours, theirs) = (testkit::kek(2), testkit::kek(3));
    for (kid, said) in [
        (
            "kbs:///demo/model-kek/2",
            "the layer's key kbs:///demo/model-kek/2 is not one that the policy names for it",
        ),
        (
            MODEL_KID,
            "the packet for kbs:///demo/model-kek/1 is not authentic: changed, or wrapped under another key",
        ),
    ] {
        let mut file = file.clone();
        let annotations = file.layer.key_annotations.take().unwrap();
        let opened = unwrap_layer(&annotations, |_| Some(&ours)).unwrap();
        let annotations = wrap_layer(&opened.public, &opened.private, &theirs, kid).unwrap();
        file.layer.key_annotations = Some(annotations);
        let artifact = push(&bench.registry, &[file]).await;
        let error = bench.fails(&artifact, bytes).await;
        assert_eq!(
            error.to_string(),
            format!("model models/demo: model.gguf cannot be opened: {said}")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_is_refused_with_both_numbers() {
    let bench = Bench::new();
    let file = weights();
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    let bytes = total(std::slice::from_ref(&file));
    let (result, _store) = bench.pull_as(bench.registry.port, &artifact, 2, bytes).await;
    assert_eq!(
        result.unwrap_err().to_string(),
        "model models/demo: the artifact is version \"1\" of its model, the policy names version 2"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_with_both_numbers_before_a_byte_is_asked_for() {
    let bench = Bench::new();
    let (mut file, config) = (weights(), sealed("config.json", Kind::WeightConfig, b"{}".to_vec()));
    let huge = 1u64 << 43;
    file.layer.size = Layout::from_plaintext_len(huge).unwrap().ciphertext_len();
    let artifact = push(&bench.registry, &[file, config]).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let liar = Liar::start(bench.registry.port, move |question, _| {
        counted.fetch_add(usize::from(question.range.is_some()), Ordering::Relaxed);
    })
    .await;
    let (result, _store) = bench.pull_as(liar.port, &artifact, 1, huge + 2).await;
    let error = result.unwrap_err();
    // Two bytes take a page of their own.
    assert!(
        matches!(&error, WorkloadError::ModelMemory { needs, free, .. } if *needs == huge + (2 << 20) && *free < huge),
        "{error}"
    );
    let said = "model models/demo needs 8796096 MB, the guest has ";
    assert!(error.to_string().starts_with(said), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_a_file_whatever_its_metadata_say() {
    let bench = Bench::new();
    let file = weights();
    // ModelPack's annotation for a symbolic link that everybody may write to.
    let link =
        r#"{"name":"/etc/passwd","mode":2559,"uid":1,"gid":1,"size":0,"mtime":"1970-01-01T00:00:00Z","typeflag":50}"#;
    let artifact = push_changed(&bench.registry, std::slice::from_ref(&file), |manifest| {
        let key = "org.cncf.model.file.metadata+json".to_owned();
        manifest.layers[0].annotations.insert(key, link.to_owned());
    })
    .await;
    let (result, _store) = bench.pull(&artifact, total(std::slice::from_ref(&file))).await;
    let model = result.unwrap();
    let at = model.directory.join("model.gguf");
    let found = fs::symlink_metadata(&at).unwrap();
    assert!(
        found.is_file() && found.permissions().mode() & 0o7777 == 0o444,
        "{found:?}"
    );
    assert_eq!(fs::read(at).unwrap(), file.plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_boot_record_says_how_many_bytes_are_locked() {
    let bench = Bench::new();
    let files = [weights(), sealed("config.json", Kind::WeightConfig, b"{}".to_vec())];
    let artifact = push(&bench.registry, &files).await;
    let (result, _store) = bench.pull(&artifact, total(&files)).await;
    let record = record::model(&result.unwrap());
    assert_eq!((record.version, record.artifact), (1, artifact));
    let said: Vec<_> = record
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.bytes, file.locked_bytes))
        .collect();
    // Whole huge pages, as the kernel counts them.
    assert_eq!(
        said,
        [("model.gguf", (4 << 20) + 5, 6 << 20), ("config.json", 2, 2 << 20)]
    );
    assert_eq!(record.files[0].digest, files[0].layer.diff_id.to_string());
}
