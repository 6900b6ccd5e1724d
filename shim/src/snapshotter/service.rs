//! The snapshotter's logic: what each call of containerd does to the record, and what it answers.
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::snapshotter::folders::Folders;
use crate::snapshotter::image::ImageName;
use crate::snapshotter::snapshot::{Kind, Mount, Snapshot};
use crate::snapshotter::store::{State, Store, StoreError};
use crate::snapshotter::stub::{Stub, StubError};

/// A snapshotter over one root folder. Every call is short; one that changes something waits for the disk.
pub struct Snapshotter {
    store: Store,
    stub: Stub,
    folders: Folders,
}

impl Snapshotter {
    /// Opens the record in `root`, the folder that all containers have for their root, and the one that layers are unpacked in.
    ///
    /// # Errors
    /// As [`Store::open`], and when one of the folders cannot be made or is damaged.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let store = Store::open(root)?;
        let stub = Stub::open(root)?;
        let unpack = root.join("unpack");
        let open = store.state().snapshots.iter();
        let open = open.filter(|(name, snapshot)| snapshot.kind == Kind::Active && is_extraction(name));
        let folders = Folders::open(&unpack, open.map(|(name, _)| name.as_str()));
        let folders = folders.map_err(|source| OpenError::Unpack { path: unpack, source })?;
        Ok(Self { store, stub, folders })
    }

    /// Adds the names in each `User` of an image's configuration to those that containerd finds.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn learn(&mut self, users: &[String]) -> Result<(), SnapshotError> {
        Ok(self.stub.learn(users)?)
    }

    /// `Prepare`: a layer of an image that is being pulled, or the root of a container.
    ///
    /// A layer is recorded as committed and answered with [`SnapshotError::LayerKept`], which tells containerd not to
    /// fetch it. `now_ms` is Unix time.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn prepare(
        &mut self,
        key: &str,
        parent: &str,
        labels: BTreeMap<String, String>,
        now_ms: u64,
    ) -> Result<Vec<Mount>, SnapshotError> {
        if let Some(chain) = labels.get(SNAPSHOT_REF).cloned() {
            // Without these labels the shim asks containerd which image it is.
            let image = ImageName::from_labels(&labels).ok();
            self.keep_layer(&chain, parent, labels, image, now_ms)?;
            return Err(SnapshotError::LayerKept { chain });
        }
        if is_extraction(key) {
            self.check_new(key)?;
            self.folders.make(key).map_err(SnapshotError::folder(key))?;
        }
        self.create(Kind::Active, key, parent, labels, now_ms)
    }

    /// `View`: like the root of a container.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn view(
        &mut self,
        key: &str,
        parent: &str,
        labels: BTreeMap<String, String>,
        now_ms: u64,
    ) -> Result<Vec<Mount>, SnapshotError> {
        self.create(Kind::View, key, parent, labels, now_ms)
    }

    /// `Mounts`: the same as [`Snapshotter::prepare`] gave.
    ///
    /// # Errors
    /// For a name that is unknown or a committed snapshot's.
    pub fn mounts(&self, key: &str) -> Result<Vec<Mount>, SnapshotError> {
        let snapshot = self.stat(key)?;
        match snapshot.kind {
            Kind::Active | Kind::View => Ok(self.mount(key, snapshot.kind, snapshot.parent.as_deref())),
            Kind::Committed => Err(SnapshotError::Committed { name: key.to_owned() }),
        }
    }

    /// `Commit`: of a layer that containerd has unpacked, whose content is thrown away.
    ///
    /// # Errors
    /// For a container's root, because what a container writes never leaves its guest; for names that are unknown or taken.
    pub fn commit(
        &mut self,
        name: &str,
        key: &str,
        labels: BTreeMap<String, String>,
        now_ms: u64,
    ) -> Result<(), SnapshotError> {
        let snapshot = self.stat(key)?;
        if snapshot.kind != Kind::Active || !is_extraction(key) {
            return Err(SnapshotError::Commit);
        }
        if name.is_empty() {
            return Err(SnapshotError::NoName);
        }
        self.check_new(name)?;
        let parent = snapshot.parent.clone();
        self.store.update(|state| {
            state.snapshots.remove(key);
            let layer = Snapshot::new(Kind::Committed, parent, labels, now_ms);
            state.snapshots.insert(name.to_owned(), layer);
            Ok::<_, SnapshotError>(())
        })?;
        self.folders.close(key).map_err(SnapshotError::folder(key))
    }

    /// `Remove`.
    ///
    /// # Errors
    /// For a name that is unknown or another snapshot's parent.
    pub fn remove(&mut self, key: &str) -> Result<(), SnapshotError> {
        self.store.update(|state| {
            if state
                .snapshots
                .values()
                .any(|snapshot| snapshot.parent.as_deref() == Some(key))
            {
                return Err(SnapshotError::HasChildren { name: key.to_owned() });
            }
            match state.snapshots.remove(key) {
                Some(_) => Ok(()),
                None => Err(SnapshotError::NotFound { name: key.to_owned() }),
            }
        })?;
        self.folders.close(key).map_err(SnapshotError::folder(key))
    }

    /// `Stat`.
    ///
    /// # Errors
    /// For an unknown name.
    pub fn stat(&self, key: &str) -> Result<&Snapshot, SnapshotError> {
        self.store
            .state()
            .snapshots
            .get(key)
            .ok_or_else(|| SnapshotError::NotFound { name: key.to_owned() })
    }

    /// `Update`: labels only. No `paths`, or `labels`, replaces all of them; `labels.<name>` sets one, or removes it
    /// where `labels` lacks it.
    ///
    /// # Errors
    /// For an unknown name, and for paths to anything else.
    pub fn update(
        &mut self,
        name: &str,
        labels: &BTreeMap<String, String>,
        paths: &[String],
        now_ms: u64,
    ) -> Result<Snapshot, SnapshotError> {
        self.store.update(|state| {
            let snapshot = state
                .snapshots
                .get_mut(name)
                .ok_or_else(|| SnapshotError::NotFound { name: name.to_owned() })?;
            if paths.is_empty() {
                snapshot.labels.clone_from(labels);
            }
            for path in paths {
                match path.strip_prefix("labels.") {
                    _ if path == "labels" => snapshot.labels.clone_from(labels),
                    Some(label) => match labels.get(label) {
                        Some(value) => drop(snapshot.labels.insert(label.to_owned(), value.clone())),
                        None => drop(snapshot.labels.remove(label)),
                    },
                    None => return Err(SnapshotError::Immutable { path: path.clone() }),
                }
            }
            snapshot.updated_ms = now_ms;
            Ok(snapshot.clone())
        })
    }

    /// `List`: all snapshots, by name. Filters are not looked at; containerd checks what it gets.
    pub fn list(&self) -> impl Iterator<Item = (&str, &Snapshot)> {
        self.store
            .state()
            .snapshots
            .iter()
            .map(|(name, snapshot)| (name.as_str(), snapshot))
    }

    fn keep_layer(
        &mut self,
        chain: &str,
        parent: &str,
        labels: BTreeMap<String, String>,
        image: Option<ImageName>,
        now_ms: u64,
    ) -> Result<(), SnapshotError> {
        self.store.update(|state| {
            let parent = committed_parent(state, parent)?;
            let name = layer_name(state, chain, parent.as_deref());
            let layer = state
                .snapshots
                .entry(name)
                .or_insert_with(|| Snapshot::new(Kind::Committed, parent.clone(), labels, now_ms));
            if layer.kind != Kind::Committed || layer.parent != parent {
                return Err(SnapshotError::Mismatch {
                    chain: chain.to_owned(),
                });
            }
            image.into_iter().for_each(|image| layer.remember(image));
            layer.updated_ms = now_ms;
            Ok(())
        })
    }

    fn create(
        &mut self,
        kind: Kind,
        key: &str,
        parent: &str,
        labels: BTreeMap<String, String>,
        now_ms: u64,
    ) -> Result<Vec<Mount>, SnapshotError> {
        if key.is_empty() {
            return Err(SnapshotError::NoName);
        }
        self.check_new(key)?;
        let parent = self.store.update(|state| {
            let parent = committed_parent(state, parent)?;
            state
                .snapshots
                .insert(key.to_owned(), Snapshot::new(kind, parent.clone(), labels, now_ms));
            Ok::<_, SnapshotError>(parent)
        })?;
        Ok(self.mount(key, kind, parent.as_deref()))
    }

    fn check_new(&self, name: &str) -> Result<(), SnapshotError> {
        if self.store.state().snapshots.contains_key(name) {
            return Err(SnapshotError::Exists { name: name.to_owned() });
        }
        Ok(())
    }

    /// The stub, with the images that the parent was asked for as options for the shim; or the folder to unpack in.
    fn mount(&self, key: &str, kind: Kind, parent: Option<&str>) -> Vec<Mount> {
        if kind == Kind::Active && is_extraction(key) {
            return vec![Mount {
                fs_type: "bind".to_owned(),
                source: self.folders.path(key).to_string_lossy().into_owned(),
                options: vec!["rbind".to_owned(), "rw".to_owned()],
            }];
        }
        let snapshots = &self.store.state().snapshots;
        let images = parent
            .and_then(|parent| snapshots.get(parent))
            .map_or(&[][..], |parent| &parent.images);
        let mut options = vec!["rbind".to_owned(), "ro".to_owned()];
        options.extend(images.iter().map(|image| format!("{IMAGE_OPTION}{image}")));
        vec![Mount {
            fs_type: "bind".to_owned(),
            source: self.stub.path().to_string_lossy().into_owned(),
            options,
        }]
    }
}

/// Why a snapshotter cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The record cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The containers' root on the host cannot be used.
    #[error(transparent)]
    Stub(#[from] StubError),
    /// The folder that layers are unpacked in cannot be used.
    #[error("the folder that layers are unpacked in, {path}")]
    Unpack {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Why a call is refused. The text is what an operator reads in containerd's error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Not a failure: the layer is recorded, and containerd need not fetch it.
    #[error("layer {chain} is pulled inside the guest, nothing to fetch")]
    LayerKept {
        /// Its chain id.
        chain: String,
    },
    /// A snapshot of that name is there.
    #[error("snapshot {name} exists already")]
    Exists {
        /// The name.
        name: String,
    },
    /// No snapshot of that name.
    #[error("snapshot {name} does not exist")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The parent is not a layer.
    #[error("snapshot {name} is not committed and cannot be a parent")]
    NotCommitted {
        /// The parent's name.
        name: String,
    },
    /// A layer has no mounts of its own.
    #[error("snapshot {name} is committed and has no mounts")]
    Committed {
        /// The name.
        name: String,
    },
    /// It is another snapshot's parent.
    #[error("snapshot {name} is the parent of another")]
    HasChildren {
        /// The name.
        name: String,
    },
    /// The chain id is recorded on other parents.
    #[error("layer {chain} is recorded with other parents: remove the image and pull it again")]
    Mismatch {
        /// Its chain id.
        chain: String,
    },
    /// A snapshot needs a name.
    #[error("a snapshot needs a name")]
    NoName,
    /// Something other than labels was to be changed.
    #[error("{path} of a snapshot cannot be changed")]
    Immutable {
        /// The field.
        path: String,
    },
    /// A container's root was to be made a layer.
    #[error("what a container writes stays in its guest and cannot be committed on the host")]
    Commit,
    /// A layer cannot be unpacked.
    #[error("the folder that {key} is unpacked in")]
    Folder {
        /// containerd's key.
        key: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The users' names could not be written.
    #[error(transparent)]
    Stub(#[from] StubError),
    /// The change could not be recorded.
    #[error("the change could not be recorded")]
    Store(#[from] StoreError),
}

impl SnapshotError {
    fn folder(key: &str) -> impl FnOnce(io::Error) -> Self {
        let key = key.to_owned();
        move |source| Self::Folder { key, source }
    }
}

/// What the layer `chain` on `parent` is called: its chain id, unless that is recorded on another parent. Parents of one chain
/// differ where one namespace has pulled a layer that another has unpacked. containerd finds a layer by its label.
fn layer_name(state: &State, chain: &str, parent: Option<&str>) -> String {
    match state.snapshots.get(chain) {
        Some(layer) if layer.kind != Kind::Committed || layer.parent.as_deref() != parent => {
            let hash = hex::encode(Sha256::digest(parent.unwrap_or_default()));
            format!("{chain}+{}", hash.get(..16).unwrap_or(&hash))
        }
        _ => chain.to_owned(),
    }
}

fn committed_parent(state: &State, parent: &str) -> Result<Option<String>, SnapshotError> {
    if parent.is_empty() {
        return Ok(None);
    }
    match state.snapshots.get(parent) {
        None => Err(SnapshotError::NotFound {
            name: parent.to_owned(),
        }),
        Some(snapshot) if snapshot.kind == Kind::Committed => Ok(Some(parent.to_owned())),
        Some(_) => Err(SnapshotError::NotCommitted {
            name: parent.to_owned(),
        }),
    }
}

/// Whether a snapshot that is to be made is one of an image's layers, rather than a container's root.
pub(crate) fn is_layer(key: &str, labels: &BTreeMap<String, String>) -> bool {
    labels.contains_key(SNAPSHOT_REF) || is_extraction(key)
}

/// Whether a key is one under which containerd unpacks: `[<namespace>/<number>/]extract-<unique> <chain id>`.
fn is_extraction(key: &str) -> bool {
    key.splitn(3, '/')
        .last()
        .is_some_and(|own| own.starts_with("extract-") && own.contains(' '))
}

/// Label under which containerd wants to find a layer that need not be fetched.
const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// Mount option for the shim; the kernel takes no notice of it in a bind mount.
const IMAGE_OPTION: &str = "x-cella.image=";

#[cfg(test)]
mod tests;
