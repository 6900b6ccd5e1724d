//! The task that owns a machine from its agent's first answer to its end.

use std::sync::Arc;
use std::time::Duration;

use slog::{Logger, error, info, warn};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::machine::Machine;
use super::{Death, Outcome, Silence, State};
use crate::agent::{Agent, AgentError};
use crate::process::Exit;
use crate::qmp::Monitor;
use crate::qmp::codec::Event;

/// For the agent's answer to Shutdown and the guest's power-off together.
const AGENT_SHUTDOWN: Duration = Duration::from_secs(3);
/// For QEMU's answer to `quit`, and again for its end.
const MONITOR_QUIT: Duration = Duration::from_secs(1);
/// Signs of life that are asked for within the time that the guest may be silent.
const SIGNS: u32 = 4;
/// For the last monitor event after QEMU's end.
const LAST_EVENT: Duration = Duration::from_millis(100);

pub(super) struct Supervisor {
    pub(super) machine: Machine,
    pub(super) monitor: Monitor,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) agent: Agent,
    pub(super) patience: Duration,
    pub(super) stop_requests: mpsc::Receiver<()>,
    pub(super) state: watch::Sender<State>,
    pub(super) log: Logger,
}

impl Supervisor {
    /// Runs until the machine is gone. Aborting it kills the machine, through the machine's drop.
    pub(super) async fn run(mut self) {
        let mut reason = String::new();
        let (agent, patience) = (self.agent.clone(), self.patience);
        // Outside of the loop: events of a guest that hangs do not begin its time anew.
        let silence = silence(&agent, patience);
        tokio::pin!(silence);
        let outcome = loop {
            tokio::select! {
                death = self.machine.first_exit() => break Outcome::Died(self.complete(death, reason).await),
                Some(event) = self.events.recv() => self.note(event, &mut reason),
                Some(()) = self.stop_requests.recv() => {
                    self.state.send_replace(State::Stopping);
                    self.take_down().await;
                    break Outcome::Requested;
                }
                () = &mut silence => {
                    let console = self.machine.console_lines();
                    break Outcome::Silent(Silence { patience, console });
                }
            }
        };
        match &outcome {
            Outcome::Died(death) => {
                error!(self.log, "the VM died"; "program" => death.program, "exit" => %death.exit, "reason" => &death.reason,
                    "stderr" => death.stderr.join(" | "), "console" => death.console.join(" | "));
            }
            Outcome::Silent(silence) => {
                error!(self.log, "the guest hangs, the VM is killed"; "silent-s" => silence.patience.as_secs(),
                    "console" => silence.console.join(" | "));
            }
            Outcome::Requested => info!(self.log, "the VM was taken down"),
        }
        drop(self.monitor);
        self.machine.destroy().await;
        self.state.send_replace(State::Stopped(Arc::new(outcome)));
    }

    fn note(&self, event: Event, reason: &mut String) {
        match event {
            Event::Shutdown { reason: told, .. } => *reason = told,
            Event::Reset => {}
            Event::Stop => warn!(self.log, "QEMU stopped the VM by itself"),
        }
    }

    /// Adds QEMU's last word, which may still be on its way through the monitor's task, and the guest's.
    async fn complete(&mut self, mut death: Death, mut reason: String) -> Death {
        while let Ok(Some(event)) = tokio::time::timeout(LAST_EVENT, self.events.recv()).await {
            self.note(event, &mut reason);
        }
        death.reason = reason;
        death
    }

    /// Agent, monitor, then (in `destroy`) the kernel.
    async fn take_down(&mut self) {
        let ask = async {
            if let Err(error) = self.agent.shutdown(AGENT_SHUTDOWN).await {
                warn!(self.log, "the agent did not shut down"; "error" => %error);
            }
            // It powers off by itself; the time that is left is for that.
            std::future::pending::<()>().await;
        };
        let ended: Option<Exit> = tokio::select! {
            _ = tokio::time::timeout(AGENT_SHUTDOWN, ask) => None,
            death = self.machine.first_exit() => Some(death.exit),
        };
        if ended.is_some() {
            return;
        }
        match tokio::time::timeout(MONITOR_QUIT, self.monitor.quit()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(self.log, "QEMU does not quit, it is killed"; "error" => %error),
            Err(_) => warn!(self.log, "QEMU's monitor is silent, it is killed"),
        }
        if let Some(qemu) = &mut self.machine.qemu {
            qemu.exited_within(MONITOR_QUIT).await;
        }
    }
}

/// Returns when the agent has given no sign of life for `patience`. Any answer is one, a refusal too.
async fn silence(agent: &Agent, patience: Duration) {
    let mut heard = Instant::now();
    loop {
        tokio::time::sleep(patience / SIGNS).await;
        match agent.ping(patience).await {
            Ok(()) | Err(AgentError::Refused { .. }) => heard = Instant::now(),
            Err(_) if heard.elapsed() >= patience => return,
            // A connection that broke: most often QEMU's end, which shows in a moment.
            Err(_) => {}
        }
    }
}
