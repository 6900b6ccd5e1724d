//! Bind mounts that are restricted before anybody can see them, on the very place that was looked up.
//!
//! A container that runs already may write to a volume in which another one's mount points lie. A mount that is made first and
//! restricted afterwards, by its path, could be found to be another one, and stay writable.
#![allow(unsafe_code)] // system calls without a wrapper

use std::{
    ffi::CString,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    sys::stat::{SFlag, fstat},
};

/// Binds `source`, a path of the agent's, on `place`, and adds `restrictions` (`MOUNT_ATTR_…`) to those that it has.
pub(super) fn bind(source: &Path, place: &OwnedFd, restrictions: u64) -> Result<(), Errno> {
    let source = CString::new(source.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the kernel reads one string that ends with NUL and is alive; it gives a new descriptor or an error.
    let tree = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags) })?;
    let tree = RawFd::try_from(tree).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor; nobody else knows of it.
    let tree = unsafe { OwnedFd::from_raw_fd(tree) };
    if is_dir(&tree)? != is_dir(place)? {
        return Err(Errno::ENOTDIR);
    }
    let attributes = libc::mount_attr {
        attr_set: restrictions,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the kernel reads an empty string and one structure of the size that it is told, both alive.
    let restricted = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(restricted)?;
    // SAFETY: the kernel reads two empty strings; the descriptors are open.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            place.as_raw_fd(),
            c"".as_ptr(),
            MOVE_BY_DESCRIPTORS,
        )
    };
    Errno::result(moved).map(drop)
}

fn is_dir(place: &OwnedFd) -> Result<bool, Errno> {
    Ok(fstat(place)?.st_mode & libc::S_IFMT == SFlag::S_IFDIR.bits())
}

/// `MOVE_MOUNT_F_EMPTY_PATH` and `MOVE_MOUNT_T_EMPTY_PATH`.
const MOVE_BY_DESCRIPTORS: u32 = 0x4 | 0x40;

#[cfg(test)]
mod tests {
    use std::{fs, io::ErrorKind, os::unix::fs::symlink, thread};

    use nix::{
        fcntl::{OFlag, open},
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
        sys::{
            stat::Mode,
            statvfs::{FsFlags, statvfs},
        },
    };

    use super::*;

    /// Runs `test` in a mount namespace of its own, if this user may make one.
    fn alone(test: impl FnOnce() + Send) {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root to mount");
            return;
        }
        let run = || {
            const NOTHING: Option<&str> = None;
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING).unwrap();
            test();
        };
        thread::scope(|scope| scope.spawn(run).join().unwrap());
    }

    fn place(path: &Path) -> OwnedFd {
        open(path, OFlag::O_PATH, Mode::empty()).unwrap()
    }

    #[test]
    fn a_mount_has_its_restrictions_from_the_start() {
        alone(|| {
            let dir = tempfile::tempdir().unwrap();
            let (source, target) = (dir.path().join("source"), dir.path().join("target"));
            fs::create_dir(&source).unwrap();
            fs::create_dir(&target).unwrap();
            fs::write(source.join("file"), "content").unwrap();
            bind(
                &source,
                &place(&target),
                libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
            )
            .unwrap();
            assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "content");
            let error = fs::write(target.join("file"), "").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
            let flags = FsFlags::ST_RDONLY | FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC;
            assert!(statvfs(&target).unwrap().flags().contains(flags));
            // The source is as it was.
            fs::write(source.join("file"), "new").unwrap();
        });
    }

    #[test]
    fn a_place_that_is_moved_away_is_still_the_place() {
        alone(|| {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            for name in ["source", "target", "other"] {
                fs::create_dir(at(name)).unwrap();
            }
            let target = place(&at("target"));
            fs::rename(at("target"), at("away")).unwrap();
            symlink("other", at("target")).unwrap();
            bind(&at("source"), &target, libc::MOUNT_ATTR_RDONLY).unwrap();
            fs::write(at("other").join("file"), "").unwrap();
            let error = fs::write(at("away").join("file"), "").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
        });
    }

    #[test]
    fn files_go_on_files_and_directories_on_directories() {
        alone(|| {
            let dir = tempfile::tempdir().unwrap();
            let (file, other) = (dir.path().join("file"), dir.path().join("other"));
            fs::write(&file, "content").unwrap();
            fs::write(&other, "").unwrap();
            assert_eq!(bind(&file, &place(dir.path()), 0), Err(Errno::ENOTDIR));
            assert_eq!(bind(dir.path(), &place(&file), 0), Err(Errno::ENOTDIR));
            bind(&file, &place(&other), 0).unwrap();
            assert_eq!(fs::read_to_string(&other).unwrap(), "content");
        });
    }
}
