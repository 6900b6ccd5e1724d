//! Images end to end, from a real registry.

use std::fs;

use cella_http::TrustedTime;

use super::*;
use crate::workload::testkit::{
    self, IMAGE_KID, PolicyText,
    image::{Layer, Tar, wrong_digest, wrong_hmac},
    registry::TestRegistry,
};

/// A registry, a store, and pulls between them.
struct Bench {
    registry: TestRegistry,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            registry: TestRegistry::start(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Pulls `image` with the container's `lines`; asserts that a failure leaves nothing behind.
    async fn pull_with(
        &self,
        port: u16,
        image: &str,
        lines: &str,
        limit: u64,
    ) -> (Result<Rootfs, WorkloadError>, Arc<Store>) {
        let policy = PolicyText {
            port,
            image: image.to_owned(),
            container: lines.to_owned(),
            model: None,
        }
        .parse();
        let registries = Registries::of(&policy, &TrustedTime::unknown(), &testkit::log()).unwrap();
        let store = Arc::new(Store::for_images(self.folder.path(), 64 << 20).unwrap());
        let budget = Arc::new(Budget::new(limit));
        let container = policy.container("server").unwrap();
        let pull = ImagePull::new(container, &registries, Arc::clone(&store), budget, 2, &testkit::log()).unwrap();
        let result = pull.run(testkit::keys()).await;
        assert_eq!(store.census(), (0, usize::from(result.is_ok())), "{result:?}");
        (result, store)
    }

    async fn pull(&self, image: &str) -> (Result<Rootfs, WorkloadError>, Arc<Store>) {
        self.pull_with(self.registry.port, image, &encrypted(), 16 << 20).await
    }

    async fn fault(&self, image: &str) -> (usize, LayerFault) {
        match self.pull(image).await.0 {
            Err(WorkloadError::Layer {
                image, layer, fault, ..
            }) => {
                assert_eq!(image, "localhost:5000/demo/image");
                (layer, fault)
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Lines of a container whose layers may be encrypted.
fn encrypted() -> String {
    format!("image-keys = [\"{IMAGE_KID}\"]\nrequire-encrypted = false")
}

/// A layer that is larger than one chunk of the network, and does not compress to nothing.
fn large() -> Tar {
    Tar::default()
        .file("usr/lib/large", &testkit::model::content(700_000, 3))
        .end()
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_every_kind_become_a_root_file_system() {
    let bench = Bench::new();
    let top = Tar::default().file("etc/.wh.old", b"").file("etc/new", b"new").end();
    let middle = Tar::default().file("etc/old", b"old").end();
    let layers = [
        Layer::plain(&large()),
        Layer::gzip(&middle),
        Layer::zstd(&large()),
        Layer::gzip(&large()).encrypt(),
        Layer::zstd(&middle).encrypt(),
        Layer::plain(&top).encrypt(),
    ];
    let image = testkit::image::push(&bench.registry, &layers).await;
    let (result, store) = bench.pull(&image).await;
    let dirs = result.unwrap().lower_dirs;
    assert_eq!(dirs.len(), 6);
    assert!(dirs.iter().all(|dir| dir.starts_with(store.root().join("ready"))));
    // The highest first.
    assert_eq!(fs::read(dirs[0].join("etc/new")).unwrap(), b"new");
    assert_eq!(fs::read(dirs[1].join("etc/old")).unwrap(), b"old");
    for dir in [&dirs[2], &dirs[3], &dirs[5]] {
        assert_eq!(
            fs::read(dir.join("usr/lib/large")).unwrap(),
            testkit::model::content(700_000, 3)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_layers_are_refused_by_what_was_changed() {
    let bench = Bench::new();
    let good = Layer::plain(&Tar::default().file("a", b"a").end());
    let bad = |layer: Layer| [good.clone(), layer];

    let layer = Layer::gzip(&large()).encrypt();
    let image = testkit::image::push(&bench.registry, &bad(layer.clone())).await;
    bench.registry.tamper(&layer.digest(), |blob| blob[1000] ^= 1);
    assert!(matches!(bench.fault(&image).await, (1, LayerFault::Digest)));
    bench.registry.tamper(&layer.digest(), |blob| blob[1000] ^= 1);
    assert!(bench.pull(&image).await.0.is_ok());
    let expected = u64::try_from(layer.blob.len()).unwrap();
    bench.registry.tamper(&layer.digest(), |blob| blob.truncate(5000));
    assert!(matches!(bench.fault(&image).await, (1, LayerFault::Length { found: 5000, expected: e }) if e == expected));
    bench
        .registry
        .tamper(&layer.digest(), |blob| blob.resize(layer.blob.len() + 10_000_000, 0));
    assert!(
        matches!(bench.fault(&image).await, (1, LayerFault::Length { found, .. }) if found > expected && found < expected + 5_000_000)
    );

    let image = testkit::image::push(
        &bench.registry,
        &bad(Layer::gzip(&large()).encrypt_with(wrong_hmac, 1, IMAGE_KID)),
    )
    .await;
    assert!(matches!(bench.fault(&image).await, (1, LayerFault::Hmac)));
    let layer = Layer::gzip(&large()).encrypt_with(wrong_digest, 1, IMAGE_KID);
    let image = testkit::image::push(&bench.registry, &bad(layer)).await;
    assert!(matches!(bench.fault(&image).await, (1, LayerFault::PlainDigest)));
    let mut layer = Layer::gzip(&large());
    layer.diff_id = good.diff_id;
    let image = testkit::image::push(&bench.registry, &bad(layer)).await;
    assert!(matches!(bench.fault(&image).await, (1, LayerFault::DiffId)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_behind_the_end_marker_is_authenticated_too() {
    let bench = Bench::new();
    let mut tar = Tar::default().file("seen", b"seen").end();
    let end = tar.0.len();
    tar = tar.file("unseen", b"unseen").end();
    let layer = Layer::plain(&tar).encrypt();
    let image = testkit::image::push(&bench.registry, std::slice::from_ref(&layer)).await;
    let (result, _store) = bench.pull(&image).await;
    let dir = result.unwrap().lower_dirs.remove(0);
    assert!(dir.join("seen").exists() && !dir.join("unseen").exists());
    drop(_store);
    bench.registry.tamper(&layer.digest(), |blob| blob[end + 600] ^= 1);
    assert!(matches!(bench.fault(&image).await, (0, LayerFault::Digest)));

    let mut layer = Layer::gzip(&large());
    layer.blob.extend_from_slice(b"trailing garbage");
    let image = testkit::image::push(&bench.registry, &[layer]).await;
    assert!(matches!(bench.fault(&image).await, (0, LayerFault::Unpack(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn authentic_archives_that_cannot_be_unpacked_are_refused() {
    let bench = Bench::new();
    let mut cases = vec![
        Layer::plain(&Tar::default().file("../escape", b"x").end()),
        Layer::plain(&Tar(b"not a tar archive".repeat(100))),
        Layer::gzip(&Tar::default().file("f", b"").file("f/g", b"").end()).encrypt(),
    ];
    let mut not_gzip = Layer::gzip(&large());
    not_gzip.blob = b"not gzip".to_vec();
    let mut cut_zstd = Layer::zstd(&large());
    cut_zstd.blob.truncate(1000);
    cases.extend([not_gzip, cut_zstd]);
    for layer in cases {
        let image = testkit::image::push(&bench.registry, &[layer]).await;
        let (_, fault) = bench.fault(&image).await;
        assert!(matches!(&fault, LayerFault::Unpack(_)), "{fault}");
        assert!(!fault.to_string().contains("escape"), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_encryption_are_as_the_policy_says() {
    let bench = Bench::new();
    let (plain, secret) = (Layer::plain(&large()), Layer::plain(&large()).encrypt());
    let mixed = testkit::image::push(&bench.registry, &[secret.clone(), plain]).await;
    let strict = format!("image-keys = [\"{IMAGE_KID}\"]");
    let (result, _store) = bench.pull_with(bench.registry.port, &mixed, &strict, 16 << 20).await;
    assert!(
        matches!(
            result,
            Err(WorkloadError::Layer {
                layer: 1,
                fault: LayerFault::NotEncrypted,
                ..
            })
        ),
        "{result:?}"
    );
    drop(_store);
    let (result, _store) = bench.pull_with(bench.registry.port, &mixed, "", 16 << 20).await;
    assert!(
        matches!(
            result,
            Err(WorkloadError::Layer {
                layer: 0,
                fault: LayerFault::Key(_),
                ..
            })
        ),
        "{result:?}"
    );
    drop(_store);
    for layer in [
        Layer::plain(&large()).encrypt_with(|_| {}, 1, "kbs:///demo/image-kek/2"),
        Layer::plain(&large()).encrypt_with(|_| {}, 9, IMAGE_KID),
        Layer::plain(&large()).encrypt_with(|_| {}, 2, testkit::MODEL_KID),
    ] {
        let image = testkit::image::push(&bench.registry, &[layer]).await;
        assert!(matches!(bench.fault(&image).await, (0, LayerFault::Key(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn manifest_and_configuration_must_have_their_digests() {
    let bench = Bench::new();
    let layer = Layer::plain(&large());
    let image = testkit::image::push(&bench.registry, std::slice::from_ref(&layer)).await;
    let digest = image.split_once('@').unwrap().1.parse().unwrap();
    let original = fs::read(bench.registry.file(&digest)).unwrap();
    let text = String::from_utf8(original.clone()).unwrap();
    let changed = text.replace(&layer.diff_id.hex(), &"0".repeat(64));
    assert_ne!(changed, text);
    fs::write(bench.registry.file(&digest), changed).unwrap();
    let (result, _store) = bench.pull(&image).await;
    assert!(matches!(result, Err(WorkloadError::Content { .. })), "{result:?}");
    drop(_store);
    fs::write(bench.registry.file(&digest), original).unwrap();
    let manifest = cella_oci::Manifest::parse(&fs::read(bench.registry.file(&digest)).unwrap()).unwrap();
    bench.registry.tamper(&manifest.config.digest, |config| config[20] ^= 1);
    let (result, _store) = bench.pull(&image).await;
    assert!(matches!(result, Err(WorkloadError::Content { .. })), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_fit_is_refused_with_the_size() {
    let bench = Bench::new();
    let image = testkit::image::push(&bench.registry, &[Layer::gzip(&large())]).await;
    let (result, _store) = bench.pull_with(bench.registry.port, &image, "", 600_000).await;
    assert!(
        matches!(&result, Err(WorkloadError::ImageMemory { free: 600_000, .. })),
        "{result:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_taken_up_again_and_a_dead_registry_named() {
    let bench = Bench::new();
    let image = testkit::image::push(&bench.registry, &[Layer::plain(&large())]).await;
    let proxy = testkit::proxy::Proxy::start(bench.registry.port, 2, 200_000).await;
    let (result, _store) = bench.pull_with(proxy.port, &image, "", 16 << 20).await;
    let dir = result.unwrap().lower_dirs.remove(0);
    assert_eq!(
        fs::read(dir.join("usr/lib/large")).unwrap(),
        testkit::model::content(700_000, 3)
    );
    drop(_store);
    let port = proxy.port;
    drop(proxy);
    let (result, _store) = bench.pull_with(port, &image, "", 16 << 20).await;
    let Err(error @ WorkloadError::Registry { .. }) = result else {
        panic!("{result:?}")
    };
    assert!(
        error.to_string().starts_with("image localhost:5000/demo/image: "),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
}
