//! The agent's side of a launch: starts the launcher, hears its reports, registers the new process.
#![allow(unsafe_code)] // descriptors are placed between fork and exec

use std::{
    fs::File,
    io::{self, Seek, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixStream as StdUnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, Stdio as ProcessStdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
};
use tokio::{sync::Semaphore, time::timeout};

use super::{HOST_FD, LAUNCHER_NAME, LaunchError, Order, PLAN_FD, REPORT_FD, report::Report, reports::Reports};
use crate::reaper::{ExitWatch, Reaper};

/// The process's ends of its pipes; `None` = `/dev/null`.
#[derive(Debug, Default)]
pub struct Stdio {
    /// What the process reads.
    pub stdin: Option<OwnedFd>,
    /// What it prints.
    pub stdout: Option<OwnedFd>,
    /// What it complains.
    pub stderr: Option<OwnedFd>,
}

/// A started process.
#[derive(Debug)]
pub struct Launched {
    /// Its number, as the agent counts.
    pub pid: u32,
    /// Tells when and how it ended.
    pub exit: ExitWatch,
    /// Stands for it (pidfd), whatever becomes of its number.
    pub handle: OwnedFd,
    /// The agent's side of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// Starts processes.
#[derive(Debug)]
pub struct Launcher {
    program: PathBuf,
    reaper: Reaper,
    places: Semaphore,
}

impl Launcher {
    /// By way of `program`: `/proc/self/exe` outside tests.
    pub fn new(program: impl Into<PathBuf>, reaper: Reaper) -> Self {
        Self {
            program: program.into(),
            reaper,
            places: Semaphore::new(MAX_LAUNCHES),
        }
    }

    /// Carries out `order` and returns once the program runs; `host` is the container's process 1 for [`Order::Exec`].
    /// Waits while `MAX_LAUNCHES` others are under way.
    ///
    /// On failure nothing is left running: the new process has ended or is killed. Not to be cancelled half way: call it
    /// from a task of its own.
    pub async fn spawn(&self, order: &Order, stdio: Stdio, host: Option<&OwnedFd>) -> Result<Launched, LaunchError> {
        // The semaphore is never closed.
        let _place = self.places.acquire().await;
        let document = order_file(order).map_err(LaunchError::Plan)?;
        let (ours, theirs) = StdUnixStream::pair().map_err(LaunchError::Report)?;
        let mut reports = Reports::new(ours).map_err(LaunchError::Report)?;

        let mut command = Command::new(&self.program);
        command.arg0(LAUNCHER_NAME).env_clear().current_dir("/");
        command.stdin(stdio.stdin.map_or_else(ProcessStdio::null, ProcessStdio::from));
        command.stdout(stdio.stdout.map_or_else(ProcessStdio::null, ProcessStdio::from));
        command.stderr(stdio.stderr.map_or_else(ProcessStdio::null, ProcessStdio::from));
        let given = [
            (Some(document.as_raw_fd()), PLAN_FD),
            (Some(theirs.as_raw_fd()), REPORT_FD),
            (host.map(AsRawFd::as_raw_fd), HOST_FD),
        ];
        // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls on descriptors that live
        // until spawn has returned.
        unsafe { command.pre_exec(move || place(given)) };
        let launcher = self.reaper.spawn(&mut command).map_err(LaunchError::Spawn)?;
        drop((command, document, theirs));

        let mut started = None;
        let heard = timeout(LAUNCH_LIMIT, listen(&mut reports, &mut started, &self.reaper)).await;
        let result = heard.unwrap_or(Err(LaunchError::TimedOut {
            seconds: LAUNCH_LIMIT.as_secs(),
        }));
        match (result, started) {
            (Ok(()), Some((pid, exit, handle))) => Ok(Launched {
                pid,
                exit,
                handle,
                terminal: reports.take_descriptor(),
            }),
            (result, started) => {
                if let Some((_, exit, _)) = started {
                    exit.kill(&self.reaper, libc::SIGKILL);
                }
                launcher.kill(&self.reaper, libc::SIGKILL);
                Err(result.err().unwrap_or(LaunchError::Died))
            }
        }
    }
}

/// Number, end and handle of a process that has been made.
type Started = (u32, ExitWatch, OwnedFd);

/// Hears reports until the socket closes, which `exec` does.
async fn listen(reports: &mut Reports, started: &mut Option<Started>, reaper: &Reaper) -> Result<(), LaunchError> {
    let (mut ready, mut failure) = (false, None);
    while let Some(report) = reports.next().await.map_err(LaunchError::Report)? {
        match report {
            Report::Pid(pid) if started.is_none() => {
                // The launcher is still there, so the process cannot have been reaped yet.
                let exit = reaper.register(pid);
                let handle = handle(pid).inspect_err(|_| {
                    exit.kill(reaper, libc::SIGKILL);
                });
                *started = Some((pid, exit, handle.map_err(LaunchError::Report)?));
                reports.acknowledge().await.map_err(LaunchError::Report)?;
            }
            Report::Ready => ready = true,
            Report::Full(text) => failure = Some(LaunchError::Full(text)),
            Report::Failed(text) => failure = Some(LaunchError::Step(text)),
            Report::Terminal | Report::Pid(_) => {}
        }
    }
    match failure {
        None if ready => Ok(()),
        failure => Err(failure.unwrap_or(LaunchError::Died)),
    }
}

/// A pidfd.
fn handle(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).map_err(|_| Errno::EINVAL)?;
    let flags: libc::c_int = 0;
    // SAFETY: takes two integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, with close-on-exec; nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The order in anonymous memory, read from its start.
fn order_file(order: &Order) -> io::Result<File> {
    let mut file = File::from(memfd_create("cella-plan", MFdFlags::MFD_CLOEXEC)?);
    serde_json::to_writer(&mut file, order)?;
    file.flush()?;
    file.rewind()?;
    Ok(file)
}

/// Puts descriptors on the launcher's numbers. Runs in the child.
fn place(given: [(Option<RawFd>, RawFd); 3]) -> io::Result<()> {
    // First out of the way, so that no number is overwritten while it is still needed; close-on-exec again.
    let mut moved = [None; 3];
    for ((from, to), slot) in given.into_iter().zip(&mut moved) {
        if let Some(from) = from {
            // SAFETY: duplicates an open descriptor to a free number; nothing is closed.
            let high = Errno::result(unsafe { libc::fcntl(from, libc::F_DUPFD_CLOEXEC, 10) })?;
            *slot = Some((high, to));
        }
    }
    for (from, to) in moved.into_iter().flatten() {
        // SAFETY: in this child nothing owns the low numbers any more: everything else is closed by exec.
        Errno::result(unsafe { libc::dup2(from, to) })?;
    }
    Ok(())
}

/// From spawn to exec. Mounts of a loaded machine take milliseconds; an emulated one some seconds.
const LAUNCH_LIMIT: Duration = Duration::from_secs(60);

/// Launches at once. More would only make each slower, and the limit above is for one that has the machine to itself.
const MAX_LAUNCHES: usize = 8;
