//! cgroup v2: one group a container, with the host's limits.
//!
//! The limits come from the host and are not checked against the policy: with them it can starve a container, as it can
//! starve the machine. They are here so that containers cannot starve each other.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::Pid;

use super::ContainerId;
use crate::guest::signal;

/// Where the containers' groups are.
#[derive(Clone, Debug)]
pub struct CgroupRoot(PathBuf);

/// One container's group.
#[derive(Clone, Debug)]
pub(super) struct Cgroup(PathBuf);

/// Limits of a container; 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// CPU time in each period, in µs.
    pub cpu_quota_us: u64,
    /// The period, in µs; 0 = the kernel's 100 ms.
    pub cpu_period_us: u64,
    /// Share of the CPU as cgroup v1 counts it, 2 to 262144.
    pub cpu_shares: u64,
    /// Processes and threads.
    pub pids: u64,
}

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
        for dir in [mount, &root.0] {
            write(dir, "cgroup.subtree_control", "+cpu +memory +pids")?;
        }
        Ok(root)
    }

    /// Makes a container's group with its limits.
    pub(super) fn group(&self, id: &ContainerId, limits: Limits) -> Result<Cgroup, CgroupError> {
        let group = Cgroup(self.0.join(id.as_str()));
        make_dir(&group.0)?;
        for (file, value) in limits.settings() {
            write(&group.0, file, &value)?;
        }
        Ok(group)
    }
}

impl Limits {
    /// Files and what to write into them.
    fn settings(self) -> Vec<(&'static str, String)> {
        // One process out of memory takes the container along: a server without its workers is no server.
        let mut settings = vec![("memory.oom.group", "1".to_owned())];
        if self.memory_bytes > 0 {
            settings.push(("memory.max", self.memory_bytes.to_string()));
        }
        if self.cpu_quota_us > 0 {
            let period = if self.cpu_period_us > 0 {
                self.cpu_period_us
            } else {
                100_000
            };
            settings.push(("cpu.max", format!("{} {period}", self.cpu_quota_us)));
        }
        if self.cpu_shares > 0 {
            // The mapping that systemd and every runtime use: 2..262144 onto 1..10000.
            let shares = self.cpu_shares.clamp(2, 262_144);
            settings.push(("cpu.weight", (1 + (shares - 2) * 9_999 / 262_142).to_string()));
        }
        if self.pids > 0 {
            settings.push(("pids.max", self.pids.to_string()));
        }
        settings
    }
}

impl Cgroup {
    /// Its directory, for the launcher to join.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Its processes, as the agent numbers them.
    pub(super) fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        let path = self.0.join("cgroup.procs");
        let text = fs::read_to_string(&path).map_err(|source| CgroupError {
            what: "reading",
            path,
            source,
        })?;
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

const REMOVE_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_settings() {
        let limits = Limits {
            memory_bytes: 1 << 30,
            cpu_quota_us: 50_000,
            cpu_shares: 1024,
            pids: 100,
            ..Limits::default()
        };
        let expected = [
            ("memory.oom.group", "1"),
            ("memory.max", "1073741824"),
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "39"),
            ("pids.max", "100"),
        ];
        assert_eq!(
            limits.settings(),
            expected.map(|(file, value)| (file, value.to_owned()))
        );
        assert_eq!(Limits::default().settings().len(), 1);
        let extreme = Limits {
            cpu_shares: u64::MAX,
            ..Limits::default()
        };
        assert_eq!(extreme.settings().last().unwrap().1, "10000");
    }
}
