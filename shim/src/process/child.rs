//! A running child.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use slog::{Logger, debug, o, warn};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use super::identity::Identity;
use super::pidfd::Pidfd;
use super::spawner::{SpawnError, Spawner};
use super::tail::Tail;

/// What is kept of a child's stderr.
const STDERR_TAIL: usize = 8 * 1024;
/// How long the rest of an ended child's stderr is waited for.
const DRAIN: Duration = Duration::from_millis(200);

/// A child that is watched through its pidfd. Dropping it kills and reaps it.
pub struct Child {
    identity: Identity,
    name: &'static str,
    pidfd: Pidfd,
    inner: Option<std::process::Child>,
    exit: Option<Exit>,
    stderr: Tail,
    reader: JoinHandle<()>,
    /// The thread that forked must outlive the child, or the kernel sends the death signal.
    _spawner: Spawner,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With a status.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

impl Child {
    /// Takes over a child that was just started; it is killed if that fails.
    pub(super) fn adopt(
        name: &'static str,
        mut inner: std::process::Child,
        spawner: Spawner,
        log: &Logger,
    ) -> Result<Self, SpawnError> {
        let pid = inner.id();
        let stderr = Tail::new(STDERR_TAIL);
        let log = log.new(o!("program" => name));
        match watch(name, &mut inner, &stderr, log) {
            Ok((identity, pidfd, reader)) => Ok(Self {
                identity,
                name,
                pidfd,
                inner: Some(inner),
                exit: None,
                stderr,
                reader,
                _spawner: spawner,
            }),
            Err(source) => {
                let _ = inner.kill();
                let _ = inner.wait();
                Err(SpawnError::Watch { name, pid, source })
            }
        }
    }

    /// Number and start time.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The short name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> &Tail {
        &self.stderr
    }

    /// The last `lines` lines of its stderr, for one that has ended: waits a moment for what is still in the pipe.
    pub async fn last_words(&mut self, lines: usize) -> Vec<String> {
        if !self.reader.is_finished() {
            // A program that it left behind may hold the pipe open.
            let _ = tokio::time::timeout(DRAIN, &mut self.reader).await;
        }
        self.stderr.last_lines(lines)
    }

    /// Waits for the end and reaps. May be cancelled and called again.
    pub async fn exited(&mut self) -> Exit {
        if let Some(exit) = self.exit {
            return exit;
        }
        self.pidfd.ended().await;
        // Ended, so this does not block.
        let status = self.inner.take().map(|mut inner| inner.wait());
        let exit = match status {
            Some(Ok(status)) => status.into(),
            _ => Exit::Code(-1),
        };
        self.exit = Some(exit);
        exit
    }

    /// Waits for the end for up to `patience`.
    pub async fn exited_within(&mut self, patience: Duration) -> Option<Exit> {
        tokio::time::timeout(patience, self.exited()).await.ok()
    }

    /// Asks for the end with SIGTERM, waits up to `patience`, then kills; returns when it has ended.
    pub async fn terminate(&mut self, patience: Duration) -> Exit {
        self.signal(Signal::TERM);
        match self.exited_within(patience).await {
            Some(exit) => exit,
            None => self.kill().await,
        }
    }

    /// Kills and waits for the end.
    pub async fn kill(&mut self) -> Exit {
        self.signal(Signal::KILL);
        self.exited().await
    }

    fn signal(&self, signal: Signal) {
        if self.inner.is_some() {
            self.pidfd.signal(signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.reader.abort();
        if let Some(mut inner) = self.inner.take() {
            let _ = inner.kill();
            // Memory of a large VM takes time to be freed: not on an async thread.
            drop(
                std::thread::Builder::new()
                    .name("reaper".into())
                    .spawn(move || inner.wait()),
            );
        }
    }
}

fn watch(
    name: &'static str,
    inner: &mut std::process::Child,
    tail: &Tail,
    log: Logger,
) -> io::Result<(Identity, Pidfd, JoinHandle<()>)> {
    let pid = i32::try_from(inner.id()).map_err(io::Error::other)?;
    let number = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    let pidfd = Pidfd::open(number)?;
    let identity = Identity::of(name, pid).map_err(io::Error::other)?;
    let stderr = inner.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((identity, pidfd, read_stderr(stderr, tail.clone(), log)?))
}

fn read_stderr(stderr: ChildStderr, tail: Tail, log: Logger) -> io::Result<JoinHandle<()>> {
    let mut stderr = pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?;
    Ok(tokio::spawn(async move {
        let mut buffer = [0; 1024];
        loop {
            match stderr.read(&mut buffer).await {
                Ok(0) => break,
                Ok(read) => {
                    let bytes = buffer.get(..read).unwrap_or_default();
                    tail.push(bytes);
                    for line in crate::untrusted::last_lines(bytes, 16, 240) {
                        debug!(log, "stderr"; "line" => line);
                    }
                }
                Err(error) => {
                    warn!(log, "reading stderr failed"; "error" => %error);
                    break;
                }
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use slog::Discard;

    use super::super::{KillOutcome, Program, Spawner};
    use super::*;

    fn log() -> Logger {
        Logger::root(Discard, o!())
    }

    async fn start(script: &str) -> Child {
        let program = Program {
            name: "sh",
            path: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
        };
        Spawner::start().unwrap().spawn(&program, &log()).await.unwrap()
    }

    #[tokio::test]
    async fn status_signal_and_stderr_are_reported() {
        let mut child = start("echo 'it broke' >&2; exit 3").await;
        assert_eq!(child.exited().await, Exit::Code(3));
        assert_eq!(child.exited().await, Exit::Code(3), "asked twice");
        assert_eq!(child.last_words(2).await, ["it broke"]);
        let mut child = start("kill -9 $$").await;
        assert_eq!(child.exited().await, Exit::Signal(9));
    }

    #[tokio::test]
    async fn terminate_kills_the_deaf() {
        let mut child = start("trap '' TERM; echo ready >&2; while :; do sleep 1; done").await;
        tokio::time::timeout(Duration::from_secs(5), async {
            while child.stderr().last_lines(1).is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(child.terminate(Duration::from_millis(50)).await, Exit::Signal(9));
    }

    #[tokio::test]
    async fn waiting_may_be_given_up_and_taken_up_again() {
        let mut child = start("sleep 60").await;
        assert_eq!(child.exited_within(Duration::from_millis(20)).await, None);
        assert_eq!(child.kill().await, Exit::Signal(9));
    }

    #[tokio::test]
    async fn dropping_kills() {
        let child = start("sleep 60").await;
        let identity = child.identity().clone();
        drop(child);
        let gone = tokio::task::spawn_blocking(move || {
            let deadline = std::time::Instant::now() + Duration::from_secs(5);
            while identity.kill(Duration::from_millis(100)).unwrap() != KillOutcome::Gone {
                assert!(std::time::Instant::now() < deadline);
            }
        });
        gone.await.unwrap();
    }

    #[tokio::test]
    async fn an_absent_program_is_named() {
        let program = Program {
            name: "qemu",
            path: "/nonexistent/qemu".into(),
            arguments: vec![],
        };
        let error = Spawner::start().unwrap().spawn(&program, &log()).await.err().unwrap();
        assert!(matches!(error, SpawnError::Start { name: "qemu", .. }), "{error:?}");
    }
}
