//! Files of the node, below its root.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use crate::files::{self, FileError, MAX_TEXT, PUBLIC};

/// A node's root directory.
pub(super) struct Target {
    root: PathBuf,
}

impl Target {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A text file; none where there is none. A link is refused: replacing it would cut it from what manages it.
    pub(super) fn read(&self, path: &Path) -> Result<Option<String>, TargetError> {
        let real = self.real(path)?;
        match fs::symlink_metadata(&real) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(metadata) if !metadata.is_file() => Err(TargetError::Kind { path: real }),
            Ok(_) | Err(_) => Ok(Some(files::read_text(&real, MAX_TEXT)?)),
        }
    }

    /// Puts a file in place in one step, with the mode of the one before; parents are made.
    pub(super) fn write(&self, path: &Path, text: &str) -> Result<(), TargetError> {
        let real = self.real(path)?;
        let put = || -> io::Result<()> {
            let parent = files::parent(&real);
            fs::create_dir_all(parent)?;
            let mode = fs::metadata(&real).map_or(PUBLIC, |metadata| metadata.permissions().mode() & 0o777);
            let mut file = tempfile::Builder::new()
                .permissions(Permissions::from_mode(mode))
                .tempfile_in(parent)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            // The umask does not count for a file that was there.
            file.as_file().set_permissions(Permissions::from_mode(mode))?;
            file.persist(&real)?;
            Ok(())
        };
        put().map_err(|source| TargetError::Change {
            path: real.clone(),
            source,
        })
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), TargetError> {
        let real = self.real(path)?;
        match fs::remove_file(&real) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(TargetError::Change { path: real, source }),
            _ => Ok(()),
        }
    }

    /// Parents of `paths` that are not there yet, outermost first.
    pub(super) fn missing_parents<'a>(&self, paths: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
        let mut missing: Vec<PathBuf> = paths
            .flat_map(|path| path.ancestors().skip(1))
            .filter(|dir| self.real(dir).is_ok_and(|real| !real.exists()))
            .map(Path::to_owned)
            .collect();
        missing.sort();
        missing.dedup();
        missing
    }

    /// A directory that was made for the files; somebody may have put more into it.
    pub(super) fn remove_if_empty(&self, dir: &Path) {
        if let Ok(real) = self.real(dir) {
            let _ = fs::remove_dir(real);
        }
    }

    /// Paths are absolute and go only downwards: a record that says otherwise is not ours.
    fn real(&self, path: &Path) -> Result<PathBuf, TargetError> {
        let inside = path.strip_prefix("/").ok();
        let inside = inside.filter(|path| path.components().all(|part| matches!(part, Component::Normal(_))));
        inside
            .map(|path| self.root.join(path))
            .ok_or_else(|| TargetError::Path { path: path.to_owned() })
    }
}

/// A file that cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TargetError {
    /// Reading.
    #[error(transparent)]
    Read(#[from] FileError),
    /// Writing or removing.
    #[error("changing {}; `cellactl uninstall` takes out what was written so far", path.display())]
    Change { path: PathBuf, source: io::Error },
    /// A link, a directory.
    #[error("{} is no plain file: something else manages it, so bring the change in there", path.display())]
    Kind { path: PathBuf },
    /// Not a path of a node's.
    #[error("{} is not an absolute, normalised path", path.display())]
    Path { path: PathBuf },
}
