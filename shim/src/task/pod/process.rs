//! A container's process: start, signals, end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use containerd_shim::protos::events::task::{TaskExit, TaskStart};
use slog::{error, info};

use super::super::container::{Container, Kind, Phase};
use super::super::error::TaskError;
use super::super::timestamp;
use super::Pod;
use super::pipes::attach_stdin;
use crate::agent::{AgentError, ExitInfo};
use crate::vm::{Outcome, Vm};

/// Status of a container that could not be started; containerd's own for the unknown.
pub(super) const NOT_STARTED: u32 = 255;
/// How long the VM's death may take to show after the agent's connection broke.
const DEATH_SHOWS: Duration = Duration::from_secs(2);
/// Signals that end a container that never started.
const ENDING: [u32; 5] = [1, 2, 3, 9, 15];

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
                info!(self.parts.log, "container started"; "container" => container.id());
                tokio::spawn(self.clone().watch_process(vm, container));
                Ok(pid)
            }
            Err(error) => {
                let status = if matches!(error, TaskError::VmGone { .. }) {
                    container.status_without_vm()
                } else {
                    NOT_STARTED
                };
                self.end(
                    &container,
                    ExitInfo {
                        status,
                        at: SystemTime::now(),
                    },
                )
                .await;
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
                    let vm = self.vm()?;
                    container.note_kill(signal);
                    info!(self.parts.log, "the VM goes down by signal"; "container" => container.id(), "signal" => signal);
                    tokio::spawn(async move { vm.stop().await });
                }
                Ok(())
            }
            (_, Phase::Created) if ends => {
                self.end(
                    &container,
                    ExitInfo {
                        status: 128 + signal,
                        at: SystemTime::now(),
                    },
                )
                .await;
                Ok(())
            }
            (_, Phase::Created) => Err(TaskError::Phase {
                id: container.id().to_owned(),
                phase: Phase::Created,
                wanted: "running",
            }),
            (_, Phase::Starting | Phase::Running) => {
                let signalled = self.vm()?.agent().signal_container(container.id(), signal, all).await;
                match signalled {
                    // It ended on the way.
                    Err(AgentError::Refused {
                        code: ttrpc::Code::NOT_FOUND,
                        ..
                    }) => Err(TaskError::Finished),
                    other => Ok(other?),
                }
            }
        }
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
            // A broken connection is most often a VM's death that shows a moment later, and says more.
            Err(broken @ AgentError::Broken { .. }) => Err(match died(&vm).await {
                Some(outcome) => TaskError::VmGone { outcome },
                None => broken.into(),
            }),
            Err(error) => Err(error.into()),
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
            let exit = ExitInfo {
                status: container.status_without_vm(),
                at: SystemTime::now(),
            };
            self.end(&container, exit).await;
        }
    }

    /// Delivers what is left of the output, then tells everybody. Only the first call for a container does anything.
    async fn end(&self, container: &Container, exit: ExitInfo) {
        match container.begin_exit() {
            None => return,
            Some(Phase::Running) => container.io().shutdown().await,
            // A process that never ran has written nothing that could be waited for.
            Some(_) => container.io().abort().await,
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

/// The VM's end, if it shows within a moment.
async fn died(vm: &Vm) -> Option<Arc<Outcome>> {
    tokio::time::timeout(DEATH_SHOWS, vm.stopped()).await.ok()
}
