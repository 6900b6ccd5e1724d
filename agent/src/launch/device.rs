//! The container's `/dev`: a tmpfs with the seven harmless nodes, pseudo-terminals, shared memory and queues.

use std::{os::fd::AsFd, path::Path};

use nix::{
    errno::Errno,
    sys::stat::{Mode, SFlag, makedev, mknodat},
    unistd::symlinkat,
};

use super::StepError;

/// Makes the nodes and links in an empty directory that is or will be `/dev`. The process's umask must be 0.
pub(super) fn populate(dev: impl AsFd) -> Result<(), StepError> {
    let dev = dev.as_fd();
    for (name, major, minor) in NODES {
        mknodat(
            dev,
            name,
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            makedev(major, minor),
        )
        .map_err(StepError::at("make", format!("/dev/{name}")))?;
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name).map_err(StepError::at("link", format!("/dev/{name}")))?;
    }
    Ok(())
}

/// Whether `errno` says that a path is not there.
pub(super) fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR)
}

/// Where the pseudo-terminals are.
pub(super) fn pts() -> &'static Path {
    Path::new("/dev/pts")
}

const NODES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
