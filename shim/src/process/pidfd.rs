//! A pidfd in the async reactor.
#![allow(
    unsafe_code,
    reason = "tokio leaves it to the caller that the descriptor stays the same one"
)]

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that cannot be mistaken for another one, whose end can be awaited.
pub(super) struct Pidfd(AsyncFd<OwnedFd>);

impl Pidfd {
    /// Opens the process `pid`, which must be a child that was not reaped.
    pub(super) fn open(pid: Pid) -> io::Result<Self> {
        let fd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // SAFETY: the descriptor is open and owned by the OwnedFd, whose `as_raw_fd` always gives the same number; the AsyncFd
        // owns that in turn, never lends it mutably and is never taken apart, so it stays open for as long as the registration.
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        registered.map(Self).map_err(io::Error::from)
    }

    /// Returns when the process has ended. May be cancelled and called again: readiness never goes away.
    pub(super) async fn ended(&self) {
        // An error means that the reactor is gone, and everything with it.
        let _ = self.0.ready(Interest::READABLE).await;
    }

    /// Sends a signal, unless the process has been reaped.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(self.0.get_ref(), signal);
    }
}
