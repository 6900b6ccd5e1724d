//! containerd's Task service (API v3) for one pod.
//!
//! | call | what happens |
//! |---|---|
//! | Create | of a sandbox or of a lone container: the VM comes up; of a container: the agent checks it and makes its pipes |
//! | Start | the agent waits for keys, image and models, then starts the process; as long as that takes |
//! | State, Wait, Connect | answered from the shim's own memory, never waiting for the guest |
//! | Pids | the container's own process, its execs, and as many more as the guest counts, if it answers within two seconds |
//! | Exec | the agent checks a further process against the policy and makes its pipes; Start runs it |
//! | Kill | a signal through the agent; of a sandbox: the VM goes down |
//! | ResizePty | through the agent; before the process runs: when it runs |
//! | CloseIO | end of stdin |
//! | Pause, Resume, Update, Stats | through the agent; Stats of a sandbox: of the whole pod |
//! | Delete | of a container; of the last one: the VM goes down |
//! | Shutdown | the shim ends if it has no container left |
//! | Checkpoint | UNIMPLEMENTED: a confidential guest's state does not leave it |
//!
//! The pid that containerd sees is QEMU's, of every process: a guest's pids mean nothing on the host. [`Pod`] has the
//! logic, [`Process`] the states of one process, [`Publisher`] the events; this file only translates requests, and
//! [`TaskError`] is where errors become status codes.

mod container;
mod copies;
mod error;
mod events;
#[cfg(feature = "failpoints")]
mod failpoint;
mod network;
mod pod;
mod process;
mod resolver;
mod stats;
mod stdio;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use containerd_shim::protos::api::Status;
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim::protos::shim::shim as wire;
use containerd_shim::protos::types::empty::Empty;
use containerd_shim::{Task, TtrpcContext, TtrpcResult};
use slog::{Logger, debug, warn};

use crate::metrics;
use crate::trace;

pub use container::{Container, MAX_EXECS};
pub use copies::Copies;
pub use error::TaskError;
pub use events::Publisher;
#[cfg(feature = "failpoints")]
pub use failpoint::Failpoints;
pub use pod::{Dns, Pod, PodParts, SandboxState};
pub use process::{Kind, Phase, Process, TerminalSize};
pub use stdio::{Place, Stdio};

/// Answers containerd's requests.
pub struct TaskService {
    pod: Arc<Pod>,
    #[cfg(feature = "failpoints")]
    failpoints: Failpoints,
    log: Logger,
}

impl TaskService {
    /// A service for `pod`.
    pub fn new(pod: Arc<Pod>, log: Logger) -> Self {
        Self {
            pod,
            #[cfg(feature = "failpoints")]
            failpoints: Failpoints::default(),
            log,
        }
    }

    /// With the failures that a pod's annotations ask for.
    #[cfg(feature = "failpoints")]
    #[must_use]
    pub fn with_failpoints(mut self, annotations: &std::collections::BTreeMap<String, String>) -> Self {
        self.failpoints = Failpoints::of_annotations(annotations, &self.log);
        self
    }

    /// Fails a call as the test that made the pod wants it; without the feature `failpoints`, never.
    async fn failpoint(&self, call: &str) -> TtrpcResult<()> {
        #[cfg(feature = "failpoints")]
        if let Err(error) = self.failpoints.evaluate(call, &self.log).await {
            return Err(error.into_status());
        }
        #[cfg(not(feature = "failpoints"))]
        let _ = call;
        Ok(())
    }

    /// Logs a failed request and turns its error into a status.
    fn answer<T>(&self, call: &'static str, id: &str, result: Result<T, TaskError>) -> TtrpcResult<T> {
        if let Err(error) = &result {
            metrics::global().refused(call, error.code());
        }
        match &result {
            Ok(_) => debug!(self.log, "request done"; "call" => call, "container" => id),
            Err(error) if error.is_routine() => {
                debug!(self.log, "request refused"; "call" => call, "container" => id, "error" => error.message());
            }
            Err(error) => {
                slog::error!(self.log, "request failed"; "call" => call, "container" => id, "error" => error.message());
            }
        }
        result.map_err(TaskError::into_status)
    }
}

#[async_trait]
impl Task for TaskService {
    async fn create(&self, _: &TtrpcContext, req: wire::CreateTaskRequest) -> TtrpcResult<wire::CreateTaskResponse> {
        self.failpoint("Create").await?;
        let id = req.id.clone();
        let created = {
            let _step = trace::global().step("create", &id);
            self.pod.create(req).await
        };
        self.answer(
            "Create",
            &id,
            created.map(|pid| wire::CreateTaskResponse {
                pid,
                ..Default::default()
            }),
        )
    }

    async fn start(&self, _: &TtrpcContext, req: wire::StartRequest) -> TtrpcResult<wire::StartResponse> {
        self.failpoint("Start").await?;
        let started = match self.pod.process(&req.id, &req.exec_id) {
            // A caller that gives up must not leave the process between two states: the start goes on without it.
            Ok(process) => finished(self.pod.clone().start(process)).await,
            Err(error) => Err(error),
        };
        let started = started.map(|pid| wire::StartResponse {
            pid,
            ..Default::default()
        });
        self.answer("Start", &req.id, started)
    }

    async fn state(&self, _: &TtrpcContext, req: wire::StateRequest) -> TtrpcResult<wire::StateResponse> {
        self.failpoint("State").await?;
        let state = self.pod.container(&req.id).and_then(|container| {
            let process = self.pod.process(&req.id, &req.exec_id)?;
            Ok(state_of(&container, &process))
        });
        self.answer("State", &req.id, state)
    }

    async fn wait(&self, _: &TtrpcContext, req: wire::WaitRequest) -> TtrpcResult<wire::WaitResponse> {
        self.failpoint("Wait").await?;
        let result = match self.pod.process(&req.id, &req.exec_id) {
            Ok(process) => {
                let exit = process.exited().await;
                Ok(wire::WaitResponse {
                    exit_status: exit.status,
                    exited_at: Some(timestamp(exit.at)).into(),
                    ..Default::default()
                })
            }
            Err(error) => Err(error),
        };
        self.answer("Wait", &req.id, result)
    }

    async fn kill(&self, _: &TtrpcContext, req: wire::KillRequest) -> TtrpcResult<Empty> {
        self.failpoint("Kill").await?;
        let result = match self.pod.process(&req.id, &req.exec_id) {
            Ok(process) => self.pod.clone().kill(process, req.signal, req.all).await,
            Err(error) => Err(error),
        };
        self.answer("Kill", &req.id, result.map(|()| Empty::new()))
    }

    async fn delete(&self, _: &TtrpcContext, req: wire::DeleteRequest) -> TtrpcResult<wire::DeleteResponse> {
        self.failpoint("Delete").await?;
        let result = match self.pod.process(&req.id, &req.exec_id) {
            Ok(process) => {
                let pid = process.pid();
                let exit = finished(self.pod.clone().delete(process)).await;
                exit.map(|exit| wire::DeleteResponse {
                    pid,
                    exit_status: exit.status,
                    exited_at: Some(timestamp(exit.at)).into(),
                    ..Default::default()
                })
            }
            Err(error) => Err(error),
        };
        self.answer("Delete", &req.id, result)
    }

    async fn pids(&self, _: &TtrpcContext, req: wire::PidsRequest) -> TtrpcResult<wire::PidsResponse> {
        self.failpoint("Pids").await?;
        let processes = match self.pod.container(&req.id) {
            Ok(container) => Ok(self.pod.pids(&container).await),
            Err(error) => Err(error),
        };
        let pids = processes.map(|processes| wire::PidsResponse {
            processes,
            ..Default::default()
        });
        self.answer("Pids", &req.id, pids)
    }

    async fn close_io(&self, _: &TtrpcContext, req: wire::CloseIORequest) -> TtrpcResult<Empty> {
        self.failpoint("CloseIO").await?;
        let closed = self.pod.process(&req.id, &req.exec_id).map(|process| {
            if req.stdin {
                process.io().close_input();
            }
            Empty::new()
        });
        self.answer("CloseIO", &req.id, closed)
    }

    async fn exec(&self, _: &TtrpcContext, req: wire::ExecProcessRequest) -> TtrpcResult<Empty> {
        self.failpoint("Exec").await?;
        let id = req.id.clone();
        let added = finished(self.pod.clone().exec(req)).await;
        self.answer("Exec", &id, added.map(|()| Empty::new()))
    }

    async fn resize_pty(&self, _: &TtrpcContext, req: wire::ResizePtyRequest) -> TtrpcResult<Empty> {
        self.failpoint("ResizePty").await?;
        let size = TerminalSize {
            columns: req.width,
            rows: req.height,
        };
        let resized = match self.pod.process(&req.id, &req.exec_id) {
            Ok(process) => self.pod.resize(&process, size).await,
            Err(error) => Err(error),
        };
        self.answer("ResizePty", &req.id, resized.map(|()| Empty::new()))
    }

    async fn pause(&self, _: &TtrpcContext, req: wire::PauseRequest) -> TtrpcResult<Empty> {
        self.failpoint("Pause").await?;
        let paused = match self.pod.container(&req.id) {
            Ok(container) => self.pod.pause(&container).await,
            Err(error) => Err(error),
        };
        self.answer("Pause", &req.id, paused.map(|()| Empty::new()))
    }

    async fn resume(&self, _: &TtrpcContext, req: wire::ResumeRequest) -> TtrpcResult<Empty> {
        self.failpoint("Resume").await?;
        let resumed = match self.pod.container(&req.id) {
            Ok(container) => self.pod.resume(&container).await,
            Err(error) => Err(error),
        };
        self.answer("Resume", &req.id, resumed.map(|()| Empty::new()))
    }

    async fn update(&self, _: &TtrpcContext, req: wire::UpdateTaskRequest) -> TtrpcResult<Empty> {
        self.failpoint("Update").await?;
        let updated = match self.pod.container(&req.id) {
            Ok(container) => self.pod.update(&container, req.resources.as_ref()).await,
            Err(error) => Err(error),
        };
        self.answer("Update", &req.id, updated.map(|()| Empty::new()))
    }

    async fn stats(&self, _: &TtrpcContext, req: wire::StatsRequest) -> TtrpcResult<wire::StatsResponse> {
        self.failpoint("Stats").await?;
        let stats = match self.pod.container(&req.id) {
            Ok(container) => self.pod.stats(&container).await,
            Err(error) => Err(error),
        };
        let stats = stats.map(|stats| wire::StatsResponse {
            stats: Some(stats).into(),
            ..Default::default()
        });
        self.answer("Stats", &req.id, stats)
    }

    async fn checkpoint(&self, _: &TtrpcContext, req: wire::CheckpointTaskRequest) -> TtrpcResult<Empty> {
        self.failpoint("Checkpoint").await?;
        self.answer(
            "Checkpoint",
            &req.id,
            Err(TaskError::Unsupported { what: "Checkpoint" }),
        )
    }

    async fn connect(&self, _: &TtrpcContext, req: wire::ConnectRequest) -> TtrpcResult<wire::ConnectResponse> {
        self.failpoint("Connect").await?;
        let task_pid = self
            .pod
            .container(&req.id)
            .map(|container| container.process().pid())
            .unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(wire::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version,
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, req: wire::ShutdownRequest) -> TtrpcResult<Empty> {
        self.failpoint("Shutdown").await?;
        if !self.pod.shutdown().await {
            warn!(self.log, "not shutting down: containers are left"; "container" => &req.id);
        }
        Ok(Empty::new())
    }
}

/// The result of `work`, which goes on to its end even if nobody waits for it any more.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, TaskError>> + Send + 'static,
) -> Result<T, TaskError> {
    tokio::spawn(work).await.unwrap_or(Err(TaskError::Interrupted))
}

fn state_of(container: &Container, process: &Process) -> wire::StateResponse {
    let stdio = process.stdio();
    let mut state = wire::StateResponse {
        id: process.id().container.clone(),
        exec_id: process.id().exec.clone(),
        bundle: container.bundle().to_owned(),
        pid: process.pid(),
        stdin: stdio.stdin.clone(),
        stdout: stdio.stdout.clone(),
        stderr: stdio.stderr.clone(),
        terminal: stdio.terminal,
        ..Default::default()
    };
    let status = match process.phase() {
        Phase::Created | Phase::Starting => Status::CREATED,
        Phase::Running if container.is_paused() => Status::PAUSED,
        Phase::Running | Phase::Exiting => Status::RUNNING,
        Phase::Stopped(exit) => {
            state.exit_status = exit.status;
            state.exited_at = Some(timestamp(exit.at)).into();
            Status::STOPPED
        }
    };
    state.status = status.into();
    state
}

/// Times before the epoch do not occur: the agent's are checked, the rest is the host's clock.
pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        ..Default::default()
    }
}
