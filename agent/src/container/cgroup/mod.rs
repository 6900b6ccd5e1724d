//! cgroup v2: one group a container, with the host's limits.
//!
//! The limits come from the host and are not checked against the policy: with them it can starve a container, as it can
//! starve the machine. They are here so that containers cannot starve each other. What is written is a number, a list of
//! processors or a file from a list ([`limits`]); nothing of the host's becomes a path.

mod limits;
mod stats;
mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::Pid;

pub use limits::{LimitError, Limits, Machine};
pub use stats::{CpuUse, IoUse, MemoryUse, NetworkUse, Stats};

use super::ContainerId;
use crate::guest::signal;

/// Where the containers' groups are.
#[derive(Clone, Debug)]
pub struct CgroupRoot(PathBuf);

/// One container's group.
#[derive(Clone, Debug)]
pub(super) struct Cgroup(PathBuf);

/// Why a group is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("{what} {} of a cgroup failed: {source}", .path.display())]
pub struct CgroupError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl CgroupRoot {
    /// Makes `mount`/cella and hands the controllers on to it.
    pub fn make(mount: &Path) -> Result<Self, CgroupError> {
        let root = Self(mount.join("cella"));
        make_dir(&root.0)?;
        let available = read(mount, "cgroup.controllers")?;
        let wanted = CONTROLLERS
            .iter()
            .filter(|(name, needed)| *needed || available.split_whitespace().any(|one| one == *name))
            .map(|(name, _)| format!("+{name}"));
        let wanted = wanted.collect::<Vec<_>>().join(" ");
        for dir in [mount, &root.0] {
            write(dir, "cgroup.subtree_control", &wanted)?;
        }
        Ok(root)
    }

    /// The directory that all containers' groups are in.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a container's group with its limits.
    pub(super) fn group(&self, id: &ContainerId, limits: &Limits) -> Result<Cgroup, CgroupError> {
        let group = Cgroup(self.0.join(id.as_str()));
        make_dir(&group.0)?;
        // One process out of memory takes the container along: a server without its workers is no server.
        write(&group.0, "memory.oom.group", "1")?;
        group.limit(limits)?;
        Ok(group)
    }

    /// Takes away the group of a container that could not be made; nothing is in it.
    pub(super) fn discard(&self, id: &ContainerId) {
        // Not there where it was the group that could not be made.
        let _ = fs::remove_dir(self.0.join(id.as_str()));
    }

    /// What all containers use together.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        stats::read(&self.0)
    }
}

impl Cgroup {
    /// Its directory, for the launcher to join.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Sets what `limits` has; the rest stays as it is.
    pub(super) fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        limits
            .settings()
            .into_iter()
            .try_for_each(|(file, value)| write(&self.0, &file, &value))
    }

    /// Its processes, as the agent numbers them.
    pub(super) fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        let text = read(&self.0, "cgroup.procs")?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Sends a signal to all of them; one that has just ended is no error.
    pub(super) fn signal(&self, number: i32) -> Result<(), CgroupError> {
        if number == libc::SIGKILL {
            return write(&self.0, "cgroup.kill", "1");
        }
        for pid in self.processes()? {
            let _ = i32::try_from(pid).map(|pid| signal::send(Pid::from_raw(pid), number));
        }
        Ok(())
    }

    /// Stops all its processes, or lets them go on, and waits until the kernel has done so.
    pub(super) async fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        let value = if frozen { "1" } else { "0" };
        write(&self.0, "cgroup.freeze", value)?;
        let settled = watch::until(&self.0, "cgroup.events", |text| {
            watch::value(text, "frozen") == Some(frozen.into())
        });
        match tokio::time::timeout(FREEZE_LIMIT, settled).await {
            Ok(result) => result,
            Err(_) => Err(CgroupError {
                what: "waiting for",
                path: self.0.join("cgroup.events"),
                source: io::ErrorKind::TimedOut.into(),
            }),
        }
    }

    /// What it uses.
    pub(super) fn stats(&self) -> Result<Stats, CgroupError> {
        stats::read(&self.0)
    }

    /// How many of its processes the kernel has killed for want of memory; 0 when that cannot be known.
    pub(super) fn oom_kills(&self) -> u64 {
        let text = read(&self.0, "memory.events").unwrap_or_default();
        watch::value(&text, "oom_kill").unwrap_or(0)
    }

    /// Calls `tell` each time the kernel has killed a process for want of memory, until the group is removed.
    pub(super) async fn watch_memory(&self, mut tell: impl FnMut() + Send) {
        let mut seen = 0;
        // The end of the group is the end of the watch.
        let _ = watch::until(&self.0, "memory.events", |_| {
            let kills = self.oom_kills();
            if kills > seen {
                seen = kills;
                tell();
            }
            false
        })
        .await;
    }

    /// Kills what is left in it and removes it.
    pub(super) async fn remove(&self) -> Result<(), CgroupError> {
        let deadline = tokio::time::Instant::now() + REMOVE_LIMIT;
        loop {
            match fs::remove_dir(&self.0) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(source) if tokio::time::Instant::now() >= deadline => {
                    return Err(CgroupError {
                        what: "removing",
                        path: self.0.clone(),
                        source,
                    });
                }
                // The kernel lets go of a dead process's group a moment after its parent has heard of it.
                Err(_) => {
                    self.signal(libc::SIGKILL)?;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
}

fn make_dir(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|source| CgroupError {
            what: "making",
            path: path.to_owned(),
            source,
        }),
    }
}

fn write(dir: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = dir.join(file);
    fs::write(&path, value).map_err(|source| CgroupError {
        what: "writing",
        path,
        source,
    })
}

fn read(dir: &Path, file: &str) -> Result<String, CgroupError> {
    let path = dir.join(file);
    fs::read_to_string(&path).map_err(|source| CgroupError {
        what: "reading",
        path,
        source,
    })
}

/// Controllers that containers' groups have, and whether there is no doing without.
const CONTROLLERS: [(&str, bool); 5] = [
    ("cpu", true),
    ("memory", true),
    ("pids", true),
    ("cpuset", false),
    ("io", false),
];

const REMOVE_LIMIT: Duration = Duration::from_secs(5);

/// A process in an uninterruptible sleep freezes when it wakes.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_for_want_of_memory_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let group = Cgroup(dir.path().to_owned());
        assert_eq!(group.oom_kills(), 0);
        let events = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 3\noom_group_kill 1\n";
        fs::write(dir.path().join("memory.events"), events).unwrap();
        assert_eq!(group.oom_kills(), 3);
    }
}
