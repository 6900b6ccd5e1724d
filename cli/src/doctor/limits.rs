//! Room for pods: cgroups, paths, memory, disk.

use std::path::Path;

use super::facts::Facts;
use super::host::Host;
use super::{Check, Finding};
use crate::units;

/// How the host's cgroups lie.
pub(super) struct Cgroups;

impl Check for Cgroups {
    fn name(&self) -> &'static str {
        "cgroups"
    }

    fn run(&self, host: &Host, _: &Facts) -> Finding {
        let unified = host.text("/sys/fs/cgroup/cgroup.controllers");
        match unified {
            Some(controllers) if controllers.contains("memory") => Finding::ok("v2"),
            Some(_) => Finding::warning(
                "v2, but the controller memory is not there",
                "boot without cgroup_disable=memory, or delegate it: the kubelet needs it",
            ),
            None if host.exists("/sys/fs/cgroup/memory") => Finding::warning(
                "v1 or hybrid: works with containerd's cgroupfs driver (SystemdCgroup = false)",
                "boot with systemd.unified_cgroup_hierarchy=1 where you can; guests are v2 either way",
            ),
            None => Finding::failed("no cgroup file system on /sys/fs/cgroup", "mount it"),
        }
    }
}

/// The parent of the run directories.
pub(super) struct RunDir;

impl Check for RunDir {
    fn name(&self) -> &'static str {
        "run directory"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let path = facts.path("run-dir", RUN_DIR);
        let length = path.as_os_str().len();
        if length > MAX_RUN_DIR || !path.is_absolute() {
            return Finding::failed(
                format!("{} has {length} bytes", path.display()),
                "set run-dir to an absolute path of at most 64 bytes: Unix socket paths end at 107",
            );
        }
        let mounts = host.text("/proc/mounts").unwrap_or_default();
        match file_system(&mounts, &path) {
            Some("tmpfs" | "ramfs") | None => Finding::ok(path.display().to_string()),
            Some(kind) => Finding::warning(
                format!("{} lies on {kind}", path.display()),
                "put it on a tmpfs, such as /run: it holds sockets and console logs",
            ),
        }
    }
}

/// The file system of the mount that `path` lies in.
fn file_system<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let lines = mounts.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        Some((words.nth(1)?, words.next()?))
    });
    lines
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind)
}

/// Memory for at least one guest.
pub(super) struct Memory;

impl Check for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let meminfo = host.text("/proc/meminfo").unwrap_or_default();
        let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib: Option<u64> = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
        let Some(available) = kib.map(|kib| kib * 1024) else {
            return Finding::warning("/proc/meminfo does not say what is available", "");
        };
        let guest = facts.number("memory-mib", 1024).saturating_mul(1 << 20);
        let text = format!(
            "{} available, a guest has at least {}",
            units::bytes(available),
            units::bytes(guest)
        );
        if available >= guest {
            Finding::ok(text)
        } else {
            Finding::warning(
                text,
                "end something, or lower memory-mib: a confidential guest's memory cannot be swapped",
            )
        }
    }
}

/// Room for sockets, logs and the record of snapshots.
pub(super) struct Disk;

impl Check for Disk {
    fn name(&self) -> &'static str {
        "disk space"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let run_dir = facts.path("run-dir", RUN_DIR);
        let mut seen = Vec::new();
        for (path, least) in [(run_dir.as_path(), 16 << 20), (Path::new("/var/lib"), 1 << 30)] {
            // What is not there yet will be on the file system of its nearest ancestor.
            let mut place = host.path(path);
            while !place.exists() && place.pop() {}
            let Ok(space) = rustix::fs::statvfs(&place) else {
                return Finding::warning(format!("{} cannot be looked at", place.display()), "");
            };
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let text = format!("{} free below {}", units::bytes(free), path.display());
            if free < least {
                return Finding::warning(text, format!("make room: at least {}", units::bytes(least)));
            }
            seen.push(text);
        }
        Finding::ok(seen.join(", "))
    }
}

const RUN_DIR: &str = "/run/cella";
/// The shim's own bound.
const MAX_RUN_DIR: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_counts() {
        let mounts = "dev / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\nx /run/other xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/run/cella")), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/running")), Some("ext4"));
        assert_eq!(file_system("", Path::new("/run")), None);
    }
}
