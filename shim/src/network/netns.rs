//! A network namespace by its path, and working in it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, fstat, fstatfs, openat, stat};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::error::NetworkError;

/// `NSFS_MAGIC`: the file system of `/proc/<pid>/ns/`, and of what is bind-mounted from there.
const NSFS: i64 = 0x6e73_6673;

/// Which namespace, for `delete` after the shim's death: a path may lead to another one by then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetNsId {
    /// Where it was found.
    pub path: PathBuf,
    /// Device of its file.
    pub device: u64,
    /// Inode of its file.
    pub inode: u64,
}

/// An open namespace. It exists as long as this does.
#[derive(Debug)]
pub struct NetNs {
    file: OwnedFd,
    id: NetNsId,
}

impl NetNs {
    /// Opens what `path` leads to and checks that it is a network namespace, and not the calling thread's own.
    ///
    /// # Errors
    /// See [`NetworkError`]: nothing there, something else, the host's own.
    pub fn open(path: &Path) -> Result<Self, NetworkError> {
        let failed = |source: rustix::io::Errno| NetworkError::Namespace {
            action: "open",
            path: path.to_owned(),
            source: source.into(),
        };
        // A FIFO or a terminal must not hold the shim up; what it is shows next.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
        if fstatfs(&file).map_err(failed)?.f_type != NSFS {
            return Err(NetworkError::NotANamespace { path: path.to_owned() });
        }
        let found = fstat(&file).map_err(failed)?;
        let own = stat("/proc/thread-self/ns/net").map_err(failed)?;
        if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino) {
            return Err(NetworkError::HostNamespace { path: path.to_owned() });
        }
        let id = NetNsId {
            path: path.to_owned(),
            device: found.st_dev,
            inode: found.st_ino,
        };
        Ok(Self { file, id })
    }

    /// Opens the namespace `id` again; nothing if it is gone, or another one has taken its path.
    ///
    /// # Errors
    /// Something is there that cannot be opened.
    pub fn find(id: &NetNsId) -> Result<Option<Self>, NetworkError> {
        match Self::open(&id.path) {
            Ok(found) => Ok((found.id == *id).then_some(found)),
            Err(NetworkError::Namespace { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(NetworkError::NotANamespace { .. } | NetworkError::HostNamespace { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Which it is.
    pub fn id(&self) -> &NetNsId {
        &self.id
    }

    /// Runs `work` on a thread in this namespace, which ends with it. Blocking. Sockets and taps that it opens belong to the
    /// namespace wherever they are used later.
    ///
    /// # Errors
    /// The kernel does not let the thread in (a namespace of another kind, no `CAP_SYS_ADMIN`), or what `work` says.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, NetworkError> + Send) -> Result<T, NetworkError> {
        let file = &self.file;
        thread::scope(|scope| {
            let builder = thread::Builder::new().name("netns".into()).stack_size(256 * 1024);
            let thread = builder.spawn_scoped(scope, move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|source| {
                    if source == rustix::io::Errno::INVAL {
                        return NetworkError::NotANamespace {
                            path: self.id.path.clone(),
                        };
                    }
                    NetworkError::Namespace {
                        action: "enter",
                        path: self.id.path.clone(),
                        source: source.into(),
                    }
                })?;
                work()
            });
            let thread = thread.map_err(|_| NetworkError::Thread)?;
            thread.join().map_err(|_| NetworkError::Thread)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_network_namespace_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let missing = NetNs::open(&dir.path().join("gone")).unwrap_err();
        assert!(
            matches!(missing, NetworkError::Namespace { action: "open", .. }),
            "{missing}"
        );
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for path in [
            &file,
            dir.path(),
            Path::new("/dev/null"),
            Path::new("/proc/self/status"),
        ] {
            let refused = NetNs::open(path).unwrap_err();
            assert!(matches!(refused, NetworkError::NotANamespace { .. }), "{refused}");
        }
        // A namespace, but of processes' names: the kernel refuses it at the door.
        let uts = NetNs::open(Path::new("/proc/self/ns/uts")).unwrap();
        let refused = uts.run(|| Ok(())).unwrap_err();
        assert!(matches!(refused, NetworkError::NotANamespace { .. }), "{refused}");
    }

    #[test]
    fn the_hosts_own_network_is_refused_by_whatever_path() {
        for path in ["/proc/self/ns/net", "/proc/thread-self/ns/net"] {
            match NetNs::open(Path::new(path)) {
                Err(NetworkError::HostNamespace { .. }) => {}
                other => panic!("{path}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_namespace_that_is_gone_is_not_an_error() {
        let id = NetNsId {
            path: "/run/netns/cella-there-is-none".into(),
            device: 4,
            inode: 1,
        };
        assert!(NetNs::find(&id).unwrap().is_none());
        let taken = NetNsId {
            path: "/proc/self/ns/net".into(),
            ..id
        };
        assert!(NetNs::find(&taken).unwrap().is_none());
    }
}
