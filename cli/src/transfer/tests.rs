//! Pushed and pulled over a registry that fails in every way that one can go on from.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use cella_oci::{Descriptor, Digest, Manifest, Reference, RegistryError, media_type};
use http::Method;

use super::*;
use crate::layout::Layout;
use crate::progress::Progress;
use crate::store::{Access, StoreError};
use crate::test_registry::{Fault, TestRegistry};

const BLOB: usize = 5 * CHUNK + 1000;

struct Bench {
    dir: tempfile::TempDir,
    registry: TestRegistry,
    layout: Layout,
    blob: Descriptor,
    content: Vec<u8>,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("layout")).unwrap();
        let content: Vec<u8> = (0..251).cycle().take(BLOB).collect();
        let blob = layout.put("application/octet-stream", &content).unwrap();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: layout.put(media_type::OCI_CONFIG, b"{}").unwrap(),
            // A layer twice is one blob.
            layers: vec![blob.clone(), blob.clone()],
            annotations: Default::default(),
        };
        layout.publish(&manifest, None).unwrap();
        Self {
            registry: TestRegistry::start().await,
            dir,
            layout,
            blob,
            content,
        }
    }

    fn reference(&self) -> Reference {
        format!("{}/demo:1", self.registry.name).parse().unwrap()
    }

    async fn push(&self) -> Result<Reference, StoreError> {
        push(&self.layout, &self.reference(), &Access::default(), None).await
    }

    fn note(&self) -> PathBuf {
        self.dir.path().join(".layout.push.json")
    }

    fn arrived(&self) -> bool {
        self.registry
            .blob(&self.blob.digest)
            .is_some_and(|blob| blob == self.content)
    }

    /// Pulls the blob from these registries into a layout of its own.
    async fn pull(&self, to: &str, from: &[&TestRegistry], stop: &Stop) -> Result<Layout, StoreError> {
        let layout = Layout::resume(&self.dir.path().join(to)).unwrap();
        let source = |registry: &&TestRegistry| Source {
            registry: Access::default().registry(&registry.name).unwrap(),
            repository: "demo".to_owned(),
        };
        let progress = Progress::start("pulling", self.blob.size);
        let pulling = Pulling {
            sources: from.iter().map(source).collect(),
            layout: layout.clone(),
            watch: Watch {
                counter: progress.counter(),
                stop: stop.clone(),
            },
        };
        pulling.run(vec![self.blob.clone()]).await.map(|()| layout)
    }
}

fn inner(error: StoreError) -> StoreError {
    match error {
        StoreError::Blob { source, .. } => *source,
        other => other,
    }
}

#[tokio::test]
async fn what_the_registry_has_is_not_sent_again() {
    let bench = Bench::new().await;
    let pushed = bench.push().await.unwrap();
    assert!(bench.arrived() && pushed.digest.is_some());
    assert_eq!((bench.registry.uploads(), bench.registry.received()), (2, BLOB + 2));
    assert_eq!(bench.push().await.unwrap(), pushed);
    assert_eq!((bench.registry.uploads(), bench.registry.received()), (2, BLOB + 2));
    assert!(!bench.note().exists());
}

#[tokio::test]
async fn an_interrupted_push_goes_on_in_the_middle_of_a_blob() {
    let bench = Bench::new().await;
    // The small blob may come first: its PATCH too.
    bench.registry.fail(
        Method::PATCH,
        &[Fault::None, Fault::None, Fault::None, Fault::Status(403)],
    );
    let error = inner(bench.push().await.unwrap_err());
    assert!(
        matches!(error, StoreError::Registry(RegistryError::Unauthorized { .. })),
        "{error}"
    );
    assert_eq!(fs::metadata(bench.note()).unwrap().permissions().mode() & 0o777, 0o600);
    let before = bench.registry.received();
    assert!(before >= 2 * CHUNK, "{before}");
    bench.push().await.unwrap();
    assert!(bench.arrived());
    // Not a byte twice.
    assert_eq!(bench.registry.received(), BLOB + 2);
    assert!(!bench.note().exists());
}

#[tokio::test]
async fn a_note_from_elsewhere_is_of_no_use_and_no_harm() {
    let bench = Bench::new().await;
    let digest = bench.blob.digest;
    for place in ["/v2/demo/blobs/uploads/99", "http://evil.example/x", "x"] {
        let note = serde_json::json!({
            "registry": bench.registry.name, "repository": "demo", "uploads": {digest.to_string(): place},
        });
        fs::write(bench.note(), note.to_string()).unwrap();
        bench.registry.lose(10);
        bench.push().await.unwrap();
        assert!(bench.arrived());
    }
    fs::write(bench.note(), b"not json").unwrap();
    bench.registry.lose(10);
    bench.push().await.unwrap();
    assert!(bench.arrived());
}

#[tokio::test]
async fn broken_connections_and_bad_moments_are_passed_over() {
    let bench = Bench::new().await;
    bench.registry.fail(
        Method::PATCH,
        &[Fault::None, Fault::Cut(2), Fault::Status(503), Fault::Cut(0)],
    );
    bench.push().await.unwrap();
    assert!(bench.arrived());
}

#[tokio::test]
async fn a_forgotten_upload_is_begun_anew() {
    let bench = Bench::new().await;
    bench
        .registry
        .fail(Method::PATCH, &[Fault::None, Fault::None, Fault::None, Fault::Forget]);
    bench.push().await.unwrap();
    assert!(bench.arrived());
}

#[tokio::test]
async fn registries_without_chunks_get_all_at_once() {
    let bench = Bench::new().await;
    bench
        .registry
        .fail(Method::PATCH, &[Fault::Status(405), Fault::Status(405)]);
    bench.push().await.unwrap();
    assert!(bench.arrived());
}

#[tokio::test]
async fn a_registry_that_stays_away_ends_the_push() {
    let bench = Bench::new().await;
    bench.registry.fail(Method::HEAD, &[Fault::Status(503); 40]);
    let error = inner(bench.push().await.unwrap_err());
    assert!(
        matches!(error, StoreError::Registry(RegistryError::Status { status: 503, .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_damaged_layout_is_not_taken() {
    let bench = Bench::new().await;
    let path = bench.layout.path(&bench.blob.digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[7] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(bench.push().await.is_err());
    assert!(!bench.arrived());
    fs::write(&path, b"short").unwrap();
    assert!(matches!(bench.push().await, Err(StoreError::Layout(_))));
}

#[tokio::test]
async fn a_pull_goes_on_by_range() {
    let bench = Bench::new().await;
    bench.push().await.unwrap();
    bench.registry.fail(
        Method::GET,
        &[Fault::Cut(100_000), Fault::Status(500), Fault::Cut(1), Fault::Cut(0)],
    );
    let layout = bench.pull("a", &[&bench.registry], &Stop::default()).await.unwrap();
    assert_eq!(fs::read(layout.path(&bench.blob.digest)).unwrap(), bench.content);
    let last = BLOB - 1;
    assert_eq!(
        bench.registry.ranges(),
        [
            format!("bytes=0-{last}"),
            format!("bytes=100000-{last}"),
            format!("bytes=100001-{last}"),
            format!("bytes=100001-{last}"),
        ]
    );
}

#[tokio::test]
async fn an_interrupted_pull_goes_on_from_what_is_there() {
    let bench = Bench::new().await;
    bench.push().await.unwrap();
    bench
        .registry
        .fail(Method::GET, &[Fault::Cut(100_000), Fault::Status(403)]);
    assert!(bench.pull("a", &[&bench.registry], &Stop::default()).await.is_err());
    let stopped = Stop::default();
    stopped.set();
    let error = inner(bench.pull("a", &[&bench.registry], &stopped).await.unwrap_err());
    assert!(matches!(error, StoreError::Stopped), "{error}");
    let layout = bench.pull("a", &[&bench.registry], &Stop::default()).await.unwrap();
    assert_eq!(fs::read(layout.path(&bench.blob.digest)).unwrap(), bench.content);
    let ranges = bench.registry.ranges();
    assert_eq!(ranges.last(), Some(&format!("bytes=100000-{}", BLOB - 1)), "{ranges:?}");
    // What is there is not asked for.
    bench.pull("a", &[&bench.registry], &Stop::default()).await.unwrap();
    assert_eq!(bench.registry.ranges().len(), ranges.len());
}

#[tokio::test]
async fn mirrors_are_asked_in_order_and_wrong_bytes_are_not_kept() {
    let bench = Bench::new().await;
    bench.push().await.unwrap();
    let (empty, wrong) = (TestRegistry::start().await, TestRegistry::start().await);
    wrong.mirror(&bench.registry);
    wrong.damage(10);
    let all = [&empty, &wrong, &bench.registry];
    let layout = bench.pull("a", &all, &Stop::default()).await.unwrap();
    assert_eq!(fs::read(layout.path(&bench.blob.digest)).unwrap(), bench.content);
    assert_eq!((wrong.ranges().len(), bench.registry.ranges().len()), (1, 1));
    let error = inner(bench.pull("b", &[&empty, &wrong], &Stop::default()).await.unwrap_err());
    assert!(matches!(error, StoreError::Content { .. }), "{error}");
    let left = fs::read_dir(bench.dir.path().join("b/blobs/sha256")).unwrap();
    assert!(left.flatten().all(|entry| entry.metadata().unwrap().len() == 0));
    // A wrong half of an earlier run does not keep a good registry from giving all of it.
    let part = bench
        .dir
        .path()
        .join(format!("b/blobs/sha256/{}.part", bench.blob.digest.hex()));
    fs::write(&part, vec![9; 1000]).unwrap();
    let layout = bench.pull("b", &[&bench.registry], &Stop::default()).await.unwrap();
    assert_eq!(
        Digest::of(&fs::read(layout.path(&bench.blob.digest)).unwrap()),
        bench.blob.digest
    );
}
