//! The agent's side of a launch: starts the launcher, hears its reports, registers the container's process.
#![allow(unsafe_code)] // descriptors are placed between fork and exec

use std::{
    fs::File,
    io::{self, Seek, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::{net::UnixStream as StdUnixStream, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio as ProcessStdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::{
    LAUNCHER_NAME, LaunchError, LaunchPlan, PLAN_FD, REPORT_FD,
    report::{ACK, MAX_REPORTS, Report},
};
use crate::reaper::{ExitWatch, Reaper};

/// The container's ends of its pipes; `None` = `/dev/null`.
#[derive(Debug, Default)]
pub struct Stdio {
    /// What the process reads.
    pub stdin: Option<OwnedFd>,
    /// What it prints.
    pub stdout: Option<OwnedFd>,
    /// What it complains.
    pub stderr: Option<OwnedFd>,
}

/// A started container.
#[derive(Debug)]
pub struct Launched {
    /// Its process 1, as the agent numbers it.
    pub pid: u32,
    /// Tells when and how it ended.
    pub exit: ExitWatch,
}

/// Starts `plan` by way of `program` (`/proc/self/exe` outside tests) and returns once the container's program runs.
///
/// On failure nothing is left running: the new process has ended or is killed. Not to be cancelled half way: call it from
/// a task of its own.
pub async fn spawn(program: &Path, plan: &LaunchPlan, stdio: Stdio, reaper: &Reaper) -> Result<Launched, LaunchError> {
    let document = plan_file(plan).map_err(LaunchError::Plan)?;
    let (ours, theirs) = StdUnixStream::pair().map_err(LaunchError::Report)?;
    ours.set_nonblocking(true).map_err(LaunchError::Report)?;
    let ours = UnixStream::from_std(ours).map_err(LaunchError::Report)?;

    let mut command = Command::new(program);
    command.arg0(LAUNCHER_NAME).env_clear().current_dir("/");
    command.stdin(stdio.stdin.map_or_else(ProcessStdio::null, ProcessStdio::from));
    command.stdout(stdio.stdout.map_or_else(ProcessStdio::null, ProcessStdio::from));
    command.stderr(stdio.stderr.map_or_else(ProcessStdio::null, ProcessStdio::from));
    let (document_fd, report_fd) = (document.as_raw_fd(), theirs.as_raw_fd());
    // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls on descriptors that live
    // until spawn has returned.
    unsafe { command.pre_exec(move || place(document_fd, report_fd)) };
    let launcher = reaper.spawn(&mut command).map_err(LaunchError::Spawn)?;
    drop((command, document, theirs));

    let result = timeout(LAUNCH_LIMIT, listen(ours, reaper)).await;
    if result.is_err() {
        launcher.kill(reaper, libc::SIGKILL);
    }
    result.unwrap_or(Err(LaunchError::TimedOut {
        seconds: LAUNCH_LIMIT.as_secs(),
    }))
}

/// Hears reports until the socket closes, which `exec` does.
async fn listen(socket: UnixStream, reaper: &Reaper) -> Result<Launched, LaunchError> {
    let mut lines = BufReader::new(socket.take(MAX_REPORTS));
    let mut started: Option<Launched> = None;
    let (mut ready, mut failure) = (false, None);
    let mut line = String::new();
    loop {
        line.clear();
        match lines.read_line(&mut line).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(LaunchError::Report(error)),
        }
        match Report::parse(line.trim_end_matches('\n')) {
            Some(Report::Pid(pid)) if started.is_none() => {
                // The launcher is still there, so the process cannot have been reaped yet.
                started = Some(Launched {
                    pid,
                    exit: reaper.register(pid),
                });
                lines
                    .get_mut()
                    .get_mut()
                    .write_all(ACK)
                    .await
                    .map_err(LaunchError::Report)?;
            }
            Some(Report::Ready) => ready = true,
            Some(Report::Failed(text)) => failure = Some(text),
            _ => break,
        }
    }
    match (started, failure) {
        (Some(launched), None) if ready => Ok(launched),
        (_, Some(text)) => Err(LaunchError::Step(text)),
        (Some(launched), None) => {
            launched.exit.kill(reaper, libc::SIGKILL);
            Err(LaunchError::Died)
        }
        (None, None) => Err(LaunchError::Died),
    }
}

/// The plan in anonymous memory, read from its start.
fn plan_file(plan: &LaunchPlan) -> io::Result<File> {
    let mut file = File::from(memfd_create("cella-plan", MFdFlags::MFD_CLOEXEC)?);
    serde_json::to_writer(&mut file, plan)?;
    file.flush()?;
    file.rewind()?;
    Ok(file)
}

/// Puts plan and socket on the launcher's two numbers. Runs in the child.
fn place(document: RawFd, report: RawFd) -> io::Result<()> {
    // First out of the way, so that neither number is overwritten while it is still needed; close-on-exec again.
    let duplicate = |fd: RawFd| -> io::Result<RawFd> {
        // SAFETY: duplicates an open descriptor to a free number; nothing is closed.
        Ok(Errno::result(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10) })?)
    };
    let (document, report) = (duplicate(document)?, duplicate(report)?);
    for (from, to) in [(document, PLAN_FD), (report, REPORT_FD)] {
        // SAFETY: in this child nothing owns the numbers 3 and 4 any more: everything else is closed by exec.
        Errno::result(unsafe { libc::dup2(from, to) })?;
    }
    Ok(())
}

/// From spawn to exec. Mounts of a loaded machine take milliseconds; an emulated one some seconds.
const LAUNCH_LIMIT: Duration = Duration::from_secs(60);
