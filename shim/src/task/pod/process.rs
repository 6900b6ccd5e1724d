//! A process: start, signals, end.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim::protos::events::task::{TaskExecStarted, TaskExit, TaskStart};
use slog::{error, info};

use super::super::container::Container;
use super::super::error::TaskError;
use super::super::process::{Kind, Phase, Process};
use super::super::timestamp;
use super::Pod;
use super::pipes::attach_stdin;
use crate::agent::{AgentError, ExitInfo};
use crate::metrics;
use crate::trace;
use crate::vm::{Outcome, Vm};

/// Status of a process that could not be started; containerd's own for the unknown.
pub(super) const NOT_STARTED: u32 = 255;
/// Status of a process whose VM has gone: 128 + SIGKILL.
const VM_GONE: u32 = 137;
/// How long the VM's death may take to show after the agent's connection broke.
const DEATH_SHOWS: Duration = Duration::from_secs(2);
/// How long an exec's start may take; nothing is pulled for it.
const EXEC_START: Duration = Duration::from_secs(60);
/// How long an exit waits for output that does not move: nobody reads it, or the process left children that hold it open. What
/// comes later is delivered later, until the process is deleted.
const OUTPUT_RESTS: Duration = Duration::from_secs(2);
/// How long an exit waits for output that moves: containerd's clients let go of a container's fifos when they hear of its end.
const OUTPUT_BEFORE_EXIT: Duration = Duration::from_secs(10);
/// How long a container's exit waits for the exits of its execs.
const EXECS_BEFORE_EXIT: Duration = Duration::from_secs(3);
/// SIGKILL.
const KILL: u32 = 9;
/// Signals that end a container that never started.
const ENDING: [u32; 5] = [1, 2, 3, KILL, 15];

impl Pod {
    /// Starts `process` and watches it from then on.
    ///
    /// # Errors
    /// See [`TaskError`]. A process that was refused is stopped then, with status 255.
    pub async fn start(self: Arc<Self>, process: Arc<Process>) -> Result<u32, TaskError> {
        if process.kind() == Kind::Exec {
            self.runs(&process)?;
        }
        process.begin_start()?;
        let pid = process.pid();
        if process.kind() == Kind::Sandbox {
            return if process.started(|| self.publish_start(&process)) {
                Ok(pid)
            } else {
                Err(TaskError::Finished)
            };
        }
        let started = {
            let _step = (process.kind() != Kind::Exec).then(|| trace::global().step("start", &process.id().container));
            self.start_in_guest(&process).await
        };
        match started {
            Ok(vm) => {
                if !process.started(|| self.publish_start(&process)) {
                    return Err(TaskError::Finished);
                }
                if process.kind() != Kind::Exec {
                    metrics::global().container_started();
                }
                info!(self.parts.log, "process started"; "process" => %process.id());
                // What was asked for while it started.
                self.resize_at_start(&process).await;
                tokio::spawn(self.clone().watch_process(vm, process));
                Ok(pid)
            }
            Err(error) => {
                let lost = matches!(error, TaskError::VmGone { .. });
                let status = process.status_or(if lost { VM_GONE } else { NOT_STARTED });
                self.end(&process, ExitInfo::now(status)).await;
                Err(error)
            }
        }
    }

    /// Sends `signal` to a process; a sandbox, or a lone container that is still being started, goes with its VM.
    ///
    /// # Errors
    /// NOT_FOUND once it has ended, the agent's refusals.
    pub async fn kill(self: Arc<Self>, process: Arc<Process>, signal: u32, all: bool) -> Result<(), TaskError> {
        let ends = ENDING.contains(&signal);
        match (process.kind(), process.phase()) {
            (_, Phase::Exiting | Phase::Stopped(_)) => Err(TaskError::Finished),
            (Kind::Sandbox, _) | (Kind::Alone, Phase::Starting) => {
                if ends {
                    info!(self.parts.log, "the VM goes down by signal"; "process" => %process.id(), "signal" => signal);
                    self.take_down(&process, signal)?;
                }
                Ok(())
            }
            (Kind::Workload | Kind::Alone, Phase::Created) if ends => {
                self.end(&process, ExitInfo::now(128 + signal)).await;
                Ok(())
            }
            (_, Phase::Created) => Err(process.wrong_phase("running")),
            (_, phase @ (Phase::Starting | Phase::Running)) => {
                let signalled = self.vm()?.agent().signal_process(process.id(), signal, all).await;
                match signalled {
                    Ok(()) if phase == Phase::Starting && ends => process.note_kill(signal),
                    Ok(()) => {}
                    // It ended on the way.
                    Err(AgentError::Refused { code, .. }) if phase == Phase::Running && has_ended(code) => {
                        return Err(TaskError::Finished);
                    }
                    // A guest that does not even take a SIGKILL hangs; the host's last word is its own. For an exec alone
                    // the container is not given up: whoever wants that kills the container.
                    Err(AgentError::Timeout { .. }) if signal == KILL && process.kind() != Kind::Exec => {
                        error!(self.parts.log, "the guest hangs, the VM goes down"; "process" => %process.id());
                        self.take_down(&process, signal)?;
                    }
                    Err(error) => return Err(error.into()),
                }
                Ok(())
            }
        }
    }

    /// Stops the VM in the background, on behalf of a signal to `process`; [`Pod::watch_vm`] does the rest.
    pub(super) fn take_down(&self, process: &Process, signal: u32) -> Result<(), TaskError> {
        let vm = self.vm()?;
        process.note_kill(signal);
        tokio::spawn(async move { vm.stop().await });
        Ok(())
    }

    /// Whether an exec's container runs and is not paused.
    fn runs(&self, exec: &Process) -> Result<(), TaskError> {
        let container = self.container(&exec.id().container)?;
        if container.process().phase() != Phase::Running {
            return Err(container.process().wrong_phase("running"));
        }
        if container.is_paused() {
            return Err(TaskError::Paused {
                id: container.id().to_owned(),
                is: "paused",
            });
        }
        Ok(())
    }

    async fn start_in_guest(&self, process: &Process) -> Result<Arc<Vm>, TaskError> {
        let vm = self.vm()?;
        attach_stdin(process)?;
        self.resize_at_start(process).await;
        let start = vm.agent().start_process(process.id());
        let patience = async {
            match process.kind() {
                Kind::Exec => tokio::time::sleep(EXEC_START).await,
                // Models are pulled, however long that takes.
                Kind::Workload | Kind::Alone | Kind::Sandbox => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            result = start => result,
            outcome = vm.stopped() => return Err(TaskError::VmGone { outcome }),
            () = patience => Err(AgentError::Timeout { call: "StartContainer" }),
        };
        match result {
            Ok(()) => Ok(vm),
            Err(error) => Err(explain(&vm, error).await),
        }
    }

    /// Waits for the process's end. The VM's death is [`Pod::watch_vm`]'s business.
    async fn watch_process(self: Arc<Self>, vm: Arc<Vm>, process: Arc<Process>) {
        let result = tokio::select! {
            result = vm.agent().wait_process(process.id()) => result,
            _ = vm.stopped() => return,
        };
        match result {
            Ok(ended) => {
                if let Ok(container) = self.container(&process.id().container)
                    && !process.id().is_exec()
                {
                    if ended.out_of_memory {
                        self.out_of_memory_at_end(&container);
                    }
                    self.volumes.message(container.id(), &ended.termination_message).await;
                    self.end_execs(&container).await;
                }
                self.end(&process, ended.exit).await;
            }
            Err(error) => {
                if died(&vm).await.is_none() {
                    // A guest that cannot be asked any more is of no use to anybody.
                    error!(self.parts.log, "the agent is lost, the VM goes down";
                        "process" => %process.id(), "error" => TaskError::from(error).message());
                    vm.stop().await;
                }
            }
        }
    }

    /// Ends every process when the VM is gone.
    pub(super) async fn watch_vm(self: Arc<Self>, vm: Arc<Vm>) {
        vm.stopped().await;
        self.volumes.close();
        let containers: Vec<_> = self.all().values().cloned().collect();
        for container in containers {
            for exec in container.execs() {
                self.end(&exec, ExitInfo::now(exec.status_or(VM_GONE))).await;
            }
            let process = container.process();
            self.end(process, ExitInfo::now(process.status_or(VM_GONE))).await;
        }
    }

    /// Waits for the ends of a container's execs, which the guest's kernel brings about when the container's own process
    /// ends: containerd wants to hear of them first. One that is not reported in time counts as killed.
    async fn end_execs(&self, container: &Container) {
        let execs = container.execs();
        let all = async {
            for exec in &execs {
                if !matches!(exec.phase(), Phase::Created) {
                    exec.exited().await;
                }
            }
        };
        let _ = tokio::time::timeout(EXECS_BEFORE_EXIT, all).await;
        for exec in &execs {
            self.end(exec, ExitInfo::now(VM_GONE)).await;
        }
    }

    /// Delivers what is on its way of the output, then tells everybody. Only the first call for a process does anything.
    async fn end(&self, process: &Process, exit: ExitInfo) {
        let before = process.begin_exit();
        match before {
            None => return,
            Some(Phase::Running) => {
                process.io().end_input().await;
                process.io().settled(OUTPUT_RESTS, OUTPUT_BEFORE_EXIT).await;
            }
            // A process that never ran has written nothing that could be waited for.
            Some(_) => process.io().abort().await,
        }
        if matches!(process.kind(), Kind::Workload | Kind::Alone) {
            metrics::global().container_ended(exit.status, before == Some(Phase::Running));
        }
        info!(self.parts.log, "process ended"; "process" => %process.id(), "status" => exit.status);
        let id = process.id();
        process.finish_exit(exit, || {
            if !process.is_announced() {
                return;
            }
            self.parts.events.publish(TaskExit {
                container_id: id.container.clone(),
                id: if id.is_exec() { &id.exec } else { &id.container }.clone(),
                pid: process.pid(),
                exit_status: exit.status,
                exited_at: Some(timestamp(exit.at)).into(),
                ..Default::default()
            });
        });
    }

    fn publish_start(&self, process: &Process) {
        if !process.is_announced() {
            return;
        }
        let (id, pid) = (process.id(), process.pid());
        if id.is_exec() {
            self.parts.events.publish(TaskExecStarted {
                container_id: id.container.clone(),
                exec_id: id.exec.clone(),
                pid,
                ..Default::default()
            });
        } else {
            self.parts.events.publish(TaskStart {
                container_id: id.container.clone(),
                pid,
                ..Default::default()
            });
        }
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

/// Whether the agent's refusal of a signal or of a size means that there is no process any more.
pub(super) fn has_ended(code: ttrpc::Code) -> bool {
    matches!(code, ttrpc::Code::NOT_FOUND | ttrpc::Code::FAILED_PRECONDITION)
}

/// The VM's end, if it shows within a moment.
async fn died(vm: &Vm) -> Option<Arc<Outcome>> {
    tokio::time::timeout(DEATH_SHOWS, vm.stopped()).await.ok()
}
