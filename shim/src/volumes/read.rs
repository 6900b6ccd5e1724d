//! The files of a ConfigMap, Secret, projected or downward API volume, read from where kubelet put them.
//!
//! kubelet writes a version into a folder `..<time>`, points the symlink `..data` at it and has symlinks in the volume's root
//! lead there. What is read is therefore the folder behind `..data`, once, so that no mixture of two versions can come
//! out. Symlinks are followed only inside the volume (`RESOLVE_BENEATH`): whoever can write into one volume must not be able
//! to have another file of the host copied. Everything is bounded, and nothing but files and folders is read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cella_protos::agent::VolumeFile;
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2, readlinkat};

/// Most bytes of one volume, contents and names together: one request to the agent, whose frame holds 4 MiB.
pub const MAX_BYTES: usize = 3 << 20 | 1 << 19;
/// Most files of one volume.
pub const MAX_FILES: usize = 1024;
/// Deepest folder.
const MAX_DEPTH: usize = 16;
/// What a file costs beside its name and content: the message's own fields.
const FILE_COST: usize = 32;
/// How often a version is read again that kubelet took away meanwhile.
const TRIES: usize = 3;
/// kubelet's symlink to the version that holds.
const DATA: &str = "..data";

/// A volume that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The system failed.
    #[error("reading {path}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A FIFO, socket or device.
    #[error("{path} is neither a file nor a folder")]
    Special {
        /// Which.
        path: PathBuf,
    },
    /// A name that is not UTF-8.
    #[error("{path} is not UTF-8")]
    Name {
        /// Which, as far as it can be shown.
        path: PathBuf,
    },
    /// More than fits.
    #[error("{path} holds more than {MAX_FILES} files, {MAX_BYTES} bytes, or {MAX_DEPTH} folders in one another")]
    TooLarge {
        /// The volume.
        path: PathBuf,
    },
}

/// All files of the volume at `root`, by path; or the one file that it is, with the path "". Blocking.
///
/// # Errors
/// See [`ReadError`].
pub fn read(root: &Path) -> Result<Vec<VolumeFile>, ReadError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match once(root) {
            // The version went away while it was read: there is a newer one.
            Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
            result => return result,
        }
    }
}

fn once(root: &Path) -> Result<Vec<VolumeFile>, ReadError> {
    let mut reading = Reading {
        root,
        files: Vec::new(),
        bytes: 0,
    };
    let top = open(root, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
    let top = top.map_err(|errno| reading.io("", errno))?;
    match FileType::from_raw_mode(fstat(&top).map_err(|errno| reading.io("", errno))?.st_mode) {
        FileType::RegularFile => {
            let file = open(root, FILE | OFlags::NOFOLLOW, Mode::empty()).map_err(|errno| reading.io("", errno))?;
            reading.file(file, "")?;
        }
        FileType::Directory => {
            let top = open(root, FOLDER | OFlags::NOFOLLOW, Mode::empty()).map_err(|errno| reading.io("", errno))?;
            let mut version = String::new();
            if let Ok(target) = readlinkat(&top, DATA, Vec::new()) {
                target.to_str().unwrap_or_default().clone_into(&mut version);
            }
            if version.is_empty() {
                reading.folder(top.as_fd(), &top, "", "", 0)?;
            } else {
                let folder = beneath(&top, &version, FOLDER).map_err(|errno| reading.io(&version, errno))?;
                reading.folder(top.as_fd(), &folder, &version, "", 0)?;
            }
        }
        _ => return Err(ReadError::Special { path: root.to_owned() }),
    }
    reading.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(reading.files)
}

const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::DIRECTORY);

/// `path` inside `top`, symlinks included.
fn beneath(top: impl AsFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(top, path, flags, Mode::empty(), resolve)
}

struct Reading<'a> {
    root: &'a Path,
    files: Vec<VolumeFile>,
    bytes: usize,
}

impl Reading<'_> {
    /// Everything in `folder`, which lies at `place` in the volume and is `path` to the container.
    fn folder(
        &mut self,
        top: BorrowedFd<'_>,
        folder: &OwnedFd,
        place: &str,
        path: &str,
        depth: usize,
    ) -> Result<(), ReadError> {
        if depth > MAX_DEPTH {
            return Err(self.too_large());
        }
        for entry in Dir::read_from(folder).map_err(|errno| self.io(place, errno))? {
            let entry = entry.map_err(|errno| self.io(place, errno))?;
            let name = entry.file_name().to_bytes();
            // "." and "..", and at the top kubelet's own.
            if name == b"." || name == b".." || (depth == 0 && name.starts_with(b"..")) {
                continue;
            }
            let Ok(name) = std::str::from_utf8(name) else {
                let name = self.root.join(place).join(std::ffi::OsStr::from_bytes(name));
                return Err(ReadError::Name { path: name });
            };
            let (place, path) = (join(place, name), join(path, name));
            self.spend(path.len() + FILE_COST)?;
            let found = beneath(top, &place, OFlags::PATH | OFlags::CLOEXEC).map_err(|errno| self.io(&place, errno))?;
            let stat = fstat(&found).map_err(|errno| self.io(&place, errno))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let inner = beneath(top, &place, FOLDER).map_err(|errno| self.io(&place, errno))?;
                    self.folder(top, &inner, &place, &path, depth + 1)?;
                }
                FileType::RegularFile => {
                    let file = beneath(top, &place, FILE).map_err(|errno| self.io(&place, errno))?;
                    self.file(file, &path)?;
                }
                _ => return Err(self.special(&place)),
            }
        }
        Ok(())
    }

    fn file(&mut self, file: OwnedFd, path: &str) -> Result<(), ReadError> {
        let stat = fstat(&file).map_err(|errno| self.io(path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.special(path));
        }
        if self.files.len() >= MAX_FILES {
            return Err(self.too_large());
        }
        let room = u64::try_from(MAX_BYTES.saturating_sub(self.bytes)).unwrap_or(0);
        let mut content = Vec::new();
        let read = File::from(file).take(room + 1).read_to_end(&mut content);
        read.map_err(|source| ReadError::Io {
            path: self.root.join(path),
            source,
        })?;
        self.spend(content.len())?;
        self.files.push(VolumeFile {
            path: path.to_owned(),
            mode: stat.st_mode & 0o777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            content,
            ..Default::default()
        });
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_BYTES {
            return Err(self.too_large());
        }
        Ok(())
    }

    fn too_large(&self) -> ReadError {
        ReadError::TooLarge {
            path: self.root.to_owned(),
        }
    }

    fn special(&self, place: &str) -> ReadError {
        ReadError::Special {
            path: self.root.join(place),
        }
    }

    fn io(&self, place: &str, errno: rustix::io::Errno) -> ReadError {
        ReadError::Io {
            path: self.root.join(place),
            source: errno.into(),
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

#[cfg(test)]
mod tests;
