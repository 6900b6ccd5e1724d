//! A container's process: start, signals, end.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim::protos::events::task::{TaskExit, TaskStart};
use slog::{error, info};

use super::super::container::{Container, Kind, Phase};
use super::super::error::TaskError;
use super::super::timestamp;
use super::Pod;
use super::pipes::attach_stdin;
use crate::agent::{AgentError, ExitInfo};
use crate::metrics;
use crate::vm::{Outcome, Vm};

/// Status of a container that could not be started; containerd's own for the unknown.
pub(super) const NOT_STARTED: u32 = 255;
/// Status of a container whose VM has gone: 128 + SIGKILL.
const VM_GONE: u32 = 137;
/// How long the VM's death may take to show after the agent's connection broke.
const DEATH_SHOWS: Duration = Duration::from_secs(2);
/// SIGKILL.
const KILL: u32 = 9;
/// Signals that end a container that never started.
const ENDING: [u32; 5] = [1, 2, 3, KILL, 15];

impl Pod {
    /// Starts `container`'s process and watches it from then on.
    ///
    /// # Errors
    /// See [`TaskError`]. A container that was refused is stopped then, with status 255.
    pub async fn start(self: Arc<Self>, container: Arc<Container>) -> Result<u32, TaskError> {
        container.begin_start()?;
        let pid = container.pid();
        let started = TaskStart {
            container_id: container.id().to_owned(),
            pid,
            ..Default::default()
        };
        let publish = || self.parts.events.publish(started);
        if container.kind() == Kind::Sandbox {
            return if container.started(publish) {
                Ok(pid)
            } else {
                Err(TaskError::Finished)
            };
        }
        match self.start_in_guest(&container).await {
            Ok(vm) => {
                if !container.started(publish) {
                    return Err(TaskError::Finished);
                }
                metrics::global().container_started();
                info!(self.parts.log, "container started"; "container" => container.id());
                tokio::spawn(self.clone().watch_process(vm, container));
                Ok(pid)
            }
            Err(error) => {
                let lost = matches!(error, TaskError::VmGone { .. });
                let status = container.status_or(if lost { VM_GONE } else { NOT_STARTED });
                self.end(&container, ExitInfo::now(status)).await;
                Err(error)
            }
        }
    }

    /// Sends `signal` to the container's process; a sandbox, or a lone container that is still being started, goes with its VM.
    ///
    /// # Errors
    /// NOT_FOUND once it has ended, the agent's refusals.
    pub async fn kill(self: Arc<Self>, container: Arc<Container>, signal: u32, all: bool) -> Result<(), TaskError> {
        let ends = ENDING.contains(&signal);
        match (container.kind(), container.phase()) {
            (_, Phase::Exiting | Phase::Stopped(_)) => Err(TaskError::Finished),
            (Kind::Sandbox, _) | (Kind::Alone, Phase::Starting) => {
                if ends {
                    info!(self.parts.log, "the VM goes down by signal"; "container" => container.id(), "signal" => signal);
                    self.take_down(&container, signal)?;
                }
                Ok(())
            }
            (_, Phase::Created) if ends => {
                self.end(&container, ExitInfo::now(128 + signal)).await;
                Ok(())
            }
            (_, phase @ Phase::Created) => Err(TaskError::Phase {
                id: container.id().to_owned(),
                phase,
                wanted: "running",
            }),
            (_, phase @ (Phase::Starting | Phase::Running)) => {
                let signalled = self.vm()?.agent().signal_container(container.id(), signal, all).await;
                match signalled {
                    Ok(()) if phase == Phase::Starting && ends => container.note_kill(signal),
                    Ok(()) => {}
                    // It ended on the way.
                    Err(AgentError::Refused { code, .. }) if phase == Phase::Running && has_ended(code) => {
                        return Err(TaskError::Finished);
                    }
                    // A guest that does not even take a SIGKILL hangs; the host's last word is its own.
                    Err(AgentError::Timeout { .. }) if signal == KILL => {
                        error!(self.parts.log, "the guest hangs, the VM goes down"; "container" => container.id());
                        self.take_down(&container, signal)?;
                    }
                    Err(error) => return Err(error.into()),
                }
                Ok(())
            }
        }
    }

    /// Stops the VM in the background, on behalf of a signal to `container`; [`Pod::watch_vm`] does the rest.
    fn take_down(&self, container: &Container, signal: u32) -> Result<(), TaskError> {
        let vm = self.vm()?;
        container.note_kill(signal);
        tokio::spawn(async move { vm.stop().await });
        Ok(())
    }

    async fn start_in_guest(&self, container: &Container) -> Result<Arc<Vm>, TaskError> {
        let vm = self.vm()?;
        attach_stdin(container)?;
        let result = tokio::select! {
            result = vm.agent().start_container(container.id()) => result,
            outcome = vm.stopped() => return Err(TaskError::VmGone { outcome }),
        };
        match result {
            Ok(()) => Ok(vm),
            Err(error) => Err(explain(&vm, error).await),
        }
    }

    /// Waits for the process's end. The VM's death is [`Pod::watch_vm`]'s business.
    async fn watch_process(self: Arc<Self>, vm: Arc<Vm>, container: Arc<Container>) {
        let result = tokio::select! {
            result = vm.agent().wait_container(container.id()) => result,
            _ = vm.stopped() => return,
        };
        match result {
            Ok(exit) => self.end(&container, exit).await,
            Err(error) => {
                if died(&vm).await.is_none() {
                    // A guest that cannot be asked any more is of no use to anybody.
                    error!(self.parts.log, "the agent is lost, the VM goes down";
                        "container" => container.id(), "error" => TaskError::from(error).message());
                    vm.stop().await;
                }
            }
        }
    }

    /// Ends every container when the VM is gone.
    pub(super) async fn watch_vm(self: Arc<Self>, vm: Arc<Vm>) {
        vm.stopped().await;
        let containers: Vec<_> = self.all().values().cloned().collect();
        for container in containers {
            self.end(&container, ExitInfo::now(container.status_or(VM_GONE))).await;
        }
    }

    /// Delivers what is left of the output, then tells everybody. Only the first call for a container does anything.
    async fn end(&self, container: &Container, exit: ExitInfo) {
        let before = container.begin_exit();
        match before {
            None => return,
            Some(Phase::Running) => container.io().shutdown().await,
            // A process that never ran has written nothing that could be waited for.
            Some(_) => container.io().abort().await,
        }
        if container.kind() != Kind::Sandbox {
            metrics::global().container_ended(exit.status, before == Some(Phase::Running));
        }
        info!(self.parts.log, "container ended"; "container" => container.id(), "status" => exit.status);
        container.finish_exit(exit, || {
            self.parts.events.publish(TaskExit {
                container_id: container.id().to_owned(),
                id: container.id().to_owned(),
                pid: container.pid(),
                exit_status: exit.status,
                exited_at: Some(timestamp(exit.at)).into(),
                ..Default::default()
            });
        });
    }
}

/// What an agent's failure means: a broken connection is most often the VM's death, which shows a moment later and says more.
pub(super) async fn explain(vm: &Vm, error: AgentError) -> TaskError {
    match error {
        AgentError::Broken { .. } => match died(vm).await {
            Some(outcome) => TaskError::VmGone { outcome },
            None => error.into(),
        },
        error => error.into(),
    }
}

/// Whether the agent's refusal of a signal means that there is no process any more.
fn has_ended(code: ttrpc::Code) -> bool {
    matches!(code, ttrpc::Code::NOT_FOUND | ttrpc::Code::FAILED_PRECONDITION)
}

/// The VM's end, if it shows within a moment.
async fn died(vm: &Vm) -> Option<Arc<Outcome>> {
    tokio::time::timeout(DEATH_SHOWS, vm.stopped()).await.ok()
}
