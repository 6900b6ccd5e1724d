//! The container's `/dev`: a tmpfs with the seven harmless nodes, pseudo-terminals, shared memory and queues.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::stat::{Mode, SFlag, makedev, mknodat, stat},
    unistd::symlinkat,
};

use super::{StepError, resolve};

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

/// Makes a node like the guest's own of that path, which the container's root is not yet in the way of.
pub(super) fn copy(root: &OwnedFd, path: &Path) -> Result<(), StepError> {
    let step = |errno| StepError::at("make", path.to_string_lossy())(errno);
    let found = stat(path).map_err(step)?;
    let kind = SFlag::from_bits_truncate(found.st_mode & libc::S_IFMT);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(step(Errno::EINVAL));
    };
    if !matches!(kind, SFlag::S_IFCHR | SFlag::S_IFBLK) {
        return Err(step(Errno::ENODEV));
    }
    let dir = resolve::make_dir(root, parent).map_err(step)?;
    match mknodat(&dir, name, kind, Mode::from_bits_truncate(found.st_mode), found.st_rdev) {
        // One of the harmless ones.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(step(errno)),
    }
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
