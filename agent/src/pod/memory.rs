//! The pod's `/dev/shm`: one tmpfs for all its containers, as they share one IPC namespace.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A mounted tmpfs; unmounted when dropped.
#[derive(Debug)]
pub(super) struct SharedMemory(PathBuf);

impl SharedMemory {
    /// Mounts it on `dir`, which is made. The size is the one that every runtime gives.
    pub(super) fn make(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("shm"), dir, Some("tmpfs"), flags, Some("mode=1777,size=64m"))?;
        Ok(Self(dir.to_owned()))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // What cannot be taken away goes with the machine.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}
