//! Models end to end, from a real registry.

mod hostile;
mod lies;
mod provenance;
mod rate;

use std::{fs, os::unix::fs::PermissionsExt};

use cella_http::TrustedTime;
use cella_oci::modelpack::VERSION_ANNOTATION;
use cella_policy::Policy;

use super::*;
use crate::workload::testkit::{
    self, MODEL_KID,
    model::{File, clear, content, push, push_changed, sealed, sealed_for},
    proxy::Proxy,
    registry::TestRegistry,
};

struct Bench {
    registry: TestRegistry,
    folder: tempfile::TempDir,
}

/// What a pull gave, and the store it gave it in.
type Pulled = (Result<Arc<LoadedModel>, WorkloadError>, Arc<Store>);

impl Bench {
    fn new() -> Self {
        Self {
            registry: TestRegistry::start(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Loads what `policy` names; asserts that a failure leaves no file and no locked memory.
    async fn load(&self, policy: &Policy) -> Pulled {
        let registries = Registries::of(policy, &TrustedTime::unknown(), &testkit::log()).unwrap();
        let store = Arc::new(Store::for_models(self.folder.path(), 256 << 20).unwrap());
        let model = policy.model("models/demo").unwrap();
        let pull = ModelPull::new(model, &registries, Arc::clone(&store), 2, &testkit::log()).unwrap();
        let result = pull.run(testkit::keys()).await;
        assert_eq!(store.census(), (0, usize::from(result.is_ok())), "{result:?}");
        if result.is_err() {
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            assert!(
                !maps.contains(self.folder.path().to_str().unwrap()),
                "memory is still mapped"
            );
            let free = nix::sys::statvfs::statvfs(self.folder.path()).unwrap();
            assert_eq!(free.blocks(), free.blocks_free(), "memory was not given back");
        }
        (result, store)
    }

    /// Loads version `version`, `bytes` long.
    async fn pull_as(&self, port: u16, artifact: &str, version: u64, bytes: u64) -> Pulled {
        self.load(&testkit::model_policy(port, &[], (artifact, version, bytes), ""))
            .await
    }

    async fn pull(&self, artifact: &str, bytes: u64) -> Pulled {
        self.pull_as(self.registry.port, artifact, 1, bytes).await
    }

    async fn fails(&self, artifact: &str, bytes: u64) -> WorkloadError {
        self.pull(artifact, bytes).await.0.unwrap_err()
    }
}

fn total(files: &[File]) -> u64 {
    files.iter().map(|file| u64::try_from(file.plain.len()).unwrap()).sum()
}

/// One file of weights with five segments.
fn weights() -> File {
    sealed("model.gguf", Kind::Weight, content((4 << 20) + 5, 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_model_becomes_locked_read_only_memory() {
    let bench = Bench::new();
    let files = [
        weights(),
        sealed("sub/dir/more.safetensors", Kind::Weight, content(30 << 20, 2)),
        sealed("config.json", Kind::WeightConfig, b"{}".to_vec()),
        sealed("empty.txt", Kind::Doc, Vec::new()),
        clear("README.md", Kind::Doc, b"read me".to_vec()),
    ];
    let artifact = push(&bench.registry, &files).await;
    let (result, _store) = bench.pull(&artifact, total(&files[..4])).await;
    let model = result.unwrap();
    assert_eq!(
        (model.name.as_str(), model.version, model.artifact.as_str()),
        ("models/demo", 1, artifact.as_str())
    );
    assert_eq!(model.files.len(), 4);
    for (file, locked) in files.iter().zip(&model.files) {
        let at = model.directory.join(&locked.path);
        assert_eq!(fs::read(&at).unwrap(), file.plain, "{}", locked.path);
        assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o7777, 0o444);
        assert_eq!(locked.bytes, u64::try_from(file.plain.len()).unwrap());
        assert_eq!(locked.mapped, memory::rounded(locked.bytes));
        assert_eq!(
            (locked.locked, locked.huge),
            (locked.mapped, locked.mapped),
            "{}",
            locked.path
        );
        assert_eq!(locked.content(), file.plain);
    }
    assert!(!model.directory.join("README.md").exists());
    let directory = model.directory.clone();
    drop(model);
    assert!(
        fs::read(directory.join("model.gguf"))
            .unwrap()
            .iter()
            .all(|byte| *byte == 0),
        "not zeroed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_segments_are_named() {
    let bench = Bench::new();
    let file = weights();
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    for segment in 0..5u32 {
        let at = (usize::try_from(segment).unwrap() << 20) + 45;
        let at = at.min(file.stored.len() - 1);
        bench.registry.tamper(&file.layer.digest, |blob| blob[at] ^= 0x40);
        let error = bench.fails(&artifact, total(std::slice::from_ref(&file))).await;
        assert!(
            matches!(&error, WorkloadError::Segment { model, path, segment: found } if model == "models/demo" && path == "model.gguf" && *found == segment),
            "{segment}: {error}"
        );
        assert_eq!(
            error.to_string(),
            format!("model models/demo: segment {segment} of model.gguf is not authentic")
        );
        bench.registry.tamper(&file.layer.digest, |blob| blob[at] ^= 0x40);
    }
    bench.registry.tamper(&file.layer.digest, |blob| blob[0] = 24);
    let error = bench.fails(&artifact, total(std::slice::from_ref(&file))).await;
    assert!(
        matches!(
            &error,
            WorkloadError::File {
                fault: FileFault::Header(_),
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_of_other_places_do_not_open() {
    let bench = Bench::new();
    let file = weights();
    let bytes = total(std::slice::from_ref(&file));
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    let segment = |index: usize| (index << 20)..((index + 1) << 20);
    // A segment of another model of the same owner, and two segments of this one exchanged.
    let other = sealed_for("models/other", 1, 2, "model.gguf", Kind::Weight, file.plain.clone());
    bench.registry.tamper(&file.layer.digest, |blob| {
        blob[segment(2)].copy_from_slice(&other.stored[segment(2)])
    });
    let error = bench.fails(&artifact, bytes).await;
    assert!(matches!(&error, WorkloadError::Segment { segment: 2, .. }), "{error}");
    bench.registry.tamper(&file.layer.digest, |blob| {
        blob[segment(2)].copy_from_slice(&file.stored[segment(3)]);
        blob[segment(3)].copy_from_slice(&file.stored[segment(2)]);
    });
    let error = bench.fails(&artifact, bytes).await;
    assert!(
        matches!(&error, WorkloadError::Segment { segment: 2 | 3, .. }),
        "{error}"
    );

    // Whole files that were sealed for another name, path, version or key.
    for other in [
        sealed_for("models/other", 1, 2, "model.gguf", Kind::Weight, file.plain.clone()),
        sealed_for("models/demo", 2, 2, "model.gguf", Kind::Weight, file.plain.clone()),
        sealed_for("models/demo", 1, 2, "other.gguf", Kind::Weight, file.plain.clone()),
    ] {
        let mut moved = other;
        moved.layer.path = "model.gguf".parse().unwrap();
        let artifact = push(&bench.registry, &[moved]).await;
        let error = bench.fails(&artifact, bytes).await;
        assert!(matches!(&error, WorkloadError::Segment { segment: 4, .. }), "{error}");
    }
    let other = sealed_for("models/demo", 1, 9, "model.gguf", Kind::Weight, file.plain.clone());
    let artifact = push(&bench.registry, &[other]).await;
    let error = bench.fails(&artifact, bytes).await;
    assert!(
        matches!(
            &error,
            WorkloadError::File {
                fault: FileFault::Key(_),
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_are_not_the_registrys_to_choose() {
    let bench = Bench::new();
    let file = weights();
    let bytes = total(std::slice::from_ref(&file));
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    // Cut at the end, in the middle, and to whole segments: the last segment is not there, or not the last one.
    for length in [file.stored.len() - 1, 2_500_000, 3 << 20, 10] {
        bench.registry.tamper(&file.layer.digest, |blob| blob.truncate(length));
        let error = bench.fails(&artifact, bytes).await;
        assert!(
            matches!(&error, WorkloadError::File { fault: FileFault::Missing { expected, segment, .. }, .. } if *expected == file.layer.size && *segment == if length == 10 { 0 } else { 4 }),
            "{length}: {error}"
        );
        fs::write(bench.registry.file(&file.layer.digest), &file.stored).unwrap();
    }
    // A manifest that lies in the same way, with a policy that believes it.
    let cut = 3u64 << 20;
    let lie = push_changed(&bench.registry, std::slice::from_ref(&file), |manifest| {
        manifest.layers[0].size = cut
    })
    .await;
    bench.registry.tamper(&file.layer.digest, |blob| blob.truncate(3 << 20));
    let error = bench
        .fails(&lie, Layout::from_ciphertext_len(cut).unwrap().plaintext_len())
        .await;
    assert!(matches!(&error, WorkloadError::Segment { segment: 2, .. }), "{error}");
    let error = bench.fails(&lie, bytes).await;
    assert!(matches!(&error, WorkloadError::Content { .. }), "{error}");
    assert!(
        error.to_string().contains(&format!("the policy says {bytes}")),
        "{error}"
    );
    let ragged = push_changed(&bench.registry, std::slice::from_ref(&file), |manifest| {
        manifest.layers[0].size = (1 << 20) + 3
    })
    .await;
    let error = bench.fails(&ragged, bytes).await;
    assert!(
        matches!(
            &error,
            WorkloadError::File {
                fault: FileFault::Layout(_),
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_does_not_mean_is_refused() {
    let bench = Bench::new();
    let file = weights();
    let bytes = total(std::slice::from_ref(&file));
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    let (result, _store) = bench.pull_as(bench.registry.port, &artifact, 2, bytes).await;
    assert!(matches!(&result, Err(WorkloadError::Content { .. })), "{result:?}");
    drop(_store);
    // The manifest may claim to be version 2: the sealing does not.
    let claimed = push_changed(&bench.registry, std::slice::from_ref(&file), |manifest| {
        manifest
            .annotations
            .insert(VERSION_ANNOTATION.to_owned(), "2".to_owned());
    })
    .await;
    let (result, _store) = bench.pull_as(bench.registry.port, &claimed, 2, bytes).await;
    assert!(
        matches!(&result, Err(WorkloadError::Segment { segment: 4, .. })),
        "{result:?}"
    );
    drop(_store);
    let naked = push(
        &bench.registry,
        &[clear("model.gguf", Kind::Weight, file.plain.clone())],
    )
    .await;
    let error = bench.fails(&naked, bytes).await;
    assert!(matches!(&error, WorkloadError::Content { .. }), "{error}");
    let config = clear("config.json", Kind::WeightConfig, b"{}".to_vec());
    let half = push(&bench.registry, &[file.clone(), config]).await;
    let error = bench.fails(&half, bytes).await;
    assert!(
        matches!(
            &error,
            WorkloadError::File {
                fault: FileFault::NotSealed { .. },
                ..
            }
        ),
        "{error}"
    );
    let pickle = push(
        &bench.registry,
        &[sealed("model.bin", Kind::Weight, file.plain.clone())],
    )
    .await;
    let error = bench.fails(&pickle, bytes).await;
    assert!(matches!(&error, WorkloadError::Content { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_fit_is_refused_before_memory_is_taken() {
    let bench = Bench::new();
    // Sizes that a manifest can claim without a blob behind them.
    let mut file = weights();
    let huge = 1u64 << 44;
    file.layer.size = Layout::from_plaintext_len(huge).unwrap().ciphertext_len();
    let artifact = push(&bench.registry, &[file]).await;
    let error = bench.fails(&artifact, huge).await;
    assert!(
        matches!(&error, WorkloadError::ModelMemory { needs, free, .. } if *needs == huge && *free < huge),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_taken_up_at_its_segment() {
    let bench = Bench::new();
    let file = sealed("model.gguf", Kind::Weight, content(20 << 20, 5));
    let files = std::slice::from_ref(&file);
    let artifact = push(&bench.registry, files).await;
    let proxy = Proxy::start(bench.registry.port, 7, 2_500_000).await;
    let (result, _store) = bench.pull_as(proxy.port, &artifact, 1, total(files)).await;
    assert_eq!(result.unwrap().files[0].content(), file.plain);
    drop(_store);
    // Never enough for one segment: there is no progress, and an end of patience.
    let proxy = Proxy::start(bench.registry.port, usize::MAX, 500_000).await;
    let (result, _store) = bench.pull_as(proxy.port, &artifact, 1, total(files)).await;
    assert!(
        matches!(&result, Err(WorkloadError::Fetch { path, .. }) if path == "model.gguf"),
        "{result:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_nothing_is_opened() {
    let bench = Bench::new();
    let file = weights();
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    let bytes = total(std::slice::from_ref(&file));
    let policy = testkit::model_policy(bench.registry.port, &[], (&artifact, 1, bytes), "");
    let registries = Registries::of(&policy, &TrustedTime::unknown(), &testkit::log()).unwrap();
    let store = Arc::new(Store::for_models(bench.folder.path(), 64 << 20).unwrap());
    let pull = ModelPull::new(
        policy.model("models/demo").unwrap(),
        &registries,
        Arc::clone(&store),
        2,
        &testkit::log(),
    );
    let (promise, keys) = crate::workload::outcome::promise();
    promise.fulfil(Err(WorkloadError::KeyRefused {
        broker: "https://k".into(),
        key: MODEL_KID.parse().unwrap(),
        reason: "no".into(),
    }));
    let error = pull.unwrap().run(keys).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "key broker https://k refused key kbs:///demo/model-kek/1: no"
    );
    assert_eq!(store.census(), (0, 0));
}
