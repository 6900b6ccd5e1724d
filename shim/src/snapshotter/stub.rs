//! The root that containers have on the host: a folder with `etc/passwd` and `etc/group`, and nothing else.
//!
//! containerd mounts it, read-only, to look users up by name; see [`crate::users`] for what it finds. One folder serves all
//! containers. A file is written beside and renamed over the old one, so that a reader sees one or the other.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::users::{BadNames, Names, UserError, load};

/// The folder and what it says.
pub(crate) struct Stub {
    root: PathBuf,
    names: Names,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StubError {
    /// The file system failed.
    #[error("the containers' root on the host at {path}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Somebody else has written it.
    #[error("{path}: {what}. Containers that run may depend on it: end them, move the folder away, and start again")]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// Where.
        what: BadNames,
    },
}

impl Stub {
    /// Opens the folder `rootfs` in `folder`, or makes it.
    pub(crate) fn open(folder: &Path) -> Result<Self, StubError> {
        let root = folder.join("rootfs");
        let etc = root.join("etc");
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&etc);
        made.map_err(|source| StubError::Io { path: etc, source })?;
        let (names, missing) = match load(&root) {
            Ok(names) => (names, false),
            Err(UserError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => (Names::default(), true),
            Err(UserError::Bad(what)) => return Err(StubError::Damaged { path: root, what }),
            Err(UserError::Read { path, source }) => return Err(StubError::Io { path, source }),
            Err(_) => {
                return Err(StubError::Io {
                    path: root,
                    source: io::ErrorKind::InvalidData.into(),
                });
            }
        };
        let mut stub = Self { root, names };
        let mut names = stub.names.clone();
        if names.merge(&Names::standard()) || missing {
            stub.replace(names)?;
        }
        Ok(stub)
    }

    /// What is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Adds the names in each `User` of an image's configuration.
    pub(crate) fn learn(&mut self, users: &[String]) -> Result<(), StubError> {
        let mut names = self.names.clone();
        if users.iter().filter(|user| names.learn(user)).count() == 0 {
            return Ok(());
        }
        self.replace(names)
    }

    fn replace(&mut self, names: Names) -> Result<(), StubError> {
        let etc = self.root.join("etc");
        for (name, text) in [("passwd", names.passwd()), ("group", names.group())] {
            let path = etc.join(name);
            let new = self.root.with_file_name(format!("{name}.new"));
            replace(&path, &new, &etc, &text).map_err(|source| StubError::Io { path, source })?;
        }
        self.names = names;
        Ok(())
    }
}

fn replace(path: &Path, new: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o644).open(new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outlive_the_process_and_keep_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let mut stub = Stub::open(folder.path()).unwrap();
        stub.learn(&["zoe:zgroup".to_owned(), "1000".to_owned()]).unwrap();
        let names = stub.names.clone();
        drop(stub);
        assert_eq!(Stub::open(folder.path()).unwrap().names, names);
        let passwd = fs::read_to_string(folder.path().join("rootfs/etc/passwd")).unwrap();
        assert!(
            passwd.contains("\nzoe:x:") && passwd.contains("\nnobody:x:"),
            "{passwd}"
        );
    }

    #[test]
    fn half_written_files_are_finished_and_damaged_ones_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        drop(Stub::open(folder.path()).unwrap());
        // Killed between the two files, the first time.
        let group = folder.path().join("rootfs/etc/group");
        fs::remove_file(&group).unwrap();
        drop(Stub::open(folder.path()).unwrap());
        assert!(group.exists());
        fs::write(&group, "root:x:0:\nevil:x:0:\n").unwrap();
        assert!(matches!(Stub::open(folder.path()), Err(StubError::Damaged { .. })));
        assert_eq!(fs::read_to_string(&group).unwrap(), "root:x:0:\nevil:x:0:\n");
    }
}
