//! Puts the members of a layer into a directory, in the form that overlayfs wants its lower directories to have.
//!
//! What is unpacked is not authenticated yet, so nothing in it may reach outside: the thread that unpacks has made the
//! directory its root ([`Confined`]), and an absolute path, `..` or a symbolic link leads back into the directory. In
//! addition `..` in a member's name is refused. Space and number of members are charged to a [`Budget`] before they are
//! used. Device nodes are left out: the agent makes a container's /dev itself.
//!
//! Whiteouts: `.wh.NAME` becomes a character device 0:0 called NAME, `.wh..wh..opq` the attribute
//! `trusted.overlay.opaque` of its directory. They speak of lower layers only, never of members of their own.
//! Of extended attributes only `security.capability` is kept: `trusted.overlay.*` would direct overlayfs.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, umask, utimensat},
        time::TimeSpec,
    },
    unistd::{chdir, chroot, mkfifo},
};

use super::{
    archive::{Archive, ArchiveError, Kind, Member},
    budget::Budget,
};

/// Prefix of whiteouts, and of all names that the layer format keeps for itself.
const WHITEOUT: &[u8] = b".wh.";

/// Marks its directory as opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What one member costs beside its data: an inode, its name and slack of the last page.
const MEMBER_COST: u64 = 1024;

/// Smallest unit in which a file takes memory.
const PAGE: u64 = 4096;

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum UnpackError {
    /// The archive is none, or its input failed.
    #[error("its archive cannot be read at member {member}")]
    Archive {
        /// Number of the member, from 1.
        member: u64,
        /// What is wrong.
        #[source]
        source: ArchiveError,
    },
    /// What comes behind the archive cannot be read.
    #[error("what comes behind its archive cannot be read")]
    Trailer(#[source] io::Error),
    /// A member cannot be put anywhere.
    #[error("member {member} of its archive cannot be unpacked: {what}")]
    Member {
        /// Number of the member, from 1.
        member: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// There is no memory for it.
    #[error("it does not fit into {limit} bytes of memory")]
    Space {
        /// What there was for the whole image.
        limit: u64,
    },
    /// The file system refused.
    #[error("unpacking member {member} of its archive failed")]
    Io {
        /// Number of the member, from 1.
        member: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The thread could not be confined.
    #[error("confining the unpacking thread failed")]
    Confine(#[source] io::Error),
}

/// Shows that the current thread's root is a directory made for one layer. Lasts as long as the thread.
#[derive(Debug)]
pub(crate) struct Confined(());

impl Confined {
    /// Makes `directory` the root of the current thread, and of no other. The thread must not be used for anything else.
    pub(crate) fn enter(directory: &Path) -> Result<Self, UnpackError> {
        let enter = || {
            unshare(CloneFlags::CLONE_FS)?;
            chroot(directory)?;
            chdir("/")
        };
        enter().map_err(|errno| UnpackError::Confine(errno.into()))?;
        umask(Mode::empty());
        Ok(Self(()))
    }
}

/// Puts members into the root of a confined thread.
#[derive(Debug)]
pub(crate) struct Unpacker {
    _confined: Confined,
    budget: Arc<Budget>,
    member: u64,
    devices: u64,
    /// The last parent that was found to be a directory.
    parent: PathBuf,
    /// Data is copied through this.
    buffer: Vec<u8>,
}

impl Unpacker {
    /// Unpacks into the root of the current thread, as far as `budget` goes.
    pub(crate) fn new(confined: Confined, budget: Arc<Budget>) -> Self {
        Self {
            _confined: confined,
            budget,
            member: 0,
            devices: 0,
            parent: PathBuf::new(),
            buffer: vec![0; 256 * 1024],
        }
    }

    /// Unpacks all members. Returns the number of device nodes that were left out.
    pub(crate) fn unpack<R: Read>(&mut self, archive: &mut Archive<R>) -> Result<u64, UnpackError> {
        loop {
            self.member += 1;
            match archive.next() {
                Ok(None) => return Ok(self.devices),
                Ok(Some(member)) => self.place(&member, archive)?,
                Err(source) => {
                    return Err(UnpackError::Archive {
                        member: self.member,
                        source,
                    });
                }
            }
        }
    }

    fn place<R: Read>(&mut self, member: &Member, archive: &mut Archive<R>) -> Result<(), UnpackError> {
        let data = member.size.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        self.charge(data.saturating_add(MEMBER_COST))?;
        let Some(path) = self.inside(&member.path)? else {
            // The root itself: only its attributes can be set.
            return if member.kind == Kind::Directory {
                self.attributes(Path::new("/"), member)
            } else {
                Ok(())
            };
        };
        self.parent_of(&path)?;
        let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&path, name);
        }
        match member.kind {
            Kind::Directory => self.directory(&path)?,
            Kind::Device => {
                self.devices += 1;
                return Ok(());
            }
            Kind::File => {
                self.remove(&path)?;
                self.file(&path, archive)?;
            }
            Kind::Symlink => {
                self.remove(&path)?;
                symlink(OsStr::from_bytes(&member.link), &path).map_err(|source| self.io(source))?;
            }
            Kind::HardLink => {
                let target = self
                    .inside(&member.link)?
                    .ok_or_else(|| self.bad("a hard link to the root"))?;
                if target != path {
                    self.remove(&path)?;
                    return fs::hard_link(&target, &path).map_err(|source| self.io(source));
                }
                return Ok(());
            }
            Kind::Fifo => {
                self.remove(&path)?;
                mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|errno| self.io(errno.into()))?;
            }
        }
        self.attributes(&path, member)
    }

    /// The path within the root: absolute and without `.`; `None` for the root itself.
    fn inside(&self, name: &[u8]) -> Result<Option<PathBuf>, UnpackError> {
        if name.contains(&0) {
            return Err(self.bad("its path holds a zero byte"));
        }
        let mut path = PathBuf::from("/");
        for component in Path::new(OsStr::from_bytes(name)).components() {
            match component {
                Component::Normal(part) => path.push(part),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(self.bad("its path holds \"..\"")),
            }
        }
        Ok((path.as_os_str() != "/").then_some(path))
    }

    /// Makes the directories above `path` that are not there. Symbolic links are followed, within the root.
    fn parent_of(&mut self, path: &Path) -> Result<(), UnpackError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if parent == self.parent {
            return Ok(());
        }
        let mut at = PathBuf::new();
        for component in parent.components() {
            at.push(component);
            match fs::metadata(&at) {
                Ok(found) if found.is_dir() => {}
                Ok(found) if is_whiteout(&found) => {
                    self.charge(MEMBER_COST)?;
                    self.directory(&at)?;
                }
                Ok(_) => return Err(self.bad("its parent is not a directory")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.charge(MEMBER_COST)?;
                    self.directory(&at)?;
                }
                Err(source) => return Err(self.io(source)),
            }
        }
        self.parent = parent.to_owned();
        Ok(())
    }

    /// A directory at `path`: one that is there stays, anything else gives way.
    fn directory(&mut self, path: &Path) -> Result<(), UnpackError> {
        let mut hides = false;
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => return Ok(()),
            Ok(found) => {
                // A whiteout of the same name hid what lower layers have there: so must the directory.
                hides = is_whiteout(&found);
                self.remove(path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(self.io(source)),
        }
        fs::create_dir(path).map_err(|source| self.io(source))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(|source| self.io(source))?;
        if hides { self.opaque(path) } else { Ok(()) }
    }

    fn file<R: Read>(&mut self, path: &Path, archive: &mut Archive<R>) -> Result<(), UnpackError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file: File = options.open(path).map_err(|source| self.io(source))?;
        let mut data = archive.data();
        loop {
            let read = match data.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(UnpackError::Archive {
                        member: self.member,
                        source: ArchiveError::Read(error),
                    });
                }
            };
            let part = self.buffer.get(..read).unwrap_or_default();
            file.write_all(part).map_err(|source| self.io(source))?;
        }
    }

    fn attributes(&self, path: &Path, member: &Member) -> Result<(), UnpackError> {
        lchown(path, Some(member.uid), Some(member.gid)).map_err(|source| self.io(source))?;
        if member.kind != Kind::Symlink {
            // After the owner: changing that clears the set-id bits.
            fs::set_permissions(path, fs::Permissions::from_mode(member.mode)).map_err(|source| self.io(source))?;
        }
        if let (Kind::File, Some(value)) = (member.kind, &member.capability) {
            xattr::set(path, "security.capability", value).map_err(|source| self.io(source))?;
        }
        let time = TimeSpec::new(member.mtime, 0);
        utimensat(
            nix::fcntl::AT_FDCWD,
            path,
            &time,
            &time,
            UtimensatFlags::NoFollowSymlink,
        )
        .map_err(|errno| self.io(errno.into()))
    }

    fn whiteout(&mut self, path: &Path, name: &[u8]) -> Result<(), UnpackError> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        if name == OPAQUE {
            return self.opaque(parent);
        }
        let Some(hidden) = name
            .strip_prefix(WHITEOUT)
            .filter(|hidden| !hidden.starts_with(WHITEOUT))
        else {
            return Ok(()); // housekeeping of aufs: it means nothing here
        };
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(self.bad("a whiteout names nothing"));
        }
        let hidden = parent.join(OsStr::from_bytes(hidden));
        match fs::symlink_metadata(&hidden) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                mknod(&hidden, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).map_err(|errno| self.io(errno.into()))
            }
            // The layer has a member of that name already. A file hides what is below by itself.
            Ok(found) if found.is_dir() => self.opaque(&hidden),
            Ok(_) => Ok(()),
            Err(source) => Err(self.io(source)),
        }
    }

    fn opaque(&self, directory: &Path) -> Result<(), UnpackError> {
        xattr::set(directory, "trusted.overlay.opaque", b"y").map_err(|source| self.io(source))
    }

    /// Removes what is at `path`, so that a later member takes the place of an earlier one.
    fn remove(&mut self, path: &Path) -> Result<(), UnpackError> {
        let result = match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => {
                self.parent.clear();
                fs::remove_dir_all(path)
            }
            Ok(found) => {
                if found.is_symlink() {
                    self.parent.clear();
                }
                fs::remove_file(path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => Err(error),
        };
        result.map_err(|source| self.io(source))
    }

    fn charge(&self, bytes: u64) -> Result<(), UnpackError> {
        if self.budget.take(bytes) {
            Ok(())
        } else {
            Err(UnpackError::Space {
                limit: self.budget.limit(),
            })
        }
    }

    fn bad(&self, what: &'static str) -> UnpackError {
        UnpackError::Member {
            member: self.member,
            what,
        }
    }

    /// What the file system's answer means: no space, a member that cannot be, or a fault of the guest.
    fn io(&self, source: io::Error) -> UnpackError {
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::ENOMEM | libc::EDQUOT) => UnpackError::Space {
                limit: self.budget.limit(),
            },
            Some(libc::ELOOP) => self.bad("its path runs in a circle of symbolic links"),
            Some(libc::ENAMETOOLONG) => self.bad("its path is too long"),
            Some(libc::ENOTDIR) => self.bad("its parent is not a directory"),
            Some(libc::ENOENT) => self.bad("it links to nothing"),
            Some(libc::EPERM | libc::EINVAL | libc::EEXIST | libc::EISDIR | libc::EXDEV | libc::ENOTEMPTY) => {
                self.bad("the file system refuses it")
            }
            _ => UnpackError::Io {
                member: self.member,
                source,
            },
        }
    }
}

fn is_whiteout(found: &fs::Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == 0
}

#[cfg(test)]
mod tests;
