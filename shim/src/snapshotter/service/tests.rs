//! Calls as containerd makes them.
use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85";
const LAYER_1: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const LAYER_2: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

struct Fixture {
    folder: tempfile::TempDir,
    snapshotter: Snapshotter,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let snapshotter = Snapshotter::open(folder.path()).unwrap();
        Self { folder, snapshotter }
    }

    /// The layers of image number `image`, as a pull asks for them.
    fn pull(&mut self, image: u8, layers: &[&str]) {
        let mut parent = "";
        for layer in layers {
            let key = format!("k8s.io/1/extract-1-x {layer}");
            let result = self.snapshotter.prepare(&key, parent, layer_labels(image, layer), 1);
            assert!(matches!(result, Err(SnapshotError::LayerKept { chain }) if chain == *layer));
            parent = layer;
        }
    }

    fn options(&self, key: &str) -> Vec<String> {
        self.snapshotter.mounts(key).unwrap().remove(0).options
    }

    fn reopen(self) -> Self {
        let Self { folder, snapshotter } = self;
        drop(snapshotter);
        Self {
            snapshotter: Snapshotter::open(folder.path()).unwrap(),
            folder,
        }
    }
}

fn layer_labels(image: u8, chain: &str) -> BTreeMap<String, String> {
    [
        ("containerd.io/snapshot.ref", chain.to_owned()),
        (
            "containerd.io/snapshot/cri.image-ref",
            "localhost:5000/demo/app:1".to_owned(),
        ),
        ("containerd.io/snapshot/cri.manifest-digest", format!("{DIGEST}{image}")),
        ("containerd.io/snapshot/cri.layer-digest", chain.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

fn option(image: u8) -> String {
    format!("x-cella.image=localhost:5000/demo/app@{DIGEST}{image}")
}

#[test]
fn a_pull_and_a_container() {
    let mut fixture = Fixture::new();
    fixture.pull(1, &[LAYER_1, LAYER_2]);
    let layer = fixture.snapshotter.stat(LAYER_2).unwrap();
    assert_eq!((layer.kind, layer.parent.as_deref()), (Kind::Committed, Some(LAYER_1)));
    assert_eq!(
        layer.labels[SNAPSHOT_REF], LAYER_2,
        "containerd looks the layer up by this label"
    );

    let mounts = fixture.snapshotter.prepare("k8s.io/2/c1", LAYER_2, none(), 2).unwrap();
    let empty = fixture.folder.path().join("empty");
    assert_eq!(
        mounts,
        [Mount {
            fs_type: "bind".to_owned(),
            source: empty.to_str().unwrap().to_owned(),
            options: vec!["rbind".to_owned(), "ro".to_owned(), option(1)],
        }]
    );
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    assert_eq!(fixture.snapshotter.mounts("k8s.io/2/c1").unwrap(), mounts);
    assert_eq!(
        fixture.snapshotter.view("k8s.io/3/v", LAYER_2, none(), 2).unwrap(),
        mounts
    );
    assert_eq!(fixture.snapshotter.stat("k8s.io/3/v").unwrap().kind, Kind::View);
}

#[test]
fn everything_is_known_after_a_restart() {
    let mut fixture = Fixture::new();
    fixture.pull(1, &[LAYER_1]);
    fixture.snapshotter.prepare("c1", LAYER_1, none(), 2).unwrap();
    let before: Vec<_> = fixture
        .snapshotter
        .list()
        .map(|(n, s)| (n.to_owned(), s.clone()))
        .collect();
    let fixture = fixture.reopen();
    let after: Vec<_> = fixture
        .snapshotter
        .list()
        .map(|(n, s)| (n.to_owned(), s.clone()))
        .collect();
    assert_eq!(before, after);
    assert_eq!(fixture.options("c1"), ["rbind".to_owned(), "ro".to_owned(), option(1)]);
}

#[test]
fn images_are_remembered_most_recent_first_each_once_and_at_most_eight() {
    let mut fixture = Fixture::new();
    for image in [1, 2, 3, 1] {
        fixture.pull(image, &[LAYER_1]);
    }
    fixture.snapshotter.prepare("c", LAYER_1, none(), 2).unwrap();
    assert_eq!(fixture.options("c")[2..], [option(1), option(3), option(2)]);
    for image in 0..=9 {
        fixture.pull(image, &[LAYER_1]);
    }
    assert_eq!(fixture.options("c")[2..], [9, 8, 7, 6, 5, 4, 3, 2].map(option));
}

#[test]
fn a_layer_without_its_image_says_what_to_configure() {
    let mut fixture = Fixture::new();
    let key = format!("default/1/extract-1-x {LAYER_1}");
    let mut labels = layer_labels(1, LAYER_1);
    labels.remove("containerd.io/snapshot/cri.manifest-digest");
    let error = fixture.snapshotter.prepare(&key, "", labels, 1).unwrap_err();
    assert!(matches!(error, SnapshotError::NoImage { .. }));
    for word in [
        "disable_snapshot_annotations = false",
        "enable_remote_snapshot_annotations = \"true\"",
    ] {
        assert!(error.to_string().contains(word), "{error}");
    }
    for key in [key, format!("extract-1-x {LAYER_1}")] {
        let error = fixture.snapshotter.prepare(&key, "", none(), 1).unwrap_err();
        assert!(matches!(error, SnapshotError::Unpack), "{error}");
    }
    assert_eq!(fixture.snapshotter.list().count(), 0);
    fixture
        .snapshotter
        .prepare("default/1/extract-me", "", none(), 1)
        .unwrap();
}

#[test]
fn a_root_without_layers_names_no_image() {
    let mut fixture = Fixture::new();
    fixture.snapshotter.prepare("c", "", none(), 1).unwrap();
    assert_eq!(fixture.options("c"), ["rbind", "ro"]);
}

#[test]
fn names_and_parents_are_checked() {
    let mut fixture = Fixture::new();
    fixture.pull(1, &[LAYER_1]);
    let snapshotter = &mut fixture.snapshotter;
    snapshotter.prepare("c", LAYER_1, none(), 1).unwrap();
    assert!(matches!(
        snapshotter.prepare("c", LAYER_1, none(), 1),
        Err(SnapshotError::Exists { .. })
    ));
    assert!(matches!(
        snapshotter.prepare("d", "c", none(), 1),
        Err(SnapshotError::NotCommitted { .. })
    ));
    assert!(matches!(
        snapshotter.prepare("d", "nobody", none(), 1),
        Err(SnapshotError::NotFound { .. })
    ));
    assert!(matches!(
        snapshotter.prepare("", LAYER_1, none(), 1),
        Err(SnapshotError::NoName)
    ));
    assert!(matches!(snapshotter.stat("d"), Err(SnapshotError::NotFound { .. })));
    assert!(matches!(snapshotter.mounts("d"), Err(SnapshotError::NotFound { .. })));
    assert!(matches!(
        snapshotter.mounts(LAYER_1),
        Err(SnapshotError::Committed { .. })
    ));
    assert!(matches!(snapshotter.commit("c"), Err(SnapshotError::Commit)));
    assert!(matches!(snapshotter.commit("d"), Err(SnapshotError::NotFound { .. })));
    let labels = layer_labels(1, LAYER_2);
    assert!(matches!(
        snapshotter.prepare("x", "nobody", labels, 1),
        Err(SnapshotError::NotFound { .. })
    ));
    let labels = layer_labels(1, LAYER_1);
    assert!(matches!(
        snapshotter.prepare("x", LAYER_1, labels, 1),
        Err(SnapshotError::Mismatch { .. })
    ));
    let labels = layer_labels(1, "c");
    assert!(matches!(
        snapshotter.prepare("x", LAYER_1, labels, 1),
        Err(SnapshotError::Mismatch { .. })
    ));
}

#[test]
fn snapshots_are_removed_from_the_top() {
    let mut fixture = Fixture::new();
    fixture.pull(1, &[LAYER_1, LAYER_2]);
    fixture.snapshotter.prepare("c", LAYER_2, none(), 1).unwrap();
    for name in [LAYER_1, LAYER_2] {
        assert!(matches!(
            fixture.snapshotter.remove(name),
            Err(SnapshotError::HasChildren { .. })
        ));
    }
    for name in ["c", LAYER_2, LAYER_1] {
        fixture.snapshotter.remove(name).unwrap();
        assert!(matches!(
            fixture.snapshotter.remove(name),
            Err(SnapshotError::NotFound { .. })
        ));
    }
    let mut fixture = fixture.reopen();
    assert_eq!(fixture.snapshotter.list().count(), 0);
    fixture.pull(2, &[LAYER_1]);
    assert_eq!(
        fixture.snapshotter.stat(LAYER_1).unwrap().images.len(),
        1,
        "a removed layer forgets its images"
    );
}

#[test]
fn labels_are_replaced_set_and_removed() {
    let mut fixture = Fixture::new();
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let snapshotter = &mut fixture.snapshotter;
    snapshotter
        .prepare("c", "", labels(&[("a", "1"), ("b.c", "2")]), 1)
        .unwrap();
    let paths = ["labels.b.c".to_owned(), "labels.d".to_owned(), "labels.a".to_owned()];
    let changed = snapshotter
        .update("c", &labels(&[("b.c", "3"), ("d", "4")]), &paths, 7)
        .unwrap();
    assert_eq!(changed.labels, labels(&[("b.c", "3"), ("d", "4")]));
    assert_eq!((changed.created_ms, changed.updated_ms), (1, 7));
    assert_eq!(
        snapshotter.update("c", &labels(&[("e", "5")]), &[], 8).unwrap().labels,
        labels(&[("e", "5")])
    );
    let all = ["labels".to_owned()];
    assert_eq!(snapshotter.update("c", &none(), &all, 9).unwrap().labels, none());
    for path in ["parent", "kind", "labelsx"] {
        let result = snapshotter.update("c", &none(), &[path.to_owned()], 9);
        assert!(matches!(result, Err(SnapshotError::Immutable { .. })), "{path}");
    }
    assert!(matches!(
        snapshotter.update("d", &none(), &[], 9),
        Err(SnapshotError::NotFound { .. })
    ));
}

#[test]
fn a_folder_that_is_not_empty_is_refused() {
    let fixture = Fixture::new();
    let path = fixture.folder.path().join("empty/x");
    fs::set_permissions(
        path.parent().unwrap(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    fs::write(path, b"").unwrap();
    let Fixture { folder, snapshotter } = fixture;
    drop(snapshotter);
    assert!(matches!(
        Snapshotter::open(folder.path()),
        Err(OpenError::NotEmpty { .. })
    ));
}
