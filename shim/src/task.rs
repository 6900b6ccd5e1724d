//! containerd's Task service (API v3) for one pod.
//!
//! | call | what happens |
//! |---|---|
//! | Create | of a sandbox or of a lone container: the VM comes up; of a container: the agent checks it and makes its pipes |
//! | Start | the agent waits for keys, image and models, then starts the process; as long as that takes |
//! | State, Wait, Pids, Connect | answered from the shim's own memory, never waiting for the guest |
//! | Kill | a signal through the agent; of a sandbox: the VM goes down |
//! | CloseIO | end of stdin |
//! | Delete | of the last container: the VM goes down |
//! | Shutdown | the shim ends if it has no container left |
//! | Exec, Pause, Resume, Checkpoint, ResizePty, Update, Stats | UNIMPLEMENTED: the agent's API has none of them |
//!
//! The pid that containerd sees is QEMU's, of every container: a guest's pids mean nothing on the host. [`Pod`] has the
//! logic, [`Container`] the states of one container, [`Publisher`] the events; this file only translates requests, and
//! [`TaskError`] is where errors become status codes.

mod container;
mod error;
mod events;
mod network;
mod pod;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use containerd_shim::protos::api::{ProcessInfo, Status};
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim::protos::shim::shim as wire;
use containerd_shim::protos::types::empty::Empty;
use containerd_shim::{Task, TtrpcContext, TtrpcResult};
use slog::{Logger, debug, warn};

use crate::metrics;

pub use container::{Container, Kind, Phase};
pub use error::TaskError;
pub use events::Publisher;
pub use pod::{Pod, PodParts};

/// Answers containerd's requests.
pub struct TaskService {
    pod: Arc<Pod>,
    log: Logger,
}

impl TaskService {
    /// A service for `pod`.
    pub fn new(pod: Arc<Pod>, log: Logger) -> Self {
        Self { pod, log }
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

    fn container(&self, id: &str, exec_id: &str) -> Result<Arc<Container>, TaskError> {
        if !exec_id.is_empty() {
            return Err(TaskError::UnknownExec {
                exec_id: exec_id.to_owned(),
            });
        }
        self.pod.container(id)
    }

    fn unimplemented<T>(&self, call: &'static str, id: &str) -> TtrpcResult<T> {
        self.answer(call, id, Err(TaskError::Unsupported { what: call }))
    }
}

#[async_trait]
impl Task for TaskService {
    async fn create(&self, _: &TtrpcContext, req: wire::CreateTaskRequest) -> TtrpcResult<wire::CreateTaskResponse> {
        let id = req.id.clone();
        let created = self.pod.create(req).await;
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
        let started = match self.container(&req.id, &req.exec_id) {
            Ok(container) => {
                // A caller that gives up must not leave the container between two states: the start goes on without it.
                let start = tokio::spawn(self.pod.clone().start(container));
                start.await.unwrap_or(Err(TaskError::Interrupted))
            }
            Err(error) => Err(error),
        };
        self.answer(
            "Start",
            &req.id,
            started.map(|pid| wire::StartResponse {
                pid,
                ..Default::default()
            }),
        )
    }

    async fn state(&self, _: &TtrpcContext, req: wire::StateRequest) -> TtrpcResult<wire::StateResponse> {
        let state = self
            .container(&req.id, &req.exec_id)
            .map(|container| state_of(&container));
        self.answer("State", &req.id, state)
    }

    async fn wait(&self, _: &TtrpcContext, req: wire::WaitRequest) -> TtrpcResult<wire::WaitResponse> {
        let result = match self.container(&req.id, &req.exec_id) {
            Ok(container) => {
                let exit = container.exited().await;
                let exited_at = Some(timestamp(exit.at)).into();
                Ok(wire::WaitResponse {
                    exit_status: exit.status,
                    exited_at,
                    ..Default::default()
                })
            }
            Err(error) => Err(error),
        };
        self.answer("Wait", &req.id, result)
    }

    async fn kill(&self, _: &TtrpcContext, req: wire::KillRequest) -> TtrpcResult<Empty> {
        let result = match self.container(&req.id, &req.exec_id) {
            Ok(container) => self.pod.clone().kill(container, req.signal, req.all).await,
            Err(error) => Err(error),
        };
        self.answer("Kill", &req.id, result.map(|()| Empty::new()))
    }

    async fn delete(&self, _: &TtrpcContext, req: wire::DeleteRequest) -> TtrpcResult<wire::DeleteResponse> {
        let result = match self.container(&req.id, &req.exec_id) {
            Ok(container) => {
                let delete = tokio::spawn(self.pod.clone().delete(container.clone()));
                let exit = delete.await.unwrap_or(Err(TaskError::Interrupted));
                exit.map(|exit| wire::DeleteResponse {
                    pid: container.pid(),
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
        let result = self.container(&req.id, "").map(|container| wire::PidsResponse {
            processes: vec![ProcessInfo {
                pid: container.pid(),
                ..Default::default()
            }],
            ..Default::default()
        });
        self.answer("Pids", &req.id, result)
    }

    async fn close_io(&self, _: &TtrpcContext, req: wire::CloseIORequest) -> TtrpcResult<Empty> {
        let result = self.container(&req.id, &req.exec_id).map(|container| {
            if req.stdin {
                container.io().close_input();
            }
            Empty::new()
        });
        self.answer("CloseIO", &req.id, result)
    }

    async fn connect(&self, _: &TtrpcContext, req: wire::ConnectRequest) -> TtrpcResult<wire::ConnectResponse> {
        let task_pid = self
            .pod
            .container(&req.id)
            .map(|container| container.pid())
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
        if !self.pod.shutdown().await {
            warn!(self.log, "not shutting down: containers are left"; "container" => &req.id);
        }
        Ok(Empty::new())
    }

    async fn exec(&self, _: &TtrpcContext, req: wire::ExecProcessRequest) -> TtrpcResult<Empty> {
        self.unimplemented("Exec", &req.id)
    }

    async fn pause(&self, _: &TtrpcContext, req: wire::PauseRequest) -> TtrpcResult<Empty> {
        self.unimplemented("Pause", &req.id)
    }

    async fn resume(&self, _: &TtrpcContext, req: wire::ResumeRequest) -> TtrpcResult<Empty> {
        self.unimplemented("Resume", &req.id)
    }

    async fn checkpoint(&self, _: &TtrpcContext, req: wire::CheckpointTaskRequest) -> TtrpcResult<Empty> {
        self.unimplemented("Checkpoint", &req.id)
    }

    async fn resize_pty(&self, _: &TtrpcContext, req: wire::ResizePtyRequest) -> TtrpcResult<Empty> {
        self.unimplemented("ResizePty", &req.id)
    }

    async fn update(&self, _: &TtrpcContext, req: wire::UpdateTaskRequest) -> TtrpcResult<Empty> {
        self.unimplemented("Update", &req.id)
    }

    async fn stats(&self, _: &TtrpcContext, req: wire::StatsRequest) -> TtrpcResult<wire::StatsResponse> {
        self.unimplemented("Stats", &req.id)
    }
}

fn state_of(container: &Container) -> wire::StateResponse {
    let stdio = container.stdio();
    let mut state = wire::StateResponse {
        id: container.id().to_owned(),
        bundle: container.bundle().to_owned(),
        pid: container.pid(),
        stdin: stdio.stdin.clone(),
        stdout: stdio.stdout.clone(),
        stderr: stdio.stderr.clone(),
        terminal: stdio.terminal,
        ..Default::default()
    };
    let status = match container.phase() {
        Phase::Created | Phase::Starting => Status::CREATED,
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
