//! A container's last words, written where kubelet looks for them.
//!
//! The bytes are the guest's: at most [`MAX_MESSAGE`] of them go into the one file that the bundle named, which must be a
//! regular file already, and never through a symlink.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Most bytes of a message: what kubelet reads.
pub const MAX_MESSAGE: usize = 4096;

/// Replaces the content of the file at `path`. Blocking.
pub(super) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    file.set_len(0)?;
    file.write_all(text.get(..MAX_MESSAGE).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_message_replaces_the_file_and_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0a1b");
        assert!(write(&path, b"x").is_err(), "a file that kubelet did not make");
        fs::write(&path, "something longer").unwrap();
        write(&path, b"short").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        write(&path, &[b'y'; MAX_MESSAGE + 1]).unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), MAX_MESSAGE);
    }

    #[test]
    fn nothing_but_a_file_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "kept").unwrap();
        symlink(&file, &link).unwrap();
        assert!(write(&link, b"x").is_err());
        assert!(write(folder.path(), b"x").is_err());
        assert!(write(Path::new("/dev/null"), b"x").is_err());
        assert_eq!(fs::read(&file).unwrap(), b"kept");
    }
}
