//! Process 1 of a process namespace that the pod's containers share: it collects orphans and does nothing else.
//!
//! Containers of that namespace see it in `/proc`, so it has nothing to show: an empty root, no descriptors, no
//! environment, no capability, a user of its own, and it cannot be traced or looked into.
#![allow(unsafe_code)] // fork, sigaction, close_range

use std::{fs, io::Write, process::ExitCode};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    },
    unistd::{ForkResult, Gid, Uid, chdir, fork, pause, pivot_root, setgroups, setresgid, setresuid, setsid},
};

use super::{
    StepError,
    capabilities::{self, CapabilitySet},
};

/// The whole life of the starting process and of the init itself: for `main`, when `argv[0]` is [`super::INIT_NAME`].
/// It reports on standard output: `pid` and its number, or `error` and a line.
pub fn main() -> ExitCode {
    let Err(error) = start() else {
        return ExitCode::SUCCESS;
    };
    // With the pipe gone there is nobody left to tell.
    let _ = writeln!(std::io::stdout(), "error {}", error.line());
    ExitCode::FAILURE
}

fn start() -> Result<(), StepError> {
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS).map_err(StepError::at("unshare", "namespaces"))?;
    // SAFETY: this program was just exec'd and has started no thread, so the child may run any code.
    match unsafe { fork() }.map_err(StepError::at("fork", "the init"))? {
        ForkResult::Child => init(),
        ForkResult::Parent { .. } => Ok(()),
    }
}

fn init() -> Result<(), StepError> {
    // The agent's /proc is still there and has the agent's numbers.
    let number = fs::read_link("/proc/self").map_err(StepError::io("read", "/proc/self"))?;
    empty_root().map_err(StepError::at("enter", "an empty root"))?;
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: to ignore a signal runs no code. An ignored SIGCHLD makes the kernel collect every child that ends.
    unsafe { sigaction(Signal::SIGCHLD, &ignore) }.map_err(StepError::at("ignore", "SIGCHLD"))?;
    setsid().map_err(StepError::at("make", "a session"))?;
    confine()?;
    let mut report = std::io::stdout();
    writeln!(report, "pid {}", number.display())
        .and_then(|()| report.flush())
        .map_err(StepError::io("report", "the init"))?;
    // SAFETY: from here on nothing uses a descriptor; the standard streams are closed with the rest, and nothing opens any.
    let closed = unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
    if closed != 0 {
        // The report has said that all is well; without the process the namespace is of no use, and that is noticed.
        return Ok(());
    }
    loop {
        pause();
    }
}

/// An empty, read-only file system in place of the agent's.
fn empty_root() -> Result<(), Errno> {
    const NOTHING: Option<&str> = None;
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("tmpfs"),
        "/tmp",
        Some("tmpfs"),
        flags,
        Some("size=0,nr_inodes=2,mode=0555"),
    )?;
    chdir("/tmp")?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}

fn confine() -> Result<(), StepError> {
    let step = |errno| StepError::at("become", "nobody")(errno);
    capabilities::limit_bounding(CapabilitySet::default())?;
    setgroups(&[]).map_err(step)?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setresgid(gid, gid, gid).map_err(step)?;
    setresuid(uid, uid, uid).map_err(step)?;
    capabilities::apply(CapabilitySet::default(), false)?;
    prctl::set_no_new_privs().map_err(StepError::at("set", "no_new_privs"))?;
    prctl::set_dumpable(false).map_err(StepError::at("forbid", "dumps"))
}

const NOBODY: u32 = 65_534;
