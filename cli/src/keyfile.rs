//! Key encryption keys on disk: 32 raw bytes, a regular file of mode 0600, made in one step.
//!
//! Keys are never arguments and never printed. A file that others may read is refused rather than repaired: whoever
//! could read it may have.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use cella_seal::{Kek, RandomError};
use zeroize::Zeroizing;

use crate::files::parent;

/// A key from a file, and whether this call made the file.
pub(crate) struct KeyFile {
    pub(crate) kek: Kek,
    pub(crate) created: bool,
}

/// The key in `path`; when there is no such file, a fresh one that is then there.
pub(crate) fn load_or_create(path: &Path) -> Result<KeyFile, KeyFileError> {
    match load(path) {
        Err(KeyFileError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        outcome => return outcome.map(|kek| KeyFile { kek, created: false }),
    }
    let kek = Kek::random().map_err(KeyFileError::Random)?;
    match create(path, &kek) {
        Ok(()) => Ok(KeyFile { kek, created: true }),
        // Somebody else was faster: theirs is the key.
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
            load(path).map(|kek| KeyFile { kek, created: false })
        }
        Err(source) => Err(KeyFileError::Create {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The key in `path`, which must exist.
pub(crate) fn load(path: &Path) -> Result<Kek, KeyFileError> {
    let opened = |source| KeyFileError::Open {
        path: path.to_owned(),
        source,
    };
    let mut file = File::options()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)
        .map_err(opened)?;
    check(path, &file.metadata().map_err(opened)?)?;
    let mut bytes = Zeroizing::new([0_u8; KEY_LEN]);
    file.read_exact(bytes.as_mut_slice()).map_err(opened)?;
    Ok(Kek::from(bytes))
}

/// Bytes of a key file, by its metadata.
fn check(path: &Path, metadata: &Metadata) -> Result<(), KeyFileError> {
    let path = || path.to_owned();
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile { path: path() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Mode { path: path(), mode });
    }
    match metadata.len() {
        len if len == KEY_LEN as u64 => Ok(()),
        found => Err(KeyFileError::Length { path: path(), found }),
    }
}

/// Writes the whole file beside its place, then links it there: no reader sees a part, nothing is overwritten.
fn create(path: &Path, kek: &Kek) -> io::Result<()> {
    let directory = parent(path);
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(kek.expose())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    File::open(directory)?.sync_all()
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KeyFileError {
    /// It cannot be read.
    #[error("reading the key file {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// It cannot be made.
    #[error("creating the key file {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    /// A directory, pipe or device.
    #[error("the key file {} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    /// Others may read it.
    #[error(
        "the key file {} has mode {mode:04o}: others may have read it; if nobody did, run chmod 600 on it, else use a new key",
        path.display()
    )]
    Mode { path: PathBuf, mode: u32 },
    /// Not 32 raw bytes.
    #[error(
        "the key file {} has {found} bytes, a key has exactly {KEY_LEN} raw ones; is it the right file?",
        path.display()
    )]
    Length { path: PathBuf, found: u64 },
    /// No random bytes.
    #[error("drawing a key")]
    Random(#[source] RandomError),
}

const KEY_LEN: usize = 32;
/// A named pipe must not make the open wait.
const O_NONBLOCK: i32 = 0o4000;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_missing_file_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        let first = load_or_create(&path).unwrap();
        assert!(first.created);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o7777), (32, 0o600));
        assert_eq!(fs::read(&path).unwrap(), first.kek.expose());
        let second = load_or_create(&path).unwrap();
        assert!(!second.created && second.kek.same_as(&first.kek));
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn wrong_lengths_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        for length in [0, 31, 33, 44] {
            let _ = fs::remove_file(&path);
            let mut file = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .unwrap();
            file.write_all(&vec![7; length]).unwrap();
            match load_or_create(&path) {
                Err(KeyFileError::Length { found, .. }) => assert_eq!(found, length as u64),
                other => panic!("{length}: {:?}", other.err()),
            }
            assert_eq!(fs::read(&path).unwrap().len(), length);
        }
    }

    #[test]
    fn readable_files_directories_and_missing_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        load_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(load(&path), Err(KeyFileError::Mode { mode: found, .. }) if found == mode));
        }
        assert!(matches!(load(dir.path()), Err(KeyFileError::NotAFile { .. })));
        assert!(matches!(load(&dir.path().join("none")), Err(KeyFileError::Open { .. })));
        assert!(matches!(
            load_or_create(&dir.path().join("a/b")),
            Err(KeyFileError::Create { .. })
        ));
    }
}
