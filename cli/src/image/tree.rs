//! A directory tree as a tar archive that depends on names, contents and modes only: entries sorted, times, owners and
//! device numbers zero.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

/// Writes the tree below `root` to `out` and returns the writer. The root itself is not an entry.
pub(crate) fn write_tree<W: Write>(root: &Path, out: W) -> Result<W, TreeError> {
    let metadata = fs::metadata(root).map_err(|source| TreeError::Read {
        path: root.to_owned(),
        source,
    })?;
    if !metadata.is_dir() {
        return Err(TreeError::NotADirectory { path: root.to_owned() });
    }
    let mut archive = Builder::new(out);
    write_children(&mut archive, root, Path::new(""))?;
    archive.into_inner().map_err(|source| TreeError::Write { source })
}

fn write_children<W: Write>(archive: &mut Builder<W>, root: &Path, below: &Path) -> Result<(), TreeError> {
    let directory = root.join(below);
    let failed = |source| TreeError::Read {
        path: directory.clone(),
        source,
    };
    let mut names = fs::read_dir(&directory)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed)?;
    names.sort();
    for name in names {
        write_entry(archive, root, &below.join(name))?;
    }
    Ok(())
}

fn write_entry<W: Write>(archive: &mut Builder<W>, root: &Path, inside: &Path) -> Result<(), TreeError> {
    let path = root.join(inside);
    let failed = |source| TreeError::Read {
        path: path.clone(),
        source,
    };
    let metadata = fs::symlink_metadata(&path).map_err(failed)?;
    let kind = metadata.file_type();
    let mut header = Header::new_gnu();
    header.set_mode(metadata.permissions().mode() & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
        archive
            .append_data(&mut header, inside, io::empty())
            .map_err(|source| TreeError::Write { source })?;
        write_children(archive, root, inside)
    } else if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        let target = fs::read_link(&path).map_err(failed)?;
        archive
            .append_link(&mut header, inside, target)
            .map_err(|source| TreeError::Write { source })
    } else if kind.is_file() {
        header.set_entry_type(EntryType::Regular);
        let file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        header.set_size(length);
        let mut exact = Exact {
            from: file,
            left: length,
        };
        archive
            .append_data(&mut header, inside, &mut exact)
            .map_err(|source| TreeError::Entry {
                path: path.clone(),
                source,
            })
    } else {
        Err(TreeError::Special { path })
    }
}

/// Exactly as many bytes as the header promised, or an error: never a shifted archive.
struct Exact {
    from: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let count = self.from.read(buf.get_mut(..limit).unwrap_or_default())?;
        if count == 0 && limit > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Why a tree was not archived.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TreeError {
    /// Reading the tree failed.
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file changed, or the archive could not be written.
    #[error("archiving {}", path.display())]
    Entry { path: PathBuf, source: io::Error },
    /// The archive could not be written.
    #[error("writing the archive")]
    Write { source: io::Error },
    /// The root is something else.
    #[error("{} is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    /// Devices, sockets and pipes are made in the container, not shipped.
    #[error("{} is a device, socket or pipe; images hold files, directories and links only", path.display())]
    Special { path: PathBuf },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn sample(root: &Path, order: &[&str]) {
        for name in order {
            fs::write(root.join(name), name).unwrap();
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d").join("x".repeat(200)), b"long name").unwrap();
        symlink("b", root.join("link")).unwrap();
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let archives: Vec<Vec<u8>> = [["a", "b", "c"], ["c", "a", "b"]]
            .iter()
            .map(|order| {
                let dir = tempfile::tempdir().unwrap();
                sample(dir.path(), order);
                write_tree(dir.path(), Vec::new()).unwrap()
            })
            .collect();
        assert_eq!(archives[0], archives[1]);
        let mut reader = tar::Archive::new(archives[0].as_slice());
        let mut paths = Vec::new();
        for entry in reader.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()),
                (0, 0, 0)
            );
            paths.push(entry.path().unwrap().to_string_lossy().into_owned());
        }
        let long = format!("d/{}", "x".repeat(200));
        assert_eq!(paths, ["a", "b", "c", "d", long.as_str(), "link"]);
    }

    #[test]
    fn devices_sockets_and_files_are_no_trees() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        assert!(matches!(
            write_tree(dir.path(), Vec::new()),
            Err(TreeError::Special { .. })
        ));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            write_tree(file.path(), Vec::new()),
            Err(TreeError::NotADirectory { .. })
        ));
        assert!(matches!(
            write_tree(Path::new("/nonexistent"), Vec::new()),
            Err(TreeError::Read { .. })
        ));
    }
}
