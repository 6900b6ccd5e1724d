//! Folders that are made beside their place and get their name in one step, when they are whole.
//!
//! `DIR` is made in `.DIR.unfinished/content`, under a lock. Whoever reads `DIR` sees nothing or everything; what a killed
//! program left is taken over or wiped by the next run.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::files::parent;

/// A folder in the making. Dropped before [`Staging::publish`], it is gone, unless [`Staging::keep`] was called.
#[derive(Debug)]
pub(crate) struct Staging {
    target: PathBuf,
    around: PathBuf,
    /// Held as long as this lives.
    _lock: File,
    keep: bool,
}

impl Staging {
    /// Begins anew, whatever an earlier run left. `mode` is of the folder: 0o755, or 0o700 for what is secret.
    pub(crate) fn fresh(target: &Path, mode: u32) -> Result<Self, StagingError> {
        let staging = Self::resume(target, mode)?;
        let content = staging.path();
        let failed = |source| StagingError::Make {
            path: content.clone(),
            source,
        };
        fs::remove_dir_all(&content).map_err(failed)?;
        DirBuilder::new().mode(mode).create(&content).map_err(failed)?;
        Ok(staging)
    }

    /// Goes on with what an earlier run left.
    pub(crate) fn resume(target: &Path, mode: u32) -> Result<Self, StagingError> {
        let name = target.file_name().ok_or_else(|| StagingError::Name {
            path: target.to_owned(),
        })?;
        check_free(target)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".unfinished");
        let around = parent(target).join(hidden);
        let failed = |source| StagingError::Make {
            path: around.clone(),
            source,
        };
        fs::create_dir_all(parent(target)).map_err(failed)?;
        make(&around, 0o700).map_err(failed)?;
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(around.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StagingError::Busy {
                    path: target.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        make(&around.join(CONTENT), mode).map_err(failed)?;
        Ok(Self {
            target: target.to_owned(),
            around,
            _lock: lock,
            keep: false,
        })
    }

    /// Where the folder is made.
    pub(crate) fn path(&self) -> PathBuf {
        self.around.join(CONTENT)
    }

    /// Leaves everything for the next run, from now on.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }

    /// Gives the folder its name.
    pub(crate) fn publish(mut self) -> Result<(), StagingError> {
        let failed = |source| StagingError::Publish {
            path: self.target.clone(),
            source,
        };
        // Takes the place of an empty folder and of nothing else.
        fs::rename(self.path(), &self.target).map_err(failed)?;
        File::open(parent(&self.target))
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
        self.keep = false;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed now is wiped by the next run.
            let _ = fs::remove_dir_all(&self.around);
        }
    }
}

/// Absent, or an empty folder.
fn check_free(target: &Path) -> Result<(), StagingError> {
    let failed = |source| StagingError::Make {
        path: target.to_owned(),
        source,
    };
    match fs::read_dir(target) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(StagingError::NotEmpty {
                path: target.to_owned(),
            }),
        },
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::NotADirectory => Err(StagingError::NotEmpty {
            path: target.to_owned(),
        }),
        Err(source) => Err(failed(source)),
    }
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(path)?.is_dir() => Ok(()),
        done => done,
    }
}

/// Why a folder cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StagingError {
    /// `..` or the like.
    #[error("{} is no name for a new folder", path.display())]
    Name { path: PathBuf },
    /// It would be mixed with something else.
    #[error("{} is not empty; name a new directory, or remove this one first", path.display())]
    NotEmpty { path: PathBuf },
    /// Another run is at it.
    #[error("{} is being written by another cellactl", path.display())]
    Busy { path: PathBuf },
    /// It cannot be made.
    #[error("making {}", path.display())]
    Make { path: PathBuf, source: io::Error },
    /// It cannot be put in place.
    #[error("putting {} in place", path.display())]
    Publish { path: PathBuf, source: io::Error },
}

const CONTENT: &str = "content";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/out");
        let staging = Staging::fresh(&target, 0o755).unwrap();
        fs::write(staging.path().join("x"), b"x").unwrap();
        assert!(!target.exists());
        assert!(matches!(Staging::fresh(&target, 0o755), Err(StagingError::Busy { .. })));
        drop(staging);
        assert_eq!(
            fs::read_dir(dir.path().join("a")).unwrap().count(),
            0,
            "nothing is left"
        );
        let staging = Staging::fresh(&target, 0o755).unwrap();
        fs::write(staging.path().join("x"), b"x").unwrap();
        staging.publish().unwrap();
        assert_eq!(fs::read(target.join("x")).unwrap(), b"x");
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
        assert!(matches!(
            Staging::fresh(&target, 0o755),
            Err(StagingError::NotEmpty { .. })
        ));
        assert!(matches!(
            Staging::fresh(Path::new(".."), 0o755),
            Err(StagingError::Name { .. })
        ));
    }

    #[test]
    fn what_was_kept_is_resumed_or_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let mut staging = Staging::resume(&target, 0o755).unwrap();
        fs::write(staging.path().join("x"), b"x").unwrap();
        staging.keep();
        drop(staging);
        let staging = Staging::resume(&target, 0o755).unwrap();
        assert!(staging.path().join("x").exists());
        std::mem::forget(staging);
        // The lock is gone with its file descriptor: as after a kill.
        let forgotten = dir.path().join(".out.unfinished");
        assert!(forgotten.exists());
    }
}
