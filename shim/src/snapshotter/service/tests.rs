//! Calls as containerd makes them.
use std::fs;

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
    let root = fixture.folder.path().join("rootfs");
    assert_eq!(
        mounts,
        [Mount {
            fs_type: "bind".to_owned(),
            source: root.to_str().unwrap().to_owned(),
            options: vec!["rbind".to_owned(), "ro".to_owned(), option(1)],
        }]
    );
    let there: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(there, ["etc"]);
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
fn a_layer_without_its_image_is_kept_all_the_same() {
    let mut fixture = Fixture::new();
    let mut labels = layer_labels(1, LAYER_1);
    labels.remove("containerd.io/snapshot/cri.manifest-digest");
    let kept = fixture.snapshotter.prepare(&extraction(LAYER_1), "", labels, 1);
    assert!(matches!(kept, Err(SnapshotError::LayerKept { .. })));
    fixture.snapshotter.prepare("c", LAYER_1, none(), 1).unwrap();
    assert_eq!(fixture.options("c"), ["rbind", "ro"], "the shim asks containerd");
}

fn extraction(layer: &str) -> String {
    format!("default/1/extract-1-x {layer}")
}

#[test]
fn a_layer_that_containerd_unpacks_is_thrown_away() {
    let mut fixture = Fixture::new();
    let (key, name) = (extraction(LAYER_1), format!("default/2/{LAYER_1}"));
    let mount = fixture.snapshotter.prepare(&key, "", none(), 1).unwrap().remove(0);
    assert_eq!(mount.options, ["rbind", "rw"]);
    let folder = PathBuf::from(&mount.source);
    fs::write(folder.join("file"), "layer").unwrap();
    assert_eq!(fixture.snapshotter.mounts(&key).unwrap(), [mount]);
    assert!(matches!(
        fixture.snapshotter.prepare(&key, "", none(), 1),
        Err(SnapshotError::Exists { .. })
    ));
    assert!(folder.join("file").exists());

    // It goes on after a restart.
    let mut fixture = fixture.reopen();
    assert!(folder.join("file").exists());
    fixture.snapshotter.commit(&name, &key, none(), 2).unwrap();
    assert!(!folder.exists());
    assert_eq!(fixture.snapshotter.stat(&name).unwrap().kind, Kind::Committed);
    assert!(matches!(
        fixture.snapshotter.stat(&key),
        Err(SnapshotError::NotFound { .. })
    ));
    fixture.snapshotter.prepare("c", &name, none(), 3).unwrap();
    assert_eq!(fixture.options("c"), ["rbind", "ro"]);

    // Given up half-way.
    let key = extraction(LAYER_2);
    let folder = PathBuf::from(
        fixture
            .snapshotter
            .prepare(&key, &name, none(), 4)
            .unwrap()
            .remove(0)
            .source,
    );
    assert!(matches!(
        fixture.snapshotter.commit(&name, &key, none(), 4),
        Err(SnapshotError::Exists { .. })
    ));
    fixture.snapshotter.remove(&key).unwrap();
    assert!(!folder.exists());
    // A container that just sounds like it.
    fixture
        .snapshotter
        .prepare("default/1/extract-me", "", none(), 1)
        .unwrap();
    assert_eq!(fixture.options("default/1/extract-me"), ["rbind", "ro"]);
}

#[test]
fn one_chain_may_stand_on_a_pulled_and_on_an_unpacked_layer() {
    let mut fixture = Fixture::new();
    fixture.pull(1, &[LAYER_1, LAYER_2]);
    let (key, unpacked) = (extraction(LAYER_1), format!("default/2/{LAYER_1}"));
    fixture.snapshotter.prepare(&key, "", none(), 1).unwrap();
    fixture.snapshotter.commit(&unpacked, &key, none(), 1).unwrap();
    for _ in 0..2 {
        let kept = fixture.snapshotter.prepare("x", &unpacked, layer_labels(2, LAYER_2), 1);
        assert!(matches!(kept, Err(SnapshotError::LayerKept { .. })));
    }
    let on = |parent: &str| {
        let mut all = fixture.snapshotter.list();
        let found = all.find(|(_, layer)| layer.parent.as_deref() == Some(parent)).unwrap();
        (
            found.0.to_owned(),
            found.1.labels[SNAPSHOT_REF].clone(),
            found.1.images.len(),
        )
    };
    assert_eq!(on(LAYER_1), (LAYER_2.to_owned(), LAYER_2.to_owned(), 1));
    let (name, label, images) = on(&unpacked);
    assert!(name.starts_with(&format!("{LAYER_2}+")), "{name}");
    assert_eq!((label.as_str(), images), (LAYER_2, 1));
    assert_eq!(fixture.snapshotter.list().count(), 4);
}

#[test]
fn users_that_images_name_are_there_for_containerd() {
    let mut fixture = Fixture::new();
    fixture.snapshotter.learn(&["zoe:zgroup".to_owned()]).unwrap();
    let etc = fixture.folder.path().join("rootfs/etc");
    assert!(fs::read_to_string(etc.join("passwd")).unwrap().contains("\nzoe:x:"));
    assert!(fs::read_to_string(etc.join("group")).unwrap().contains("\nzgroup:x:"));
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
    for key in ["c", LAYER_1] {
        assert!(matches!(
            snapshotter.commit("n", key, none(), 1),
            Err(SnapshotError::Commit)
        ));
    }
    assert!(matches!(
        snapshotter.commit("n", "d", none(), 1),
        Err(SnapshotError::NotFound { .. })
    ));
    let labels = layer_labels(1, LAYER_2);
    assert!(matches!(
        snapshotter.prepare("x", "nobody", labels, 1),
        Err(SnapshotError::NotFound { .. })
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
