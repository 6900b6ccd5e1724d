//! Reading and writing small files.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The whole of a file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(failed)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLong {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

/// The same, as text.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, FileError> {
    String::from_utf8(read(path, limit)?).map_err(|_| FileError::NotText { path: path.to_owned() })
}

/// Puts a file in place in one step, mode 0644, whatever was there before.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace(path, bytes).map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })
}

/// The directory that `path` lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(PUBLIC))
        .tempfile_in(parent(path))?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// Why a file was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FileError {
    /// Reading failed.
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Longer than anything that belongs there.
    #[error("{} is longer than {limit} bytes", path.display())]
    TooLong { path: PathBuf, limit: u64 },
    /// Not UTF-8.
    #[error("{} is not UTF-8 text", path.display())]
    NotText { path: PathBuf },
    /// Writing failed.
    #[error("writing {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Mode of files that hold nothing secret.
pub(crate) const PUBLIC: u32 = 0o644;
/// Longest text file that is read: policies, certificates, rules.
pub(crate) const MAX_TEXT: u64 = 1 << 20;
