//! `kill` and `waitpid` for any signal number; nix names only the 31 classic ones.
#![allow(unsafe_code)]

use nix::{errno::Errno, unistd::Pid};

/// Sends `signal` to one process.
pub(crate) fn send(pid: Pid, signal: i32) -> Result<(), Errno> {
    if pid.as_raw() <= 0 {
        return Err(Errno::EINVAL);
    }
    // SAFETY: kill takes two integers and touches no memory; pid is positive, so it names one process.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

/// A child that ended, with its exit code or 128 + its signal.
pub(crate) struct Ended {
    pub(crate) pid: i32,
    pub(crate) status: u32,
}

/// Reaps one child that has ended; `None` when there is none at the moment.
pub(crate) fn reap_one() -> Option<Ended> {
    loop {
        let mut raw: libc::c_int = 0;
        // SAFETY: the kernel writes one int to a live local.
        match Errno::result(unsafe { libc::waitpid(-1, &raw mut raw, libc::WNOHANG) }) {
            Ok(0) => return None,
            Ok(pid) => {
                return Some(Ended {
                    pid,
                    status: decode(raw),
                });
            }
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

fn decode(raw: libc::c_int) -> u32 {
    if libc::WIFSIGNALED(raw) {
        128 + libc::WTERMSIG(raw).unsigned_abs()
    } else {
        libc::WEXITSTATUS(raw).unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_words_are_decoded() {
        assert_eq!(decode(0), 0);
        assert_eq!(decode(3 << 8), 3);
        assert_eq!(decode(9), 137);
        assert_eq!(decode(34), 162);
        assert_eq!(decode(11 | 0x80), 139);
    }

    #[test]
    fn groups_and_everybody_cannot_be_signalled() {
        assert_eq!(send(Pid::from_raw(0), 0), Err(Errno::EINVAL));
        assert_eq!(send(Pid::from_raw(-1), 0), Err(Errno::EINVAL));
    }
}
