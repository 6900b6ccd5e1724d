//! Folders that containerd unpacks layers into, which are thrown away.
//!
//! ```text
//! open ─▶ unpack/<hash of the key> ──close──▶ unpack/gone-<n>-… ──▶ removed, on a thread of its own
//! ```
//! Closing is one rename: containerd holds a lock on its database while it commits. What a crash leaves is removed at the next
//! start.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

/// All folders of one snapshotter.
pub(super) struct Folders {
    root: PathBuf,
    gone: AtomicU64,
}

impl Folders {
    /// The folders in `root`, of which those of `keys` stay.
    pub(super) fn open<'a>(root: &Path, keys: impl Iterator<Item = &'a str>) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        let folders = Self {
            root: root.to_owned(),
            gone: AtomicU64::new(0),
        };
        let keep: BTreeSet<_> = keys.map(|key| folders.path(key)).collect();
        let found = fs::read_dir(root)?.collect::<io::Result<Vec<_>>>()?;
        for path in found
            .into_iter()
            .map(|entry| entry.path())
            .filter(|path| !keep.contains(path))
        {
            folders.discard(&path)?;
        }
        for path in keep {
            DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        }
        Ok(folders)
    }

    /// Where `key` is unpacked.
    pub(super) fn path(&self, key: &str) -> PathBuf {
        self.root.join(hex::encode(Sha256::digest(key)))
    }

    /// Makes the folder of `key`, empty.
    pub(super) fn make(&self, key: &str) -> io::Result<()> {
        self.close(key)?;
        DirBuilder::new().mode(0o755).create(self.path(key))
    }

    /// Removes the folder of `key`, if there is one.
    pub(super) fn close(&self, key: &str) -> io::Result<()> {
        self.discard(&self.path(key))
    }

    fn discard(&self, path: &Path) -> io::Result<()> {
        let number = self.gone.fetch_add(1, Ordering::Relaxed);
        let gone = self.root.join(format!("gone-{}-{number}", std::process::id()));
        match fs::rename(path, &gone) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        // What cannot be removed now is tried again at the next start.
        std::thread::Builder::new()
            .name("discard".into())
            .spawn(move || drop(fs::remove_dir_all(gone)))
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(root: &Path) -> Vec<PathBuf> {
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Waits until nothing but `expected` is there.
    fn settled(root: &Path, expected: &[PathBuf]) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while entries(root) != expected {
            assert!(std::time::Instant::now() < end, "{:?}", entries(root));
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_layer_is_gone_once_it_is_closed() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::open(root.path(), std::iter::empty()).unwrap();
        folders.make("key").unwrap();
        fs::create_dir(folders.path("key").join("usr")).unwrap();
        fs::write(folders.path("key").join("usr/x"), "layer").unwrap();
        folders.close("key").unwrap();
        assert!(!folders.path("key").exists());
        folders.close("key").unwrap();
        settled(root.path(), &[]);
    }

    #[test]
    fn a_crash_leaves_nothing_but_what_is_still_unpacked() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::open(root.path(), std::iter::empty()).unwrap();
        folders.make("lost").unwrap();
        folders.make("kept").unwrap();
        fs::write(folders.path("kept").join("x"), "").unwrap();
        fs::create_dir(root.path().join("gone-1-0")).unwrap();
        let folders = Folders::open(root.path(), ["kept", "recorded"].into_iter()).unwrap();
        assert!(folders.path("kept").join("x").exists() && folders.path("recorded").exists());
        assert!(!folders.path("lost").exists());
        let mut expected = [folders.path("kept"), folders.path("recorded")];
        expected.sort();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let mut found = entries(root.path());
            found.sort();
            if found == expected {
                break;
            }
            assert!(std::time::Instant::now() < end, "{found:?}");
            std::thread::yield_now();
        }
    }
}
