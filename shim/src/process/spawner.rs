//! The thread that forks.
#![allow(unsafe_code, reason = "pre_exec: the death signal must be set between fork and exec")]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::io::FdFlags;
use rustix::process::Signal;
use slog::Logger;
use tokio::sync::oneshot;

use super::child::Child;

/// What to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// Short name for logs and errors.
    pub name: &'static str,
    /// The executable.
    pub path: PathBuf,
    /// Its arguments. No secret may be among them.
    pub arguments: Vec<String>,
}

/// A program that did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// fork or exec failed.
    #[error("cannot start {name} ({path})")]
    Start {
        /// The program's short name.
        name: &'static str,
        /// The executable.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It started and could not be watched.
    #[error("cannot watch {name} (process {pid})")]
    Watch {
        /// The program's short name.
        name: &'static str,
        /// The process, which has been killed.
        pid: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The forking thread has ended.
    #[error("the thread that starts programs has ended")]
    NoThread,
}

type Request = (Command, oneshot::Sender<io::Result<std::process::Child>>);

/// Starts programs from one thread that lives as long as any clone of this, or any [`Child`], does.
#[derive(Clone, Debug)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start() -> io::Result<Self> {
        let (requests, receiver) = mpsc::channel::<Request>();
        thread::Builder::new()
            .name("spawner".into())
            .stack_size(128 * 1024)
            .spawn(move || {
                while let Ok((mut command, answer)) = receiver.recv() {
                    // A requester that gave up must not leave a child behind.
                    if let Err(Ok(mut child)) = answer.send(command.spawn()) {
                        let _ = child.kill();
                        let _ = child.wait();
                    }
                }
            })?;
        Ok(Self { requests })
    }

    /// Starts `program` with an empty environment, no stdin or stdout, and stderr kept as a tail and logged.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub async fn spawn(&self, program: &Program, log: &Logger) -> Result<Child, SpawnError> {
        self.spawn_with(program, Vec::new(), log).await
    }

    /// The same, and `program` inherits descriptors, by the numbers that they have here. Once it has started it alone holds them.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub async fn spawn_with(
        &self,
        program: &Program,
        inherited: Vec<OwnedFd>,
        log: &Logger,
    ) -> Result<Child, SpawnError> {
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let shim = rustix::process::getpid();
        // SAFETY: the closure runs in the child between fork and exec of a process with several threads, so it may only call
        // async-signal-safe functions: prctl, fcntl and getppid are plain system calls, and no allocation or lock is involved.
        unsafe {
            command.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                for descriptor in &inherited {
                    rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
                }
                // The shim may have died before the signal was set.
                if rustix::process::getppid() == Some(shim) {
                    Ok(())
                } else {
                    Err(io::ErrorKind::BrokenPipe.into())
                }
            });
        }
        let (answer, answered) = oneshot::channel();
        self.requests
            .send((command, answer))
            .map_err(|_| SpawnError::NoThread)?;
        let child = answered.await.map_err(|_| SpawnError::NoThread)?;
        let start = |source| SpawnError::Start {
            name: program.name,
            path: program.path.clone(),
            source,
        };
        Child::adopt(program.name, child.map_err(start)?, self.clone(), log)
    }
}
