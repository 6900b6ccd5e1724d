//! Where images and models lie in the guest: memory file systems of the agent's own.
//!
//! ```text
//! <root>            mode 0700: only the agent gets here
//!   staging/<n>/…   what is being pulled: not authenticated, seen by no container
//!   ready/<n>/…     what is complete and authenticated: containers get it mounted
//! ```
//! The way from staging to ready is one rename. A [`Staging`] that is dropped before takes its files along, so whatever
//! fails leaves nothing behind.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// One memory file system. Unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    next: AtomicU64,
}

impl Store {
    /// Mounts a store for image layers at `root`, at most `bytes` large. `root` is made if it is not there.
    pub(crate) fn for_images(root: &Path, bytes: u64) -> io::Result<Self> {
        Self::mount(root, "cella-images", "", bytes, MsFlags::empty())
    }

    /// Mounts a store for models at `root`: 2 MiB pages from the first byte on, never swapped, at most `bytes` large.
    pub(crate) fn for_models(root: &Path, bytes: u64) -> io::Result<Self> {
        Self::mount(root, "cella-models", "huge=always,", bytes, MsFlags::MS_NOEXEC)
    }

    fn mount(root: &Path, name: &str, options: &str, bytes: u64, flags: MsFlags) -> io::Result<Self> {
        // A size of 0 would mean no limit.
        let options = format!("mode=0700,noswap,{options}size={}", bytes.max(MIN_SIZE));
        let options = Some(options.as_str());
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        mount(
            Some(name),
            root,
            Some("tmpfs"),
            flags | MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
            options,
        )?;
        let store = Self {
            root: root.to_owned(),
            next: AtomicU64::new(0),
        };
        for part in [STAGING, READY] {
            DirBuilder::new().mode(0o755).create(store.root.join(part))?;
        }
        Ok(store)
    }

    /// An empty directory for something to come.
    pub(crate) fn stage(&self) -> io::Result<Staging> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let path = self.root.join(STAGING).join(&name);
        DirBuilder::new().mode(0o755).create(&path)?;
        Ok(Staging {
            path,
            ready: self.root.join(READY).join(name),
            published: false,
        })
    }

    /// Where the store is mounted.
    #[cfg(test)]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Names in staging and in ready.
    #[cfg(test)]
    pub(crate) fn census(&self) -> (usize, usize) {
        let count = |part| fs::read_dir(self.root.join(part)).unwrap().count();
        (count(STAGING), count(READY))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // At the end of the guest, and of tests. Nothing can be done if it fails.
        let _ = umount2(&self.root, MntFlags::MNT_DETACH);
    }
}

/// A directory that nobody but the agent sees yet.
#[derive(Debug)]
#[must_use = "what is staged is removed when this is dropped"]
pub(crate) struct Staging {
    path: PathBuf,
    ready: PathBuf,
    published: bool,
}

impl Staging {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it ready: the content is complete and authenticated. Returns where it is now.
    pub(crate) fn publish(mut self) -> io::Result<PathBuf> {
        fs::rename(&self.path, &self.ready)?;
        self.published = true;
        Ok(self.ready.clone())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // A file system in memory: removing fails only if there is nothing to remove.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Smallest size of a memory file system.
const MIN_SIZE: u64 = 4096;

const STAGING: &str = "staging";
const READY: &str = "ready";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_published_stays_and_what_is_dropped_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::for_images(&folder.path().join("a/b"), 1 << 20).unwrap();
        assert_eq!(fs::metadata(store.root()).unwrap().permissions().mode() & 0o7777, 0o700);
        let kept = store.stage().unwrap();
        fs::write(kept.path().join("file"), b"x").unwrap();
        let dropped = store.stage().unwrap();
        fs::write(dropped.path().join("file"), b"x").unwrap();
        drop(dropped);
        let ready = kept.publish().unwrap();
        assert_eq!(fs::read(ready.join("file")).unwrap(), b"x");
        assert_eq!(store.census(), (0, 1));
    }

    #[test]
    fn the_mount_goes_with_its_store() {
        let folder = tempfile::tempdir().unwrap();
        let mounted = || {
            fs::read_to_string("/proc/self/mounts")
                .unwrap()
                .contains(folder.path().to_str().unwrap())
        };
        let store = Store::for_models(folder.path(), 4 << 20).unwrap();
        assert!(mounted());
        drop(store);
        assert!(!mounted());
    }
}
