//! The record of all snapshots: one checksummed file, replaced as a whole.
//!
//! containerd keeps its own record and expects ours to outlive a restart. The file's first line is
//! `cella-snapshotter 1 sha256:<hex>`, the rest is JSON with that digest. A change is written beside it, synced, and
//! renamed over it before it is visible in memory, so that a crash leaves the old record or the new one. A damaged file
//! is an error that says so; it is never guessed at or replaced.
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::snapshotter::snapshot::Snapshot;

/// The snapshots of one root folder, which nobody else can have open.
pub struct Store {
    root: PathBuf,
    state: State,
    _lock: File,
}

/// All snapshots by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) snapshots: BTreeMap<String, Snapshot>,
}

impl Store {
    /// Opens the record in `root`, which is made (mode 0700) if it is not there.
    ///
    /// # Errors
    /// When another process has it open, when the record is damaged, or when the file system fails.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(io(root))?;
        let lock_path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path);
        let lock = lock.map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { root: root.to_owned() }),
            Err(TryLockError::Error(source)) => {
                return Err(StoreError::Io {
                    path: lock_path,
                    source,
                });
            }
        }
        let state = load(&root.join(RECORD))?;
        Ok(Self {
            root: root.to_owned(),
            state,
            _lock: lock,
        })
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Makes a change and writes it. When `change` or the writing fails, nothing has changed.
    pub(crate) fn update<T, E: From<StoreError>>(
        &mut self,
        change: impl FnOnce(&mut State) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut next = self.state.clone();
        let result = change(&mut next)?;
        if next != self.state {
            self.save(&next)?;
            self.state = next;
        }
        Ok(result)
    }

    fn save(&self, state: &State) -> Result<(), StoreError> {
        let json = serde_json::to_vec(state).map_err(|source| StoreError::Encode { source })?;
        let (path, new) = (self.root.join(RECORD), self.root.join(NEW_RECORD));
        replace(&path, &new, &self.root, &json).map_err(|source| StoreError::Io { path, source })
    }
}

/// Why the record cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system failed.
    #[error("the record of snapshots at {path}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error("another cella-snapshotter works in {root}: stop it, or give this one a root of its own")]
    InUse {
        /// The folder.
        root: PathBuf,
    },
    /// The file is not what was written.
    #[error(
        "the record of snapshots {path} is damaged ({what}): move it away and remove this snapshotter's images from \
         containerd, they have to be pulled again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: Damage,
    },
    /// The record has no JSON form.
    #[error("encoding the record of snapshots")]
    Encode {
        /// What serde_json says.
        #[source]
        source: serde_json::Error,
    },
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Larger than any record.
    #[error("larger than {MAX_RECORD} bytes")]
    TooLarge,
    /// The first line is not ours.
    #[error("not a record of this version")]
    Header,
    /// The content has another digest.
    #[error("wrong checksum")]
    Checksum,
    /// Right checksum, but not the expected JSON: written by another version.
    #[error("not the JSON of this version")]
    Content,
}

fn load(path: &Path) -> Result<State, StoreError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_RECORD + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => parse(&bytes).map_err(|what| StoreError::Damaged {
            path: path.to_owned(),
            what,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
        Err(source) => Err(StoreError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

fn parse(bytes: &[u8]) -> Result<State, Damage> {
    if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_RECORD) {
        return Err(Damage::TooLarge);
    }
    let rest = bytes.strip_prefix(HEADER.as_bytes()).ok_or(Damage::Header)?;
    let (digest, rest) = rest.split_at_checked(64).ok_or(Damage::Header)?;
    let json = rest.strip_prefix(b"\n").ok_or(Damage::Header)?;
    if digest != checksum(json).as_bytes() {
        return Err(Damage::Checksum);
    }
    serde_json::from_slice(json).map_err(|_| Damage::Content)
}

fn replace(path: &Path, new: &Path, folder: &Path, json: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(new)?;
    file.write_all(format!("{HEADER}{}\n", checksum(json)).as_bytes())?;
    file.write_all(json)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(folder)?.sync_all()
}

fn checksum(json: &[u8]) -> String {
    hex::encode(Sha256::digest(json))
}

const HEADER: &str = "cella-snapshotter 1 sha256:";
const RECORD: &str = "snapshots";
const NEW_RECORD: &str = "snapshots.new";
const MAX_RECORD: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::snapshotter::snapshot::Kind;

    fn add(store: &mut Store, name: &str) {
        let snapshot = Snapshot::new(Kind::Committed, None, BTreeMap::from([("a".into(), "b".into())]), 5);
        store
            .update(|state| {
                state.snapshots.insert(name.to_owned(), snapshot);
                Ok::<_, StoreError>(())
            })
            .unwrap();
    }

    #[test]
    fn a_record_outlives_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a/b");
        let mut store = Store::open(&root).unwrap();
        add(&mut store, "one");
        add(&mut store, "two");
        let before = store.state().clone();
        drop(store);
        assert_eq!(Store::open(&root).unwrap().state(), &before);
        for (path, mode) in [
            (root.clone(), 0o700),
            (root.join(RECORD), 0o600),
            (root.join("lock"), 0o600),
        ] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn a_crash_while_writing_leaves_the_old_record() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        add(&mut store, "one");
        let before = store.state().clone();
        drop(store);
        fs::write(folder.path().join(NEW_RECORD), b"half a rec").unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        assert_eq!(store.state(), &before);
        add(&mut store, "two");
        assert!(!folder.path().join(NEW_RECORD).exists());
    }

    #[test]
    fn a_failed_change_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        add(&mut store, "one");
        let before = store.state().clone();
        let failed = store.update(|state| {
            state.snapshots.clear();
            Err::<(), _>(StoreError::InUse { root: PathBuf::new() })
        });
        assert!(failed.is_err());
        assert_eq!(store.state(), &before);
        // A folder where the new record should be makes the writing fail.
        fs::create_dir(folder.path().join(NEW_RECORD)).unwrap();
        let failed = store.update(|state| {
            state.snapshots.clear();
            Ok::<_, StoreError>(())
        });
        assert!(matches!(failed, Err(StoreError::Io { .. })));
        assert_eq!(store.state(), &before);
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert!(matches!(Store::open(folder.path()), Err(StoreError::InUse { .. })));
        drop(store);
        Store::open(folder.path()).unwrap();
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let folder = tempfile::tempdir().unwrap();
        add(&mut Store::open(folder.path()).unwrap(), "one");
        let record = fs::read(folder.path().join(RECORD)).unwrap();
        assert!(parse(&record).is_ok());
        for position in 0..record.len() {
            let mut changed = record.clone();
            changed[position] ^= 1;
            assert!(parse(&changed).is_err(), "bit flipped at byte {position}");
            assert!(parse(&record[..position]).is_err(), "cut at byte {position}");
        }
        fs::write(folder.path().join(RECORD), &record[..record.len() - 1]).unwrap();
        let error = Store::open(folder.path()).err().unwrap();
        assert!(matches!(
            error,
            StoreError::Damaged {
                what: Damage::Checksum,
                ..
            }
        ));
        assert!(error.to_string().contains("move it away"), "{error}");
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let json = br#"{"snapshots":{},"more":1}"#;
        let record = [format!("{HEADER}{}\n", checksum(json)).as_bytes(), json].concat();
        assert_eq!(parse(&record), Err(Damage::Content));
        assert_eq!(parse(b"cella-snapshotter 2 sha256:"), Err(Damage::Header));
        assert_eq!(parse(b""), Err(Damage::Header));
    }
}
