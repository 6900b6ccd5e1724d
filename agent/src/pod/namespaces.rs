//! The namespaces that a pod's containers share: System V and POSIX messages, and the host name. Its network is the
//! guest's own.
//!
//! A thread leaves the agent's namespaces, sets them up and ends; descriptors keep what it made. Launchers reach them by
//! the agent's `/proc` directory, so nothing has to be mounted anywhere.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::sethostname,
};

use super::{Sysctl, SysctlError};

/// Namespaces that are there as long as this is.
#[derive(Debug)]
pub(super) struct Namespaces {
    ipc: File,
    uts: File,
}

/// Why a pod's namespaces could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// The kernel refused.
    #[error("{what} for the pod failed")]
    Kernel {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A thread or a file was not to be had.
    #[error("{what} for the pod failed")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A kernel parameter.
    #[error("{0}")]
    Sysctl(#[source] SysctlError),
}

impl Namespaces {
    /// Makes them: host name, then the host's kernel parameters. Blocks for milliseconds.
    pub(super) fn make(hostname: &str, sysctls: &[Sysctl]) -> Result<Self, NamespaceError> {
        let io = |what| move |source| NamespaceError::Io { what, source };
        thread::scope(|scope| {
            let made = thread::Builder::new()
                .name("namespaces".into())
                .spawn_scoped(scope, || Self::make_here(hostname, sysctls))
                .map_err(io("starting a thread"))?;
            made.join()
                .unwrap_or_else(|_| Err(io("making namespaces")(io::ErrorKind::Other.into())))
        })
    }

    /// Where a launcher finds the IPC namespace.
    pub(super) fn ipc(&self) -> PathBuf {
        reachable(&self.ipc)
    }

    /// Where a launcher finds the UTS namespace.
    pub(super) fn uts(&self) -> PathBuf {
        reachable(&self.uts)
    }

    /// On a thread that does nothing else.
    fn make_here(hostname: &str, sysctls: &[Sysctl]) -> Result<Self, NamespaceError> {
        let kernel = |what| move |source| NamespaceError::Kernel { what, source };
        let open = |path: &str| {
            File::open(path).map_err(|source| NamespaceError::Io {
                what: "opening namespaces",
                source,
            })
        };
        unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS).map_err(kernel("making namespaces"))?;
        sethostname(hostname).map_err(kernel("setting the host name"))?;
        for sysctl in sysctls {
            sysctl.set(Path::new("/proc/sys")).map_err(NamespaceError::Sysctl)?;
        }
        Ok(Self {
            ipc: open("/proc/thread-self/ns/ipc")?,
            uts: open("/proc/thread-self/ns/uts")?,
        })
    }
}

/// A descriptor of ours as another process of this machine opens it.
pub(super) fn reachable(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn a_pod_has_its_own_name_and_messages() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root to make namespaces");
            return;
        }
        let before = nix::unistd::gethostname().unwrap();
        let sysctls = Sysctl::parse(&[("fs.mqueue.msg_max".to_owned(), "100".to_owned())].into()).unwrap();
        let made = Namespaces::make("pod-7", &sysctls).unwrap();
        assert_eq!(nix::unistd::gethostname().unwrap(), before);
        for (path, own) in [(made.ipc(), "/proc/self/ns/ipc"), (made.uts(), "/proc/self/ns/uts")] {
            assert_ne!(fs::metadata(path).unwrap().ino(), fs::metadata(own).unwrap().ino());
        }
        let seen = thread::spawn(move || {
            nix::sched::setns(&made.uts, CloneFlags::CLONE_NEWUTS).unwrap();
            nix::sched::setns(&made.ipc, CloneFlags::CLONE_NEWIPC).unwrap();
            let maximum = fs::read_to_string("/proc/sys/fs/mqueue/msg_max").unwrap();
            (nix::unistd::gethostname().unwrap().into_string().unwrap(), maximum)
        });
        assert_eq!(seen.join().unwrap(), ("pod-7".to_owned(), "100\n".to_owned()));
    }
}
