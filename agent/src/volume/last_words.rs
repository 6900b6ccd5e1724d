//! A container's termination log: one small file that it may write and the agent reads when it has ended.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Read,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::VolumeError;

/// The file, on a file system of its own so that a container that goes on writing fills nothing else. Gone when dropped.
#[derive(Debug)]
pub struct LastWords {
    dir: PathBuf,
    file: PathBuf,
}

impl LastWords {
    /// Makes an empty one in `dir`, which must not be there. Blocks for less than a millisecond.
    pub fn make(dir: &Path) -> Result<Self, VolumeError> {
        fs::create_dir_all(dir).map_err(VolumeError::io("making", dir))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(
            Some("tmpfs"),
            dir,
            Some("tmpfs"),
            flags,
            Some("mode=0700,size=64k,nr_inodes=4"),
        )
        .map_err(|errno| VolumeError::io("mounting", dir)(errno.into()))?;
        let words = Self {
            dir: dir.to_owned(),
            file: dir.join("log"),
        };
        File::create_new(&words.file)
            .and_then(|file| file.set_permissions(Permissions::from_mode(0o666)))
            .map_err(VolumeError::io("making", &words.file))?;
        Ok(words)
    }

    /// What a container binds.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The first `MAX_WORDS` bytes of what was left in it.
    pub fn read(&self) -> Vec<u8> {
        let mut words = Vec::new();
        let open = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.file);
        // What cannot be read was not said.
        let _ = open.and_then(|file| file.take(MAX_WORDS).read_to_end(&mut words));
        words
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        // What cannot be taken away goes with the machine.
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Bytes that are told: what the kubelet keeps.
const MAX_WORDS: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_words_are_told() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root to mount");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let words = LastWords::make(&dir.path().join("words")).unwrap();
        assert_eq!(words.read(), b"");
        fs::write(words.path(), "x".repeat(10_000)).unwrap();
        assert_eq!(words.read().len(), 4096);
        assert!(fs::write(words.path(), "x".repeat(100_000)).is_err());
        drop(words);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
