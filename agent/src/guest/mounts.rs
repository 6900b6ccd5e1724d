//! The agent's own file systems.

use std::{fs, fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::Path};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    unistd::{chdir, chroot, dup2_stderr, dup2_stdin, dup2_stdout},
};

/// Where cgroup v2 is.
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";

/// Mounts everything that the agent needs and puts the console on its standard streams.
pub(super) fn make() -> Result<(), MountError> {
    rebind_root()?;
    for Fs {
        kind,
        path,
        flags,
        options,
    } in FILE_SYSTEMS
    {
        make_dir(path)?;
        mount(Some(*kind), *path, Some(*kind), *flags, *options).map_err(|source| MountError::Mount {
            kind,
            path,
            source,
        })?;
        if *kind == "devtmpfs" {
            console()?;
        }
    }
    for path in ["/run/cella", "/etc"] {
        make_dir(path)?;
    }
    Ok(())
}

/// Why the agent's file systems are not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// A file system could not be mounted.
    #[error("mounting {kind} on {path} failed")]
    Mount {
        /// Which.
        kind: &'static str,
        /// Where.
        path: &'static str,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A directory could not be made.
    #[error("making {path} failed")]
    Dir {
        /// Which.
        path: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The root could not be bound over itself.
    #[error("binding the root over itself failed while {what}")]
    Rebind {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// The console could not be opened.
    #[error("opening the console failed")]
    Console(#[source] io::Error),
}

/// `pivot_root` refuses to leave the kernel's own initramfs mount, so containers need a root that is a mount upon it.
fn rebind_root() -> Result<(), MountError> {
    let failed = |what| move |source| MountError::Rebind { what, source };
    make_dir("/mnt")?;
    mount(Some("/"), "/mnt", NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING).map_err(failed("binding"))?;
    chdir("/mnt").map_err(failed("entering"))?;
    mount(Some("."), "/", NOTHING, MsFlags::MS_MOVE, NOTHING).map_err(failed("moving"))?;
    chroot(".").map_err(failed("changing root"))?;
    chdir("/").map_err(failed("entering the root"))
}

/// The kernel may have started us without standard streams.
fn console() -> Result<(), MountError> {
    let console = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open("/dev/console")
        .map_err(MountError::Console)?;
    dup2_stdin(&console)
        .and_then(|()| dup2_stdout(&console))
        .and_then(|()| dup2_stderr(&console))
        .map_err(|errno| MountError::Console(errno.into()))
}

fn make_dir(path: &'static str) -> Result<(), MountError> {
    if Path::new(path).is_dir() {
        return Ok(());
    }
    fs::create_dir(path).map_err(|source| MountError::Dir { path, source })
}

struct Fs {
    kind: &'static str,
    path: &'static str,
    flags: MsFlags,
    options: Option<&'static str>,
}

/// In order: each may need those before it. /run holds unpacked images, whose programs run from there.
const FILE_SYSTEMS: &[Fs] = &[
    Fs {
        kind: "devtmpfs",
        path: "/dev",
        flags: NO_EXEC,
        options: Some("mode=0755"),
    },
    Fs {
        kind: "proc",
        path: "/proc",
        flags: NOTHING_SPECIAL,
        options: None,
    },
    Fs {
        kind: "sysfs",
        path: "/sys",
        flags: NOTHING_SPECIAL,
        options: None,
    },
    Fs {
        kind: "cgroup2",
        path: CGROUPS,
        flags: NOTHING_SPECIAL,
        options: None,
    },
    Fs {
        kind: "configfs",
        path: "/sys/kernel/config",
        flags: NOTHING_SPECIAL,
        options: None,
    },
    Fs {
        kind: "tmpfs",
        path: "/run",
        flags: NO_DEVICES,
        options: Some("mode=0755,size=90%"),
    },
    Fs {
        kind: "tmpfs",
        path: "/tmp",
        flags: NOTHING_SPECIAL,
        options: Some("mode=0700,size=16m"),
    },
];

const NO_EXEC: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);
const NO_DEVICES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const NOTHING_SPECIAL: MsFlags = NO_EXEC.union(MsFlags::MS_NODEV);
const NOTHING: Option<&str> = None;
