//! The agent's side of a shared process namespace: starts its process 1 and keeps the namespace open.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver, time::timeout};

use super::{PodError, namespaces::reachable};
use crate::{
    launch::INIT_NAME,
    reaper::{ExitWatch, Reaper},
};

/// A running process 1; killed, and every process of its namespace with it, when dropped.
#[derive(Debug)]
pub(super) struct Init {
    namespace: File,
    exit: ExitWatch,
    reaper: Reaper,
}

impl Init {
    /// Starts it by way of `program`. Returns when it does nothing but collect orphans any more.
    pub(super) async fn start(program: &Path, reaper: &Reaper) -> Result<Self, PodError> {
        let failed = |what| move |source| PodError::Init { what, source };
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed("making a pipe for")(errno.into()))?;
        nix::fcntl::fcntl(&ours, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|errno| failed("making a pipe for")(errno.into()))?;
        let report = Receiver::from_owned_fd(ours).map_err(failed("listening to"))?;
        let mut command = Command::new(program);
        command.arg0(INIT_NAME).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(theirs).stderr(Stdio::null());
        let launcher = reaper.spawn(&mut command).map_err(failed("starting"))?;
        // With it goes our copy of the pipe's other end.
        drop(command);
        let mut text = String::new();
        let read = timeout(START_LIMIT, report.take(MAX_REPORT).read_to_string(&mut text)).await;
        match read {
            Ok(read) => drop(read.map_err(failed("listening to"))?),
            Err(_) => {
                launcher.kill(reaper, libc::SIGKILL);
                return Err(failed("waiting for")(io::ErrorKind::TimedOut.into()));
            }
        }
        let number = text
            .trim_end()
            .strip_prefix("pid ")
            .and_then(|number| number.parse::<u32>().ok());
        let Some(number) = number.filter(|number| *number > 1) else {
            let line = text.trim_end().strip_prefix("error ").unwrap_or("ended without a word");
            return Err(PodError::InitStep { line: line.to_owned() });
        };
        // It never ends by itself, so it cannot have been reaped.
        let exit = reaper.register(number);
        let namespace = File::open(format!("/proc/{number}/ns/pid")).map_err(failed("finding"))?;
        Ok(Self {
            namespace,
            exit,
            reaper: reaper.clone(),
        })
    }

    /// Where a launcher finds the namespace.
    pub(super) fn namespace(&self) -> PathBuf {
        reachable(&self.namespace)
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        self.exit.kill(&self.reaper, libc::SIGKILL);
    }
}

/// Bytes of its report: a number, or one line of complaint.
const MAX_REPORT: u64 = 1024;

/// From spawn to report.
const START_LIMIT: Duration = Duration::from_secs(20);
