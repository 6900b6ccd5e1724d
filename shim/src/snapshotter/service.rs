//! The snapshotter's logic: what each call of containerd does to the record, and what it answers.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::snapshotter::image::{ImageLabelError, ImageName};
use crate::snapshotter::snapshot::{Kind, Mount, Snapshot};
use crate::snapshotter::store::{State, Store, StoreError};

/// A snapshotter over one root folder. Every call is short; one that changes something waits for the disk.
pub struct Snapshotter {
    store: Store,
    empty: PathBuf,
}

impl Snapshotter {
    /// Opens the record in `root` and makes the empty folder that all mounts have for their source.
    ///
    /// # Errors
    /// As [`Store::open`], and when the empty folder cannot be made or is not empty.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let store = Store::open(root)?;
        let empty = root.join("empty");
        let failed = |source| OpenError::Empty {
            path: empty.clone(),
            source,
        };
        match fs::create_dir(&empty) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        if fs::read_dir(&empty).map_err(failed)?.next().is_some() {
            return Err(OpenError::NotEmpty { path: empty });
        }
        fs::set_permissions(&empty, std::os::unix::fs::PermissionsExt::from_mode(0o555)).map_err(failed)?;
        Ok(Self { store, empty })
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
            let image = ImageName::from_labels(&labels).map_err(|why| SnapshotError::NoImage { why })?;
            self.keep_layer(&chain, parent, labels, image, now_ms)?;
            return Err(SnapshotError::LayerKept { chain });
        }
        if is_extraction(key) {
            return Err(SnapshotError::Unpack);
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
            Kind::Active | Kind::View => Ok(self.mount_on(snapshot.parent.as_deref())),
            Kind::Committed => Err(SnapshotError::Committed { name: key.to_owned() }),
        }
    }

    /// `Commit`: always refused, because what a container writes never leaves its guest.
    ///
    /// # Errors
    /// Always.
    pub fn commit(&self, key: &str) -> Result<(), SnapshotError> {
        self.stat(key)?;
        Err(SnapshotError::Commit)
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
        })
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
        image: ImageName,
        now_ms: u64,
    ) -> Result<(), SnapshotError> {
        self.store.update(|state| {
            let parent = committed_parent(state, parent)?;
            let layer = state
                .snapshots
                .entry(chain.to_owned())
                .or_insert_with(|| Snapshot::new(Kind::Committed, parent.clone(), labels, now_ms));
            if layer.kind != Kind::Committed || layer.parent != parent {
                return Err(SnapshotError::Mismatch {
                    chain: chain.to_owned(),
                });
            }
            layer.remember(image);
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
        let parent = self.store.update(|state| {
            if state.snapshots.contains_key(key) {
                return Err(SnapshotError::Exists { name: key.to_owned() });
            }
            let parent = committed_parent(state, parent)?;
            state
                .snapshots
                .insert(key.to_owned(), Snapshot::new(kind, parent.clone(), labels, now_ms));
            Ok(parent)
        })?;
        Ok(self.mount_on(parent.as_deref()))
    }

    /// The empty folder, with the images that the parent was asked for as options for the shim.
    fn mount_on(&self, parent: Option<&str>) -> Vec<Mount> {
        let snapshots = &self.store.state().snapshots;
        let images = parent
            .and_then(|parent| snapshots.get(parent))
            .map_or(&[][..], |parent| &parent.images);
        let mut options = vec!["rbind".to_owned(), "ro".to_owned()];
        options.extend(images.iter().map(|image| format!("{IMAGE_OPTION}{image}")));
        vec![Mount {
            fs_type: "bind".to_owned(),
            source: self.empty.to_string_lossy().into_owned(),
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
    /// The folder for mounts cannot be made.
    #[error("the empty folder {path}")]
    Empty {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Somebody put something into it.
    #[error("{path} must be empty, it is what containers get for a root on the host: remove what is in it")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
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
    /// The chain id is recorded on another parent, or is no layer.
    #[error("layer {chain} is recorded with another parent: remove the image and pull it again")]
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
    /// containerd does not say which image a layer belongs to.
    #[error(
        "containerd does not tell which image this layer belongs to: {why}. Let it: for Kubernetes set \
         disable_snapshot_annotations = false in [plugins.'io.containerd.cri.v1.images'], for ctr set \
         enable_remote_snapshot_annotations = \"true\" in [proxy_plugins.<name>.exports]; then pull again"
    )]
    NoImage {
        /// Which label is wanting.
        why: ImageLabelError,
    },
    /// A layer that containerd already has was to be unpacked here.
    #[error(
        "cella-snapshotter does not unpack layers on the host, and containerd has this image without it. Remove the image \
         and pull it with this snapshotter (ctr images pull: not with --local), with disable_snapshot_annotations = false in \
         [plugins.'io.containerd.cri.v1.images'] (Kubernetes) or enable_remote_snapshot_annotations = \"true\" in \
         [proxy_plugins.<name>.exports] (ctr)"
    )]
    Unpack,
    /// The change could not be recorded.
    #[error("the change could not be recorded")]
    Store(#[from] StoreError),
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
