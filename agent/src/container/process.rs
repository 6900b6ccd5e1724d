//! One process that the host named, and its state: a container's first, or one of ExecProcess.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use slog::warn;
use tokio::sync::{oneshot, watch};

use super::{ContainerError, Ended, ProcessId, Setting, StreamNumbers, pipes::Pipes};
use crate::{
    launch::{Launched, Stdio, TerminalSize},
    reaper::{Exit, ExitWatch},
    stream::Terminal,
};

/// One process. The diagram of its states is at [`super`].
pub(super) struct Process {
    setting: Arc<Setting>,
    id: ProcessId,
    numbers: StreamNumbers,
    terminal: Option<Terminal>,
    state: Mutex<State>,
    /// How it ended, once it has.
    ended: watch::Sender<Option<Ended>>,
}

enum State {
    Created {
        stdio: Stdio,
    },
    /// Waiting for whatever it needs while `cancel` is there, launching when it is gone.
    Starting {
        cancel: Option<oneshot::Sender<()>>,
    },
    Running {
        pid: u32,
        exit: ExitWatch,
        handle: Arc<OwnedFd>,
    },
    Stopped,
    /// Stopped, and somebody is taking it away.
    Retired,
}

/// What a container or process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// Made; nothing runs. Starting counts as this, as containerd sees it.
    Created,
    /// Its program runs.
    Running,
    /// Its program has ended, or never began.
    Stopped,
}

impl ProcessState {
    /// As `Status` and containerd call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// What a starting process takes along.
pub(super) struct Beginning {
    /// Its ends of the pipes.
    pub(super) stdio: Stdio,
    /// Size of its terminal, if it has one.
    pub(super) terminal: Option<TerminalSize>,
    /// Told when somebody kills it before its program runs.
    pub(super) cancelled: oneshot::Receiver<()>,
}

impl Process {
    pub(super) fn new(setting: Arc<Setting>, id: ProcessId, pipes: Pipes) -> Self {
        let Pipes {
            stdio,
            numbers,
            terminal,
        } = pipes;
        Self {
            setting,
            id,
            numbers,
            terminal,
            state: Mutex::new(State::Created { stdio }),
            ended: watch::channel(None).0,
        }
    }

    pub(super) fn id(&self) -> &ProcessId {
        &self.id
    }

    /// From created to starting.
    pub(super) fn begin(&self) -> Result<Beginning, ContainerError> {
        let (cancel, cancelled) = oneshot::channel();
        let mut state = self.lock();
        match &mut *state {
            State::Created { stdio } => {
                let stdio = std::mem::take(stdio);
                *state = State::Starting { cancel: Some(cancel) };
                Ok(Beginning {
                    stdio,
                    terminal: self.terminal.as_ref().map(Terminal::size),
                    cancelled,
                })
            }
            other => Err(self.not_in(other, "started")),
        }
    }

    /// From starting to running; when the process has ended, `last` does what is to be done before anybody hears of it, and says what
    /// they hear. It counts as running until then.
    pub(super) fn run<F>(self: &Arc<Self>, launched: Launched, last: impl FnOnce(Exit) -> F + Send + 'static) -> u32
    where
        F: Future<Output = Ended> + Send + 'static,
    {
        let Launched {
            pid,
            exit,
            handle,
            terminal,
        } = launched;
        *self.lock() = State::Running {
            pid,
            exit: exit.clone(),
            handle: Arc::new(handle),
        };
        if let (Some(terminal), Some(master)) = (&self.terminal, terminal)
            && let Err(error) = terminal.open(master)
        {
            // Its terminal hangs up; the process may live without.
            warn!(self.setting.log, "opening a terminal failed"; "process" => %self.id, "error" => %error);
        }
        let process = Arc::clone(self);
        tokio::spawn(async move {
            let mut exit = exit;
            let exit = exit.wait().await;
            let ended = last(exit).await;
            process.stop(ended);
        });
        pid
    }

    /// From starting to stopped: its program never ran.
    pub(super) fn fail(&self) {
        self.stop(Ended::now(FAILED));
    }

    pub(super) async fn wait(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(ended)) => *ended,
            // The sender is ours and alive.
            _ => Ended::now(FAILED),
        }
    }

    /// Sends a signal; the policy was asked before.
    pub(super) fn signal(&self, number: u32) -> Result<(), ContainerError> {
        let undelivered = || ContainerError::Signal {
            process: self.id.clone(),
            signal: number,
        };
        let signal = i32::try_from(number).map_err(|_| undelivered())?;
        let ends = matches!(signal, libc::SIGKILL | libc::SIGTERM);
        let mut state = self.lock();
        match &mut *state {
            State::Running { exit, .. } => {
                // Whoever has ended meanwhile is not running; its exit is about to be published.
                if exit.kill(&self.setting.reaper, signal) || exit.ended().is_some() {
                    Ok(())
                } else {
                    Err(undelivered())
                }
            }
            State::Starting { cancel } if ends => {
                // Without it the launch is under way: a matter of milliseconds, then the caller may try again.
                let cancel = cancel.take();
                match cancel.map(|cancel| cancel.send(())) {
                    Some(Ok(())) => Ok(()),
                    _ => Err(self.not_in(&state, "signalled")),
                }
            }
            // As with every other runtime: a container waits for its start in a process that can be killed, an exec is
            // no process before its start.
            State::Created { .. } if ends && self.id.exec.is_none() => {
                *state = State::Stopped;
                self.ended.send_replace(Some(Ended::now(128 + number)));
                self.withdraw();
                Ok(())
            }
            other => Err(self.not_in(other, "signalled")),
        }
    }

    /// Ends it whatever it is doing.
    pub(super) fn kill(&self) {
        match &mut *self.lock() {
            State::Running { exit, .. } => drop(exit.kill(&self.setting.reaper, libc::SIGKILL)),
            State::Starting { cancel } => drop(cancel.take().map(|cancel| cancel.send(()))),
            State::Created { .. } | State::Stopped | State::Retired => {}
        }
    }

    /// Sets its terminal's size, now or as soon as there is one.
    pub(super) fn resize(&self, size: TerminalSize) -> Result<(), ContainerError> {
        if let state @ (State::Stopped | State::Retired) = &*self.lock() {
            return Err(self.not_in(state, "resized"));
        }
        let failed = |source| ContainerError::Resize {
            process: self.id.clone(),
            source,
        };
        match &self.terminal {
            Some(terminal) => terminal.resize(size).map_err(failed),
            None => Err(ContainerError::NoTerminal {
                process: self.id.clone(),
            }),
        }
    }

    pub(super) fn state(&self) -> ProcessState {
        match &*self.lock() {
            State::Created { .. } | State::Starting { .. } => ProcessState::Created,
            State::Running { .. } => ProcessState::Running,
            State::Stopped | State::Retired => ProcessState::Stopped,
        }
    }

    /// Whether it is running or about to.
    pub(super) fn is_alive(&self) -> bool {
        matches!(&*self.lock(), State::Running { .. } | State::Starting { .. })
    }

    /// Its number; `None` when it does not run.
    pub(super) fn pid(&self) -> Option<u32> {
        match &*self.lock() {
            State::Running { pid, .. } => Some(*pid),
            _ => None,
        }
    }

    /// A descriptor that stands for the running process, whatever becomes of its number.
    pub(super) fn handle(&self, wanted: &'static str) -> Result<Arc<OwnedFd>, ContainerError> {
        match &*self.lock() {
            State::Running { handle, .. } => Ok(Arc::clone(handle)),
            other => Err(self.not_in(other, wanted)),
        }
    }

    /// The end of a process that is to be forgotten; a created one is stopped by it. Only one caller may forget it.
    pub(super) fn retire(&self) -> Result<Ended, ContainerError> {
        let mut state = self.lock();
        match &*state {
            State::Created { .. } | State::Stopped => *state = State::Retired,
            other => return Err(self.not_in(other, "deleted")),
        }
        drop(state);
        self.withdraw();
        let never_ran = Ended::now(NEVER_RAN);
        self.ended.send_if_modified(|ended| {
            ended.is_none() && {
                *ended = Some(never_ran);
                true
            }
        });
        Ok(self.ended.borrow().unwrap_or(never_ran))
    }

    /// After [`Self::retire`], when it could not be forgotten: the next caller may try.
    pub(super) fn reinstate(&self) {
        let mut state = self.lock();
        if matches!(*state, State::Retired) {
            *state = State::Stopped;
        }
    }

    /// The failure of a request that this state does not allow.
    pub(super) fn refuse(&self, wanted: &'static str) -> ContainerError {
        self.not_in(&self.lock(), wanted)
    }

    fn stop(&self, ended: Ended) {
        let mut state = self.lock();
        self.ended.send_replace(Some(ended));
        *state = State::Stopped;
    }

    fn withdraw(&self) {
        self.numbers.withdraw(&self.setting.streams);
    }

    fn not_in(&self, state: &State, wanted: &'static str) -> ContainerError {
        let state = match state {
            State::Created { .. } => "created",
            State::Starting { .. } => "starting",
            State::Running { .. } => "running",
            State::Stopped => "stopped",
            State::Retired => "being deleted",
        };
        ContainerError::State {
            process: self.id.clone(),
            wanted,
            state,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ended {
    fn now(status: u32) -> Self {
        Self {
            exit: Exit {
                status,
                at: SystemTime::now(),
            },
            out_of_memory: false,
        }
    }
}

/// Status of a process whose program could not be started.
const FAILED: u32 = 255;

/// Status of a process that was deleted before it was started, as if it had been killed.
const NEVER_RAN: u32 = 137;
