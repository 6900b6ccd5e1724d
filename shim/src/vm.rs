//! One micro-VM from its launch to the removal of its last file.
//!
//! ```text
//!            Vm::launch                    Vm::stop                   QEMU has ended,
//!  (nothing) ──────────▶ Booting ──Hello──▶ Ready ──────▶ Stopping ──────files removed──▶ Stopped(Requested)
//!                           │                 │
//!                           │                 ├── QEMU, vsock backend or platform ended ──▶ Stopped(Died)
//!                           │                 └── no sign of life from the agent: killed ──▶ Stopped(Silent)
//!                           └── error, deadline, a program ended: killed, files removed ──▶ LaunchError
//! ```
//!
//! *Booting* is the future of [`Vm::launch`]: dropping it kills what was started and removes the run directory. From *Ready*
//! on one task, the supervisor, owns programs and files; everyone else holds a [`Vm`], asks it to stop and watches
//! [`Vm::stopped`]. Dropping the last handle has the same effect as dropping the launch. *Stopping* asks the agent (it zeroes
//! model memory), then the monitor, then the kernel, each for a bounded time. *Stopped* is final.

mod console;
mod launch;
mod machine;
mod network;
mod programs;
mod rundir;
pub mod sizing;
mod supervisor;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use console::{ConsoleLog, ConsoleTail};
pub use launch::{LaunchError, LaunchRequest};
pub(crate) use network::GUEST_MAC;
pub use network::GuestNetwork;
pub use rundir::{About, PodName, RunDir, RunDirError, RunDirKey, StateFile};

use crate::agent::Agent;
use crate::network::PodNetwork;
use crate::process::Exit;
use crate::vsock::Transport;

/// Where a VM is in its life; see the diagram above. *Booting* has no [`Vm`] yet.
#[derive(Clone, Debug)]
pub enum State {
    /// The agent answers.
    Ready,
    /// Going down because it was asked to.
    Stopping,
    /// Gone, with every file.
    Stopped(Arc<Outcome>),
}

/// Why a VM is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// [`Vm::stop`].
    Requested,
    /// By itself.
    Died(Death),
    /// Killed, since its agent gave no sign of life.
    Silent(Silence),
}

/// A guest that hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// How long a question went unanswered.
    pub patience: Duration,
    /// The last lines of the guest's console.
    pub console: Vec<String>,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the guest gave no sign of life for {:?} (guest-timeout-s)",
            self.patience
        )?;
        if !self.console.is_empty() {
            write!(f, "; console: {}", self.console.join(" | "))?;
        }
        Ok(())
    }
}

/// The end of a VM that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Which program ended first.
    pub program: &'static str,
    /// How.
    pub exit: Exit,
    /// QEMU's word for it ("guest-reset" after a panic, "guest-shutdown", …); empty where it had none.
    pub reason: String,
    /// The last lines of the program's stderr.
    pub stderr: Vec<String>,
    /// The last lines of the guest's console.
    pub console: Vec<String>,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended with {}", self.program, self.exit)?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        for (what, lines) in [("stderr", &self.stderr), ("console", &self.console)] {
            if !lines.is_empty() {
                write!(f, "; {what}: {}", lines.join(" | "))?;
            }
        }
        Ok(())
    }
}

/// A VM whose agent has answered.
pub struct Vm {
    agent: Agent,
    transport: Arc<dyn Transport>,
    network: Option<PodNetwork>,
    qemu_pid: u32,
    state: watch::Receiver<State>,
    stop: mpsc::Sender<()>,
    supervisor: JoinHandle<()>,
}

impl Vm {
    /// The agent's API.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The way to the guest's ports.
    pub fn transport(&self) -> &dyn Transport {
        self.transport.as_ref()
    }

    /// The pod's network, for the guest to be told; none on the user-mode network.
    pub fn network(&self) -> Option<&PodNetwork> {
        self.network.as_ref()
    }

    /// QEMU's process on the host.
    pub fn qemu_pid(&self) -> u32 {
        self.qemu_pid
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until the VM is gone. Any number of callers; may be cancelled.
    pub async fn stopped(&self) -> Arc<Outcome> {
        let mut state = self.state.clone();
        match state
            .wait_for(|state| matches!(state, State::Stopped(_)))
            .await
            .as_deref()
        {
            Ok(State::Stopped(outcome)) => outcome.clone(),
            // The supervisor sends its outcome before it ends; without one it was aborted, which kills as well.
            Ok(_) | Err(_) => Arc::new(Outcome::Requested),
        }
    }

    /// Takes the VM down and waits until it is gone: at most about 6 s. Calling it again only waits.
    pub async fn stop(&self) -> Arc<Outcome> {
        // A full queue means that the request is under way.
        let _ = self.stop.try_send(());
        self.stopped().await
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}
