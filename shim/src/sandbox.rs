//! containerd's Sandbox service (`sandboxer = "shim"`): the pod's VM without a task and a pause image.
//!
//! | call | what happens |
//! |---|---|
//! | CreateSandbox | the VM comes up, with the network, name service and initdata of the pod's configuration |
//! | StartSandbox | nothing more: the VM's first process is the agent |
//! | SandboxStatus, PingSandbox, Platform | answered from the shim's own memory |
//! | WaitSandbox | ends with the VM |
//! | StopSandbox | the VM goes down; every process in it counts as killed |
//! | SandboxMetrics | of the whole pod, as the agent tells them |
//! | ShutdownSandbox | the shim ends |
//!
//! The pod's containers come through the Task service of the same shim. [`config`] makes a bundle of what CRI says about the
//! pod, so that everything else is the same in both ways.

pub mod config;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::sandbox_api as wire;
use containerd_shim::protos::sandbox_async::Sandbox;
use containerd_shim::{TtrpcContext, TtrpcResult};
use slog::{Logger, debug, error};

use crate::metrics;
use crate::options::config_source;
use crate::task::{Phase, Pod, TaskError, timestamp};

/// How long a VM may take to go down where containerd names no time.
const STOP: Duration = Duration::from_secs(10);

/// Answers containerd's requests about the sandbox.
pub struct SandboxService {
    pod: Arc<Pod>,
    /// The runtime options that containerd gave to `start`; it gives the pod's configuration to CreateSandbox.
    options: Option<Any>,
    log: Logger,
}

impl SandboxService {
    /// A service for `pod`, which is configured by `options`.
    pub fn new(pod: Arc<Pod>, options: Option<Any>, log: Logger) -> Self {
        Self { pod, options, log }
    }

    async fn create(&self, req: wire::CreateSandboxRequest) -> Result<(), TaskError> {
        let source = config_source(self.options.as_ref())?;
        let pod = config::decode(req.options.as_ref())?;
        let dns = config::dns(&pod);
        let dir = PathBuf::from(&req.bundle_path);
        let bundle = config::bundle(dir, &req.sandbox_id, &req.netns_path, pod, req.annotations);
        self.pod
            .create_sandbox(&req.sandbox_id, source, &bundle, &dns)
            .await
            .map(drop)
    }

    async fn start(&self, id: &str) -> Result<wire::StartSandboxResponse, TaskError> {
        let process = self.pod.process(id, "")?;
        let pid = self.pod.clone().start(process).await?;
        let state = self.pod.sandbox_state(id)?;
        Ok(wire::StartSandboxResponse {
            pid,
            created_at: Some(timestamp(state.created_at)).into(),
            ..Default::default()
        })
    }

    fn status(&self, id: &str) -> Result<wire::SandboxStatusResponse, TaskError> {
        let state = self.pod.sandbox_state(id)?;
        let word = if state.exit.is_none() {
            "SANDBOX_READY"
        } else {
            "SANDBOX_NOTREADY"
        };
        Ok(wire::SandboxStatusResponse {
            sandbox_id: id.to_owned(),
            pid: state.pid,
            state: word.to_owned(),
            created_at: Some(timestamp(state.created_at)).into(),
            exited_at: state.exit.map(|exit| timestamp(exit.at)).into(),
            ..Default::default()
        })
    }

    fn ping(&self, id: &str) -> Result<(), TaskError> {
        let process = self.pod.process(id, "")?;
        match process.phase() {
            Phase::Exiting | Phase::Stopped(_) => Err(TaskError::NoVm { state: "has gone" }),
            Phase::Created | Phase::Starting | Phase::Running => Ok(()),
        }
    }

    async fn metrics(&self, id: &str) -> Result<wire::SandboxMetricsResponse, TaskError> {
        let data = self.pod.sandbox_stats(id).await?;
        let mut response = wire::SandboxMetricsResponse::default();
        let metric = response.metrics.mut_or_insert_default();
        metric.timestamp = Some(timestamp(SystemTime::now())).into();
        metric.id = id.to_owned();
        metric.data = Some(data).into();
        Ok(response)
    }

    fn answer<T>(&self, call: &'static str, id: &str, result: Result<T, TaskError>) -> TtrpcResult<T> {
        match &result {
            Ok(_) => debug!(self.log, "request done"; "call" => call, "sandbox" => id),
            Err(error) => {
                metrics::global().refused(call, error.code());
                error!(self.log, "request failed"; "call" => call, "sandbox" => id, "error" => error.message());
            }
        }
        result.map_err(TaskError::into_status)
    }
}

#[async_trait]
impl Sandbox for SandboxService {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        req: wire::CreateSandboxRequest,
    ) -> TtrpcResult<wire::CreateSandboxResponse> {
        let id = req.sandbox_id.clone();
        let created = self.create(req).await;
        self.answer("CreateSandbox", &id, created.map(|()| Default::default()))
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        req: wire::StartSandboxRequest,
    ) -> TtrpcResult<wire::StartSandboxResponse> {
        self.answer("StartSandbox", &req.sandbox_id, self.start(&req.sandbox_id).await)
    }

    async fn platform(&self, _: &TtrpcContext, req: wire::PlatformRequest) -> TtrpcResult<wire::PlatformResponse> {
        let mut response = wire::PlatformResponse::default();
        let platform = response.platform.mut_or_insert_default();
        platform.os = "linux".to_owned();
        platform.architecture = "amd64".to_owned();
        self.answer("Platform", &req.sandbox_id, Ok(response))
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        req: wire::StopSandboxRequest,
    ) -> TtrpcResult<wire::StopSandboxResponse> {
        let patience = match req.timeout_secs {
            0 => STOP,
            seconds => Duration::from_secs(seconds.into()),
        };
        let stopped = self.pod.stop_sandbox(&req.sandbox_id, patience).await;
        self.answer("StopSandbox", &req.sandbox_id, stopped.map(|()| Default::default()))
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        req: wire::WaitSandboxRequest,
    ) -> TtrpcResult<wire::WaitSandboxResponse> {
        let exit = self.pod.wait_sandbox(&req.sandbox_id).await;
        let exit = exit.map(|exit| wire::WaitSandboxResponse {
            exit_status: exit.status,
            exited_at: Some(timestamp(exit.at)).into(),
            ..Default::default()
        });
        self.answer("WaitSandbox", &req.sandbox_id, exit)
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        req: wire::SandboxStatusRequest,
    ) -> TtrpcResult<wire::SandboxStatusResponse> {
        self.answer("SandboxStatus", &req.sandbox_id, self.status(&req.sandbox_id))
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, req: wire::PingRequest) -> TtrpcResult<wire::PingResponse> {
        let alive = self.ping(&req.sandbox_id);
        self.answer("PingSandbox", &req.sandbox_id, alive.map(|()| Default::default()))
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        req: wire::ShutdownSandboxRequest,
    ) -> TtrpcResult<wire::ShutdownSandboxResponse> {
        self.pod.shutdown_sandbox().await;
        self.answer("ShutdownSandbox", &req.sandbox_id, Ok(Default::default()))
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        req: wire::SandboxMetricsRequest,
    ) -> TtrpcResult<wire::SandboxMetricsResponse> {
        self.answer("SandboxMetrics", &req.sandbox_id, self.metrics(&req.sandbox_id).await)
    }
}
