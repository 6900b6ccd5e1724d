//! Digests of what was opened.

use cella_policy::ModelDigest;

use super::*;

fn blake3(bytes: &[u8]) -> String {
    hex::encode(tree_of(bytes).0)
}

/// As one segment after the other gives it; `cella_seal` compares that with the BLAKE3 of the whole.
fn tree_of(bytes: &[u8]) -> Blake3Digest {
    let layout = Layout::from_plaintext_len(bytes.len().try_into().unwrap()).unwrap();
    let tree = cella_seal::tree::FileTree::new(&layout);
    for leaf in layout
        .iter()
        .collect::<Vec<_>>()
        .iter()
        .flat_map(|segment| tree.opened(segment))
    {
        let range = usize::try_from(leaf.range.start).unwrap()..usize::try_from(leaf.range.end).unwrap();
        tree.hash(&leaf, &bytes[range]);
    }
    tree.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_computed_and_compared_where_the_policy_asks_for_it() {
    let bench = Bench::new();
    let files = [
        sealed("sub/more.gguf", Kind::Weight, content((30 << 20) + 7, 2)),
        weights(),
        sealed("config.json", Kind::WeightConfig, b"{}".to_vec()),
        sealed("empty.txt", Kind::Doc, Vec::new()),
        clear("README.md", Kind::Doc, b"read me".to_vec()),
    ];
    let artifact = push(&bench.registry, &files).await;
    let (port, bytes) = (bench.registry.port, total(&files[..4]));
    let load = |more: String| {
        let policy = testkit::model_policy(port, &[], (&artifact, 1, bytes), &more);
        let bench = &bench;
        async move { bench.load(&policy).await.0 }
    };
    let model = load(String::new()).await.unwrap();
    assert!(model.digest.is_none() && model.files.iter().all(|file| file.blake3.is_none()));
    drop(model);

    let model = load("provenance = \"digest\"\n".into()).await.unwrap();
    let mut lines = Vec::new();
    for (file, loaded) in files.iter().zip(&model.files) {
        let digest = blake3(&file.plain);
        assert_eq!(
            loaded.blake3.unwrap().to_string(),
            format!("blake3:{digest}"),
            "{}",
            loaded.path
        );
        lines.push((loaded.path.clone(), digest));
    }
    lines.sort();
    let text: String = lines
        .iter()
        .map(|(path, digest)| format!("{digest}  {path}\n"))
        .collect();
    let expected = format!("blake3:{}", blake3(text.as_bytes()));
    assert_eq!(model.digest.unwrap().to_string(), expected);
    drop(model);

    let pin = |digest: &str| format!("provenance = \"digest\"\ndigest = \"{digest}\"\n");
    drop(load(pin(&expected)).await.unwrap());
    let other: ModelDigest = format!("blake3:{}", "7".repeat(64)).parse().unwrap();
    let error = load(pin(&other.to_string())).await.unwrap_err();
    assert!(
        matches!(&error, WorkloadError::Provenance { policy, .. } if *policy == other),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        format!("model models/demo is {expected}, the policy names {other}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_segment_is_named_with_digests_too() {
    let bench = Bench::new();
    let file = weights();
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    bench.registry.tamper(&file.layer.digest, |blob| blob[3 << 20] ^= 1);
    let model = (artifact.as_str(), 1, total(std::slice::from_ref(&file)));
    let policy = testkit::model_policy(bench.registry.port, &[], model, "provenance = \"digest\"\n");
    let (result, _store) = bench.load(&policy).await;
    assert!(
        matches!(&result, Err(WorkloadError::Segment { segment: 3, .. })),
        "{result:?}"
    );
}
