//! The memory file system that a job writes its output to.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use super::OutputError;

/// A mounted folder. Unmounted when dropped; its pages go with the last who has it mounted, and the guest's kernel hands no page on
/// with what was in it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Mounts an empty folder at `path`, which is made, for files of `max_bytes` together. It belongs to `uid` and `gid` alone.
    pub(super) fn make(path: &Path, max_bytes: u64, (uid, gid): (u32, u32)) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        // Whole pages, and one for the end of each of a job's usual files: what is left over is compared with the sum of lengths.
        let size = max_bytes
            .div_ceil(PAGE)
            .saturating_add(SPARE_PAGES)
            .saturating_mul(PAGE);
        let options = format!("mode=0700,noswap,uid={uid},gid={gid},size={size},nr_inodes={MAX_INODES}");
        mount(Some("cella-output"), path, Some("tmpfs"), FLAGS, Some(options.as_str()))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file system itself read-only, for everybody who has it mounted. The kernel refuses that while anybody has a file of it
    /// open for writing; the job's processes have been killed and may take a moment to go.
    pub(super) async fn freeze(&self) -> Result<(), OutputError> {
        const NOTHING: Option<&str> = None;
        let mut tries = 0;
        loop {
            let flags = FLAGS | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            // What was said of swap has to be said again.
            match mount(NOTHING, &self.path, NOTHING, flags, Some("noswap")) {
                Ok(()) => return Ok(()),
                Err(Errno::EBUSY) if tries < TRIES => tries += 1,
                Err(errno) => return Err(OutputError::Busy { source: errno.into() }),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing can be done if it fails: the memory goes with the guest then.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = std::fs::remove_dir(&self.path);
    }
}

const FLAGS: MsFlags = MsFlags::MS_NODEV.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NOEXEC);
const PAGE: u64 = 4096;
const SPARE_PAGES: u64 = 64;
/// Files, folders and links.
const MAX_INODES: u32 = 4096;
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);
