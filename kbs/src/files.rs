//! Files that hold secrets, and files that must be whole: their modes, their bounds, how they are written.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Largest key, certificate or configuration file.
const MAX_FILE: u64 = 256 * 1024;

/// A file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Opening or reading failed.
    #[error("reading {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Creating, writing or syncing failed.
    #[error("writing {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A secret that others can read is no secret any more.
    #[error("{} has mode {mode:04o}: only its owner may have access; replace the secret, then chmod 600", path.display())]
    NotPrivate {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// More than is read.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// How many bytes are read.
        limit: u64,
    },
    /// A text file that is not UTF-8.
    #[error("{} is not UTF-8 text", path.display())]
    NotText {
        /// Which file.
        path: PathBuf,
    },
}

/// Reads a secret file whole. Refused when group or others have any access.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = open(path)?;
    let mode = file
        .metadata()
        .map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?
        .mode()
        & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::NotPrivate {
            path: path.to_owned(),
            mode,
        });
    }
    read(path, file)
}

/// Reads a public text file whole.
pub(crate) fn read_text(path: &Path) -> Result<String, FileError> {
    let bytes = read(path, open(path)?)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| FileError::NotText { path: path.to_owned() })
}

/// Reads a public file of at most `limit` bytes whole.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    Ok(read_within(path, open(path)?, limit)?.to_vec())
}

/// Creates a file with mode 0600 and syncs it; fails when the file is there.
pub(crate) fn create_private(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(contents)?;
        file.sync_all()
    };
    write().map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Replaces a file as a whole, mode 0600: readers see the old contents or the new, never a part.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    remove(&temporary)?;
    create_private(&temporary, contents)?;
    std::fs::rename(&temporary, path).map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Removes a file that an earlier run left, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(FileError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })
}

fn read(path: &Path, file: File) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_within(path, file, MAX_FILE)
}

fn read_within(path: &Path, file: File, limit: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    // Room for all of it at once: a vector that grows would leave copies of a secret behind.
    let length = file.metadata().map(|m| m.len()).unwrap_or(0).min(limit);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        create_private(&path, b"secret").unwrap();
        assert_eq!(&**read_private(&path).unwrap(), b"secret");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            read_private(&path),
            Err(FileError::NotPrivate { mode: 0o640, .. })
        ));
    }

    #[test]
    fn create_never_overwrites_and_replace_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        create_private(&path, b"one").unwrap();
        assert!(matches!(create_private(&path, b"two"), Err(FileError::Write { .. })));
        replace(&path, b"three").unwrap();
        assert_eq!(read_text(&path).unwrap(), "three");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn large_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        create_private(&path, &vec![b'x'; 256 * 1024 + 1]).unwrap();
        assert!(matches!(read_private(&path), Err(FileError::TooLarge { .. })));
    }
}
