//! A process by number and start time, so that a number that was used again is not mistaken for it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// Which process: enough to find it again after the shim has died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Identity {
    /// "qemu", "vhost-device-vsock", …
    pub name: String,
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the host booted (`/proc/<pid>/stat`, field 22).
    pub start_ticks: u64,
}

/// What became of an [`Identity`] that was to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillOutcome {
    /// It had ended before, or the number belongs to another process now.
    Gone,
    /// It was killed and has ended.
    Killed,
    /// It was sent SIGKILL and has not ended within the time given.
    Lingers,
}

/// A process that cannot be identified or killed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// `/proc/<pid>/stat` is unreadable.
    #[error("cannot read /proc/{pid}/stat")]
    Stat {
        /// The process.
        pid: i32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `/proc/<pid>/stat` has another form.
    #[error("/proc/{pid}/stat has no start time")]
    Form {
        /// The process.
        pid: i32,
    },
    /// Not a process number.
    #[error("{pid} is not a process")]
    Pid {
        /// The number.
        pid: i32,
    },
    /// The kernel refuses.
    #[error("cannot signal process {pid}")]
    Signal {
        /// The process.
        pid: i32,
        /// Why not.
        #[source]
        source: Errno,
    },
}

impl Identity {
    /// Identifies the process `pid`, which must not have been reaped.
    ///
    /// # Errors
    /// `/proc` is not there or reads otherwise.
    pub fn of(name: &str, pid: i32) -> Result<Self, IdentityError> {
        Ok(Self {
            name: name.to_owned(),
            pid,
            start_ticks: stat(pid)?.start_ticks,
        })
    }

    /// Whether the process still runs. One that has ended and was not reaped yet does not.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_ok_and(|stat| stat.start_ticks == self.start_ticks && !stat.ended)
    }

    /// Kills the process if it is still the same one, and waits up to `patience` for its end. Blocking.
    ///
    /// # Errors
    /// The number is none, or the kernel refuses.
    pub fn kill(&self, patience: Duration) -> Result<KillOutcome, IdentityError> {
        let pid = self.pid;
        // Checked first: `Pid::from_raw` panics on negative numbers.
        let number = if pid > 1 { Pid::from_raw(pid) } else { None };
        let number = number.ok_or(IdentityError::Pid { pid })?;
        // The descriptor pins the process: from here on the number cannot be used again behind our back.
        let pidfd: OwnedFd = match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return Ok(KillOutcome::Gone),
            Err(source) => return Err(IdentityError::Signal { pid, source }),
        };
        if !self.is_alive() {
            return Ok(KillOutcome::Gone);
        }
        match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) => {}
            Err(Errno::SRCH) => return Ok(KillOutcome::Gone),
            Err(source) => return Err(IdentityError::Signal { pid, source }),
        }
        let ended = wait_readable(&pidfd, patience).map_err(|source| IdentityError::Signal { pid, source })?;
        Ok(if ended {
            KillOutcome::Killed
        } else {
            KillOutcome::Lingers
        })
    }
}

fn wait_readable(fd: &OwnedFd, patience: Duration) -> Result<bool, Errno> {
    let timeout = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).map(|ready| ready > 0)
}

struct Stat {
    start_ticks: u64,
    ended: bool,
}

fn stat(pid: i32) -> Result<Stat, IdentityError> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|source| IdentityError::Stat { pid, source })?;
    parse_stat(&text).ok_or(IdentityError::Form { pid })
}

/// Fields 3 (state) and 22 (start time); the second field is the program's name in parentheses and may contain anything.
fn parse_stat(stat: &str) -> Option<Stat> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    Some(Stat {
        start_ticks: fields.nth(18)?.parse().ok()?,
        ended,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn start_time_is_found_behind_any_name() {
        let fields = (4..=30).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let parsed = |stat: &str| parse_stat(stat).map(|stat| (stat.start_ticks, stat.ended));
        assert_eq!(parsed(&format!("7 (a) Z (c) S {fields}")), Some((22, false)));
        assert_eq!(parsed(&format!("7 (a) Z {fields}")), Some((22, true)));
        assert_eq!(parsed("7 (a) S 4"), None);
        assert_eq!(parsed(""), None);
    }

    #[test]
    fn only_the_very_process_is_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().try_into().unwrap();
        let identity = Identity::of("sleep", pid).unwrap();
        let other = Identity {
            start_ticks: identity.start_ticks + 1,
            ..identity.clone()
        };
        assert_eq!(other.kill(Duration::from_secs(1)).unwrap(), KillOutcome::Gone);
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(identity.is_alive());
        assert_eq!(identity.kill(Duration::from_secs(5)).unwrap(), KillOutcome::Killed);
        assert!(!identity.is_alive(), "a zombie is not alive");
        child.wait().unwrap();
        assert_eq!(identity.kill(Duration::from_secs(1)).unwrap(), KillOutcome::Gone);
    }

    #[test]
    fn init_and_nonsense_are_never_killed() {
        for pid in [1, 0, -1] {
            let identity = Identity {
                name: "x".into(),
                pid,
                start_ticks: 0,
            };
            assert!(matches!(identity.kill(Duration::ZERO), Err(IdentityError::Pid { .. })));
        }
    }
}
