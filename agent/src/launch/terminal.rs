//! A process's pseudo-terminal, made where the process will live.
//!
//! It comes from the container's own devpts, so that `tty` and `ttyname` find it there. In a container that runs already,
//! `/dev` may be anything: what is opened is looked at before it is used, and opening it can neither block nor follow a
//! link.
#![allow(unsafe_code)] // ioctls

use std::{
    io::IoSlice,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MsFlags, mount},
    sys::{
        socket::{ControlMessage, MsgFlags, sendmsg},
        stat::{Mode, fstat, makedev},
        statfs::fstatfs,
    },
    unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown},
};

use super::{ProcessPlan, StepError, TerminalSize, report::Report};

/// A new terminal, both sides.
pub(super) struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
}

impl Terminal {
    /// Makes one in the devpts of this mount namespace, owned by the process's user.
    pub(super) fn make(plan: &ProcessPlan, size: TerminalSize) -> Result<Self, StepError> {
        let failed = |errno| StepError::at("make", "a terminal")(errno);
        let master = open_multiplexer().map_err(StepError::at("open", PTMX))?;
        let unlock: libc::c_int = 0;
        // SAFETY: the kernel reads one int from a live local; the descriptor is a pseudo-terminal's master side.
        Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })
            .map_err(failed)?;
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        // SAFETY: the request takes open flags by value and gives a new descriptor or an error.
        let slave = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) })
            .map_err(failed)?;
        // SAFETY: the kernel has just made this descriptor; nobody else knows of it.
        let slave = unsafe { OwnedFd::from_raw_fd(slave) };
        fchown(&slave, Some(Uid::from_raw(plan.uid)), None::<Gid>).map_err(failed)?;
        if size != TerminalSize::default() {
            let size = libc::winsize {
                ws_row: size.rows,
                ws_col: size.columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            // SAFETY: the kernel reads one winsize from a live local.
            Errno::result(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
                .map_err(failed)?;
        }
        Ok(Self { master, slave })
    }

    /// Makes it the container's `/dev/console`. The process is alone in its mount namespace, `/dev` is fresh.
    pub(super) fn be_console(&self) -> Result<(), StepError> {
        let console = Path::new("/dev/console");
        let how = OpenHow::new()
            .flags(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .mode(Mode::from_bits_truncate(0o600))
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        let step = |errno| StepError::at("make", "/dev/console")(errno);
        drop(openat2(nix::fcntl::AT_FDCWD, console, how).map_err(step)?);
        let slave = format!("/proc/self/fd/{}", self.slave.as_raw_fd());
        mount(Some(slave.as_str()), console, NOTHING, MsFlags::MS_BIND, NOTHING).map_err(step)
    }

    /// Hands the master side to the agent.
    pub(super) fn send(&self, to: &UnixStream) -> Result<(), StepError> {
        let line = Report::Terminal.line();
        let descriptors = [self.master.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(
            to.as_raw_fd(),
            &[IoSlice::new(line.as_bytes())],
            &control,
            MsgFlags::empty(),
            None,
        )
        .map(drop)
        .map_err(StepError::at("report", "a terminal"))
    }

    /// Makes it this session's terminal and the process's standard streams. The process leads its session.
    pub(super) fn take(self) -> Result<(), StepError> {
        let failed = |errno| StepError::at("take", "the terminal")(errno);
        let no_theft: libc::c_int = 0;
        // SAFETY: the request takes an int by value.
        Errno::result(unsafe { libc::ioctl(self.slave.as_raw_fd(), libc::TIOCSCTTY, no_theft) }).map_err(failed)?;
        dup2_stdin(&self.slave)
            .and_then(|()| dup2_stdout(&self.slave))
            .and_then(|()| dup2_stderr(&self.slave))
            .map_err(failed)
    }
}

fn open_multiplexer() -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let opened = openat2(nix::fcntl::AT_FDCWD, PTMX, how)?;
    let is_multiplexer = fstat(&opened)?.st_rdev == makedev(5, 2);
    if is_multiplexer && fstatfs(&opened)?.filesystem_type().0 == DEVPTS_MAGIC {
        Ok(opened)
    } else {
        Err(Errno::ENOTTY)
    }
}

const PTMX: &str = "/dev/pts/ptmx";

/// `DEVPTS_SUPER_MAGIC` of `linux/magic.h`.
const DEVPTS_MAGIC: libc::c_long = 0x1cd1;

const NOTHING: Option<&str> = None;
