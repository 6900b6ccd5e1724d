//! Paths inside an image, followed without ever leaving it.
//!
//! An image may hold symbolic links that point anywhere. Every lookup is `openat2` with `RESOLVE_IN_ROOT`: links are
//! followed as the container will follow them, and `..` at the top stays at the top. Nothing of the container runs yet; what
//! another container moves meanwhile, in a volume that both have, leads to no other place than its links would.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{Mode, mkdirat},
};

/// Opens `path` (absolute in the container) below `root` as a place to mount on or look at.
pub(super) fn open(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let relative = inside(path)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, &relative, how)
}

/// Opens the directory `path` below `root`, making what is missing of it with mode 0755.
pub(super) fn make_dir(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    let relative = inside(path)?;
    let mut reached = PathBuf::from("/");
    let mut dir = open(root, &reached)?;
    for part in relative.components().filter(|part| *part != Component::CurDir) {
        reached.push(part);
        dir = match open(root, &reached) {
            Err(Errno::ENOENT) => {
                mkdirat(&dir, part.as_os_str(), Mode::from_bits_truncate(0o755))?;
                open(root, &reached)?
            }
            other => other?,
        };
    }
    Ok(dir)
}

/// Opens the file `path` below `root` as a place to mount a file on, making it and the directories above when it is
/// missing. A link to nowhere is an error.
pub(super) fn make_file(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    match open(root, path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::EINVAL);
    };
    let dir = make_dir(root, parent)?;
    let how = OpenHow::new()
        .flags(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .mode(Mode::from_bits_truncate(0o644))
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(&dir, name, how)?;
    open(root, path)
}

/// The name by which `mount(2)` reaches an open place.
pub(super) fn name(place: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// The path relative to the root; only absolute paths without `..` are taken.
fn inside(path: &Path) -> Result<PathBuf, Errno> {
    let relative = path.strip_prefix("/").map_err(|_| Errno::EINVAL)?;
    if relative
        .components()
        .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(Errno::EINVAL);
    }
    Ok(if relative.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        relative.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = nix::fcntl::open(dir.path(), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn directories_are_made_below_the_root() {
        let (dir, fd) = root();
        make_dir(&fd, Path::new("/a/b/c")).unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
    }

    #[test]
    fn files_are_made_where_they_are_missing() {
        let (dir, fd) = root();
        make_file(&fd, Path::new("/a/b/file")).unwrap();
        fs::write(dir.path().join("a/b/file"), "kept").unwrap();
        make_file(&fd, Path::new("/a/b/file")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a/b/file")).unwrap(), "kept");
        symlink("/nowhere", dir.path().join("dangling")).unwrap();
        assert_eq!(make_file(&fd, Path::new("/dangling")).unwrap_err(), Errno::EEXIST);
        assert_eq!(make_file(&fd, Path::new("/")).err(), None);
    }

    #[test]
    fn links_do_not_leave_the_root() {
        let (dir, fd) = root();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("absolute")).unwrap();
        symlink("../../../../../..", dir.path().join("up")).unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink("/real", dir.path().join("inner")).unwrap();

        assert_eq!(make_dir(&fd, Path::new("/absolute/x")).unwrap_err(), Errno::EEXIST);
        make_dir(&fd, Path::new("/up/y")).unwrap();
        make_dir(&fd, Path::new("/inner/z")).unwrap();
        assert!(dir.path().join("y").is_dir());
        assert!(dir.path().join("real/z").is_dir());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_plain_absolute_paths_are_taken() {
        let (_dir, fd) = root();
        for path in ["a", "", "/a/../b", "../x"] {
            assert_eq!(make_dir(&fd, Path::new(path)).unwrap_err(), Errno::EINVAL, "{path:?}");
        }
    }
}
