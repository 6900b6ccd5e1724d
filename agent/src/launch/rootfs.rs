//! The container's file system, made in its own mount namespace and entered for good.
//!
//! Everything is mounted below the agent's root first, through descriptors that [`super::resolve`] gave, and only then
//! `pivot_root` leaves the agent's files behind. When the container's last process ends, the namespace and with it every
//! mount is gone: there is nothing to unmount later.

use std::{
    fs,
    io::Write,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, symlink},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{self, OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, fstat, stat},
    unistd::{UnlinkatFlags, chdir, fchdir, pivot_root, unlinkat},
};

use super::{
    MountPlan, StepError,
    bind::bind,
    device,
    plan::LaunchPlan,
    resolve::{self, make_dir, make_file},
};

/// Makes the root as `plan` says and makes it this process's `/`. The process is alone in its mount namespace.
pub(super) fn enter(plan: &LaunchPlan) -> Result<(), StepError> {
    mount_on(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)
        .map_err(StepError::at("make private", "/"))?;
    let root = overlay(plan)?;
    fixed_mounts(&root, plan)?;
    for (path, content) in &plan.files {
        write_file(&root, path, content)?;
    }
    let mut mounts: Vec<&MountPlan> = plan.mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.destination().components().count());
    for planned in mounts {
        policy_mount(&root, planned)?;
    }
    // The working directory may be missing from the image, as with every other runtime.
    make_dir(&root, &plan.process.cwd).map_err(StepError::at("cwd", plan.process.cwd.to_string_lossy()))?;
    let (masked, readonly): (&[&str], &[&str]) = match plan.masks.nothing {
        true => (&[], &[]),
        false => (&MASKED, &READ_ONLY),
    };
    for path in masked
        .iter()
        .map(Path::new)
        .chain(plan.masks.masked.iter().map(PathBuf::as_path))
    {
        mask(&root, path)?;
    }
    for path in readonly
        .iter()
        .map(Path::new)
        .chain(plan.masks.readonly.iter().map(PathBuf::as_path))
    {
        read_only(&root, path)?;
    }
    if plan.readonly_rootfs {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | root_flags(plan);
        mount_on(None, &resolve::name(&root), None, flags, None).map_err(StepError::at("make read-only", "/"))?;
    }
    pivot(&root)
}

/// The image's layers below a tmpfs that takes the container's changes. Layers are named by short links in that tmpfs:
/// all options of a mount share one page, which full paths of a many-layered image would overflow.
fn overlay(plan: &LaunchPlan) -> Result<OwnedFd, StepError> {
    let bundle = plan.bundle.as_path();
    let size = format!("size={}m,mode=0755", plan.writable_mib);
    mount_on(Some("tmpfs"), bundle, Some("tmpfs"), ROOT_FLAGS, Some(&size))
        .map_err(StepError::at("mount", "the writable layer"))?;
    for dir in ["u", "w", "l", "root"] {
        // The first of them gives the container's / its mode.
        fs::DirBuilder::new()
            .mode(0o755)
            .create(bundle.join(dir))
            .map_err(StepError::io("make", "the writable layer"))?;
    }
    for (number, lower) in plan.lower_dirs.iter().enumerate() {
        symlink(lower, bundle.join("l").join(number.to_string())).map_err(StepError::io("link", "an image layer"))?;
    }
    chdir(bundle).map_err(StepError::at("enter", "the writable layer"))?;
    let lower: Vec<String> = (0..plan.lower_dirs.len()).map(|number| format!("l/{number}")).collect();
    let options = format!("lowerdir={},upperdir=u,workdir=w", lower.join(":"));
    mount_on(
        Some("overlay"),
        Path::new("root"),
        Some("overlay"),
        root_flags(plan),
        Some(&options),
    )
    .map_err(StepError::at("mount", "/"))?;
    let root = fcntl::open(
        "root",
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(StepError::at("open", "/"))?;
    chdir("/").map_err(StepError::at("enter", "/"))?;
    Ok(root)
}

/// Where programs may gain privileges, those of the image that are made for it do.
fn root_flags(plan: &LaunchPlan) -> MsFlags {
    match plan.process.no_new_privileges {
        true => ROOT_FLAGS,
        false => MsFlags::MS_NODEV,
    }
}

/// What every container has. containerd's default specification asks for the same.
fn fixed_mounts(root: &OwnedFd, plan: &LaunchPlan) -> Result<(), StepError> {
    let all = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let no_devices = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let device = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let at = |kind: &str, path: &Path, flags: MsFlags, options: Option<&str>| {
        let place = make_dir(root, path)?;
        mount_on(Some(kind), &resolve::name(&place), Some(kind), flags, options)
    };
    let step = |path: &'static str| StepError::at("mount", path);
    at("proc", Path::new("/proc"), all, None).map_err(step("/proc"))?;
    at("tmpfs", Path::new("/dev"), device, Some("mode=0755,size=64k")).map_err(step("/dev"))?;
    let dev = resolve::open(root, Path::new("/dev")).map_err(StepError::at("open", "/dev"))?;
    let dev_dir = fcntl::open(
        &resolve::name(&dev),
        OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(StepError::at("open", "/dev"))?;
    device::populate(&dev_dir)?;
    for path in &plan.devices {
        device::copy(root, path)?;
    }
    at(
        "devpts",
        device::pts(),
        device,
        Some("newinstance,ptmxmode=0666,mode=0620"),
    )
    .map_err(step("/dev/pts"))?;
    match &plan.shm {
        // Its flags are those that the agent mounted it with.
        Some(shm) => make_dir(root, Path::new("/dev/shm")).and_then(|place| bind(shm, &place, 0)),
        None => make_dir(root, Path::new("/dev/shm")).and_then(|place| {
            let options = Some("mode=1777,size=64m");
            mount_on(Some("shm"), &resolve::name(&place), Some("tmpfs"), all, options)
        }),
    }
    .map_err(step("/dev/shm"))?;
    at("mqueue", Path::new("/dev/mqueue"), all, None).map_err(step("/dev/mqueue"))?;
    let all_read = if plan.masks.writable {
        all
    } else {
        all | MsFlags::MS_RDONLY
    };
    at("sysfs", Path::new("/sys"), all_read, None).map_err(step("/sys"))?;
    if plan.cgroup.is_some() {
        at("cgroup2", Path::new("/sys/fs/cgroup"), all_read, None).map_err(step("/sys/fs/cgroup"))?;
    }
    at("tmpfs", Path::new("/run"), no_devices, Some("mode=0755,size=16m")).map_err(step("/run"))
}

fn policy_mount(root: &OwnedFd, planned: &MountPlan) -> Result<(), StepError> {
    let destination = planned.destination();
    let shown = destination.to_string_lossy();
    let is_file = match planned {
        MountPlan::Volume { source, .. } => {
            let found = stat(source).map_err(StepError::at("look at volume", shown.clone()))?;
            found.st_mode & libc::S_IFMT != SFlag::S_IFDIR.bits()
        }
        _ => false,
    };
    let place = if is_file {
        make_file(root, destination)
    } else {
        make_dir(root, destination)
    };
    let place = place.map_err(StepError::at("make mount point", shown.clone()))?;
    match planned {
        MountPlan::Model { source, .. } => bind(source, &place, LOOK_ONLY).map_err(StepError::at("mount model", shown)),
        MountPlan::Volume { source, read_only, .. } => {
            let read_only = if *read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
            bind(
                source,
                &place,
                libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | read_only,
            )
            .map_err(StepError::at("mount volume", shown))
        }
        MountPlan::Tmpfs { size_mib, .. } => {
            let options = format!("mode=1777,size={size_mib}m");
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount_on(
                Some("tmpfs"),
                &resolve::name(&place),
                Some("tmpfs"),
                flags,
                Some(&options),
            )
            .map_err(StepError::at("mount", shown))
        }
    }
}

/// Covers a path that tells about, or acts on, the machine. Only its absence is no error.
fn mask(root: &OwnedFd, path: &Path) -> Result<(), StepError> {
    let step = StepError::at("mask", path.to_string_lossy());
    let place = match resolve::open(root, path) {
        Err(errno) if device::is_missing(errno) => return Ok(()),
        other => other,
    };
    place
        .and_then(|place| {
            let kind = fstat(&place)?.st_mode & libc::S_IFMT;
            if kind == SFlag::S_IFDIR.bits() {
                let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                mount_on(
                    Some("tmpfs"),
                    &resolve::name(&place),
                    Some("tmpfs"),
                    flags,
                    Some("size=0,nr_inodes=1,mode=0555"),
                )
            } else {
                let null = resolve::open(root, Path::new("/dev/null"))?;
                bind(&resolve::name(&null), &place, 0)
            }
        })
        .map_err(step)
}

fn read_only(root: &OwnedFd, path: &Path) -> Result<(), StepError> {
    let place = match resolve::open(root, path) {
        Err(errno) if device::is_missing(errno) => return Ok(()),
        other => other,
    };
    place
        .and_then(|place| bind(&resolve::name(&place), &place, LOOK_ONLY))
        .map_err(StepError::at("make read-only", path.to_string_lossy()))
}

/// Puts a file of the agent's into the root, in place of whatever the image has there.
fn write_file(root: &OwnedFd, path: &Path, content: &str) -> Result<(), StepError> {
    let shown = path.to_string_lossy();
    let (parent, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => (parent, PathBuf::from(name)),
        _ => return Err(StepError::at("write", shown)(Errno::EINVAL)),
    };
    let dir = make_dir(root, parent).map_err(StepError::at("make", parent.to_string_lossy()))?;
    match unlinkat(&dir, &name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(StepError::at("replace", shown)(errno)),
    }
    let how = OpenHow::new()
        .flags(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .mode(Mode::from_bits_truncate(0o644))
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = openat2(&dir, &name, how).map_err(StepError::at("create", shown.clone()))?;
    fs::File::from(file)
        .write_all(content.as_bytes())
        .map_err(StepError::io("write", shown))
}

/// Makes `root` this process's root and lets go of the old one.
fn pivot(root: &OwnedFd) -> Result<(), StepError> {
    let step = |errno| StepError::at("enter", "the container's root")(errno);
    fchdir(root).map_err(step)?;
    // Old root and new root on one spot: the old one ends up on top and is detached.
    pivot_root(".", ".").map_err(step)?;
    umount2(".", MntFlags::MNT_DETACH).map_err(step)?;
    chdir("/").map_err(step)
}

fn mount_on(
    source: Option<&str>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), Errno> {
    mount(source, target, kind, flags, options)
}

const ROOT_FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// For a bind mount that is there to be read.
const LOOK_ONLY: u64 =
    libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// What containerd masks by default, and a little more that a guest kernel tells about itself.
const MASKED: [&str; 17] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/bootconfig",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: [&str; 6] = [
    "/proc/bus",
    "/proc/driver",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
