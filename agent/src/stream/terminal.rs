//! The agent's side of a process's pseudo-terminal.
//!
//! The terminal is made in the container's own devpts when the process starts, but its streams are on offer before: they
//! wait. Input and output are the same descriptor. What the last holder of the other side left is read before the end.
#![allow(unsafe_code)] // one ioctl, and a registration with the runtime

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::{read, write},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    sync::watch,
};

use crate::launch::TerminalSize;

/// A process's terminal, there or yet to come.
#[derive(Debug, Default)]
pub struct Terminal {
    master: watch::Sender<Option<Master>>,
    size: Mutex<TerminalSize>,
}

/// Waits for a terminal; over when its process cannot start any more.
pub type Pending = watch::Receiver<Option<Master>>;

/// The open terminal. Clones share it.
#[derive(Clone, Debug)]
pub struct Master(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    /// For a stream that will be the terminal.
    pub fn pending(&self) -> Pending {
        self.master.subscribe()
    }

    /// The size that was asked for last.
    pub fn size(&self) -> TerminalSize {
        *self.lock()
    }

    /// The process has started: its terminal is there. Needs a runtime.
    pub fn open(&self, master: OwnedFd) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: the registration owns the descriptor; nothing else closes it or puts another in its place.
        let registered = unsafe { AsyncFd::register(master) }.map_err(io::Error::from)?;
        let master = Master(Arc::new(registered));
        let size = self.lock();
        // Again: it may have changed since the process was given it.
        master.resize(*size)?;
        self.master.send_replace(Some(master));
        Ok(())
    }

    /// Sets the size, now or when the terminal is there.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let mut wanted = self.lock();
        *wanted = size;
        self.master
            .borrow()
            .as_ref()
            .map_or(Ok(()), |master| master.resize(size))
    }

    fn lock(&self) -> MutexGuard<'_, TerminalSize> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Master {
    fn resize(&self, size: TerminalSize) -> io::Result<()> {
        if size == TerminalSize::default() {
            return Ok(());
        }
        let size = libc::winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the descriptor is open as long as `self` lives; the kernel reads one winsize from a live local.
        let result = unsafe { libc::ioctl(self.0.get_ref().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        Errno::result(result)?;
        Ok(())
    }
}

impl AsyncRead for Master {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            match guard.try_io(|fd| Ok(read_rest(fd.get_ref(), buffer.initialize_unfilled())?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

/// Reads; 0 when nobody holds the other side any more and everything that was written there is read.
///
/// The kernel says EIO too early: when the last holder writes and goes while a reader waits for what was written before, the
/// reader finds the last write not yet passed on and the other side closed. A second read waits for it to be passed on.
fn read_rest(fd: &OwnedFd, bytes: &mut [u8]) -> nix::Result<usize> {
    let again = match read(fd, bytes) {
        Err(Errno::EIO) => read(fd, bytes),
        first => first,
    };
    match again {
        Err(Errno::EIO) => Ok(0),
        read => read,
    }
}

impl AsyncWrite for Master {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| Ok(write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
