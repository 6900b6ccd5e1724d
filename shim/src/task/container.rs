//! One container's states.
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

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use containerd_shim::asynchronous::io::{IoTasks, Stdio};
use tokio::sync::watch;

use super::error::TaskError;
use crate::agent::ExitInfo;
use crate::vsock::Stream;

/// What stands behind a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process in the guest.
    Workload,
    /// The only one in its VM; a VM that is still pulling can be given up with it.
    Alone,
    /// A CRI sandbox: its process is the VM.
    Sandbox,
}

/// See the diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The agent knows it; nothing runs.
    Created,
    /// Keys, image and models are on their way.
    Starting,
    /// Its process runs.
    Running,
    /// Its process has ended; output is still being delivered.
    Exiting,
    /// Over.
    Stopped(ExitInfo),
}

/// A container as containerd knows it.
pub struct Container {
    id: String,
    bundle: String,
    kind: Kind,
    pid: u32,
    stdio: Stdio,
    io: IoTasks,
    stdin: Mutex<Option<Box<dyn Stream>>>,
    phase: watch::Sender<Phase>,
    killed_by: AtomicU32,
}

impl Container {
    /// A container in *Created*.
    pub fn new(id: &str, bundle: &str, kind: Kind, pid: u32, stdio: Stdio, io: IoTasks) -> Self {
        Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            kind,
            pid,
            stdio,
            io,
            stdin: Mutex::new(None),
            phase: watch::Sender::new(Phase::Created),
            killed_by: AtomicU32::new(0),
        }
    }

    /// With the guest's end of stdin, which waits for the start.
    #[must_use]
    pub fn with_stdin(mut self, stream: Option<Box<dyn Stream>>) -> Self {
        self.stdin = Mutex::new(stream);
        self
    }

    /// The guest's end of stdin, once.
    pub fn take_stdin(&self) -> Option<Box<dyn Stream>> {
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// containerd's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its bundle, as containerd named it.
    pub fn bundle(&self) -> &str {
        &self.bundle
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
    pub fn io(&self) -> &IoTasks {
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
            Err(TaskError::Phase {
                id: self.id.clone(),
                phase: self.phase(),
                wanted: "created",
            })
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

    /// Remembers a signal that ends the container without its process's own word.
    pub fn note_kill(&self, signal: u32) {
        self.killed_by.store(signal, Ordering::Relaxed);
    }

    /// 128 + the signal of [`Container::note_kill`], else `otherwise`.
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn container() -> Container {
        Container::new("c", "/b", Kind::Workload, 7, Stdio::default(), IoTasks::default())
    }

    fn exit(status: u32) -> ExitInfo {
        ExitInfo {
            status,
            at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_usual_way() {
        let container = container();
        container.begin_start().unwrap();
        assert!(container.started(|| ()));
        assert_eq!(container.phase(), Phase::Running);
        assert_eq!(container.begin_exit(), Some(Phase::Running));
        container.finish_exit(exit(3), || ());
        assert_eq!(container.phase(), Phase::Stopped(exit(3)));
    }

    #[test]
    fn only_one_end_counts() {
        let container = container();
        assert_eq!(container.begin_exit(), Some(Phase::Created));
        assert_eq!(container.begin_exit(), None);
        container.finish_exit(exit(1), || ());
        container.finish_exit(exit(2), || panic!("published twice"));
        assert_eq!(container.phase(), Phase::Stopped(exit(1)));
        assert!(matches!(
            container.begin_start(),
            Err(TaskError::Phase {
                phase: Phase::Stopped(_),
                ..
            })
        ));
    }

    #[test]
    fn a_start_that_was_overtaken_publishes_nothing() {
        let container = container();
        container.begin_start().unwrap();
        assert!(container.begin_start().is_err(), "twice");
        assert_eq!(container.begin_exit(), Some(Phase::Starting));
        assert!(!container.started(|| panic!("published")));
    }

    #[tokio::test]
    async fn every_waiter_gets_the_exit() {
        let container = std::sync::Arc::new(container());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let container = container.clone();
                tokio::spawn(async move { container.exited().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(container.begin_exit().is_some());
        container.finish_exit(exit(137), || ());
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap().status, 137);
        }
        assert_eq!(container.exited().await.status, 137, "and later ones");
    }

    #[test]
    fn status_without_the_process_s_word() {
        let container = container();
        assert_eq!(container.status_or(137), 137);
        container.note_kill(15);
        assert_eq!(container.status_or(137), 143);
    }
}
