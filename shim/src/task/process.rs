//! One process's states: a container's own, or an exec's.
//!
//! ```text
//!             Start             started
//!   Created ────────▶ Starting ────────▶ Running
//!      │                 │                  │
//!      │ killed, VM gone │ refused, VM gone │ process ended, VM gone
//!      └────────────────▶└───▶ Exiting ◀────┘      (output is drained here)
//!                                 │
//!                                 ▼
//!                              Stopped(exit)
//! ```
//! A transition and its event are one step: TaskStart is queued before anybody can see *Running*, TaskExit before anybody
//! can see *Stopped*, so containerd gets them in this order whatever ends first.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::copies::Copies;
use super::error::TaskError;
use super::stdio::Stdio;
use crate::agent::{ExitInfo, ProcessId};
use crate::vsock::Stream;

/// What stands behind a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A container's own process in the guest.
    Workload,
    /// The same, of the only container in its VM; a VM that is still pulling can be given up with it.
    Alone,
    /// A CRI sandbox: its process is the VM.
    Sandbox,
    /// A further process in a container.
    Exec,
}

/// See the diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The agent knows it; nothing runs.
    Created,
    /// Keys, image and models are on their way.
    Starting,
    /// It runs.
    Running,
    /// It has ended; output is still being delivered.
    Exiting,
    /// Over.
    Stopped(ExitInfo),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Exiting => "ending",
            Self::Stopped(_) => "stopped",
        })
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Width.
    pub columns: u32,
    /// Height.
    pub rows: u32,
}

/// A process as containerd knows it.
pub struct Process {
    id: ProcessId,
    kind: Kind,
    pid: u32,
    stdio: Stdio,
    io: Copies,
    stdin: Mutex<Option<Box<dyn Stream>>>,
    size: Mutex<Option<TerminalSize>>,
    phase: watch::Sender<Phase>,
    killed_by: AtomicU32,
    announced: bool,
}

impl Process {
    /// A process in *Created*.
    pub fn new(id: ProcessId, kind: Kind, pid: u32, stdio: Stdio, io: Copies) -> Self {
        Self {
            id,
            kind,
            pid,
            stdio,
            io,
            stdin: Mutex::new(None),
            size: Mutex::new(None),
            phase: watch::Sender::new(Phase::Created),
            killed_by: AtomicU32::new(0),
            announced: true,
        }
    }

    /// Without events of containerd's: a sandbox of the Sandbox API is no task.
    #[must_use]
    pub fn unannounced(mut self) -> Self {
        self.announced = false;
        self
    }

    /// Whether containerd gets events about it.
    pub fn is_announced(&self) -> bool {
        self.announced
    }

    /// With the guest's end of stdin, which waits for the start.
    #[must_use]
    pub fn with_stdin(mut self, stream: Option<Box<dyn Stream>>) -> Self {
        self.stdin = Mutex::new(stream);
        self
    }

    /// With the size that its terminal shall have from the start.
    #[must_use]
    pub fn with_size(mut self, size: Option<TerminalSize>) -> Self {
        self.size = Mutex::new(size);
        self
    }

    /// The guest's end of stdin, once.
    pub fn take_stdin(&self) -> Option<Box<dyn Stream>> {
        lock(&self.stdin).take()
    }

    /// Remembers a terminal size for when the process starts.
    pub fn keep_size(&self, size: TerminalSize) {
        *lock(&self.size) = Some(size);
    }

    /// The remembered terminal size, once.
    pub fn take_size(&self) -> Option<TerminalSize> {
        lock(&self.size).take()
    }

    /// containerd's names for it.
    pub fn id(&self) -> &ProcessId {
        &self.id
    }

    /// What stands behind it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// QEMU's process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// containerd's fifos.
    pub fn stdio(&self) -> &Stdio {
        &self.stdio
    }

    /// The copies between the fifos and the guest.
    pub fn io(&self) -> &Copies {
        &self.io
    }

    /// Where it is now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// *Created* → *Starting*.
    ///
    /// # Errors
    /// It is in another state.
    pub fn begin_start(&self) -> Result<(), TaskError> {
        if self.advance(|phase| matches!(phase, Phase::Created), Phase::Starting, || ()) {
            Ok(())
        } else {
            Err(self.wrong_phase("created"))
        }
    }

    /// The error for a request that needs the process to be in another state.
    pub fn wrong_phase(&self, wanted: &'static str) -> TaskError {
        TaskError::Phase {
            id: self.id.clone(),
            phase: self.phase(),
            wanted,
        }
    }

    /// *Starting* → *Running*, with `publish` in the same step; false if it ended meanwhile.
    pub fn started(&self, publish: impl FnOnce()) -> bool {
        self.advance(|phase| matches!(phase, Phase::Starting), Phase::Running, publish)
    }

    /// Any live state → *Exiting*; the state that it was in for the one caller that must finish the exit, none for others.
    pub fn begin_exit(&self) -> Option<Phase> {
        let mut before = None;
        let live = |phase: &Phase| matches!(phase, Phase::Created | Phase::Starting | Phase::Running);
        self.phase.send_if_modified(|phase| {
            let moves = live(phase);
            if moves {
                before = Some(std::mem::replace(phase, Phase::Exiting));
            }
            moves
        });
        before
    }

    /// *Exiting* → *Stopped*, with `publish` in the same step.
    pub fn finish_exit(&self, exit: ExitInfo, publish: impl FnOnce()) {
        self.advance(|phase| matches!(phase, Phase::Exiting), Phase::Stopped(exit), publish);
    }

    /// Waits for *Stopped*. Any number of callers.
    pub async fn exited(&self) -> ExitInfo {
        let mut phase = self.phase.subscribe();
        loop {
            if let Phase::Stopped(exit) = *phase.borrow_and_update() {
                return exit;
            }
            // The sender is part of self, so it cannot be gone.
            let _ = phase.changed().await;
        }
    }

    /// Remembers a signal that ends the process without its own word.
    pub fn note_kill(&self, signal: u32) {
        self.killed_by.store(signal, Ordering::Relaxed);
    }

    /// 128 + the signal of [`Self::note_kill`], else `otherwise`.
    pub fn status_or(&self, otherwise: u32) -> u32 {
        match self.killed_by.load(Ordering::Relaxed) {
            0 => otherwise,
            signal => 128 + signal.min(127),
        }
    }

    fn advance(&self, from: impl Fn(&Phase) -> bool, to: Phase, step: impl FnOnce()) -> bool {
        self.phase.send_if_modified(|phase| {
            let moves = from(phase);
            if moves {
                step();
                *phase = to;
            }
            moves
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn process() -> Process {
        Process::new(
            ProcessId::first("c"),
            Kind::Workload,
            7,
            Stdio::default(),
            Copies::default(),
        )
    }

    fn exit(status: u32) -> ExitInfo {
        ExitInfo {
            status,
            at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_usual_way() {
        let process = process();
        process.begin_start().unwrap();
        assert!(process.started(|| ()));
        assert_eq!(process.phase(), Phase::Running);
        assert_eq!(process.begin_exit(), Some(Phase::Running));
        process.finish_exit(exit(3), || ());
        assert_eq!(process.phase(), Phase::Stopped(exit(3)));
    }

    #[test]
    fn only_one_end_counts() {
        let process = process();
        assert_eq!(process.begin_exit(), Some(Phase::Created));
        assert_eq!(process.begin_exit(), None);
        process.finish_exit(exit(1), || ());
        process.finish_exit(exit(2), || panic!("published twice"));
        assert_eq!(process.phase(), Phase::Stopped(exit(1)));
        assert!(matches!(
            process.begin_start(),
            Err(TaskError::Phase {
                phase: Phase::Stopped(_),
                ..
            })
        ));
    }

    #[test]
    fn a_start_that_was_overtaken_publishes_nothing() {
        let process = process();
        process.begin_start().unwrap();
        assert!(process.begin_start().is_err(), "twice");
        assert_eq!(process.begin_exit(), Some(Phase::Starting));
        assert!(!process.started(|| panic!("published")));
    }

    #[tokio::test]
    async fn every_waiter_gets_the_exit() {
        let process = std::sync::Arc::new(process());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let process = process.clone();
                tokio::spawn(async move { process.exited().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(process.begin_exit().is_some());
        process.finish_exit(exit(137), || ());
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap().status, 137);
        }
        assert_eq!(process.exited().await.status, 137, "and later ones");
    }

    #[test]
    fn status_without_the_process_s_word() {
        let process = process();
        assert_eq!(process.status_or(137), 137);
        process.note_kill(15);
        assert_eq!(process.status_or(137), 143);
    }
}
