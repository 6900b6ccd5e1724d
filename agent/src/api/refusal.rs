//! The API of a guest that will not serve: every answer is the reason.

use std::sync::Arc;

use async_trait::async_trait;
use cella_protos::{
    agent::{
        ConfigureNetworkRequest, ContainerStatsRequest, ContainerStatsResponse, CreateContainerRequest,
        CreateContainerResponse, DeleteContainerRequest, Empty, ExecProcessRequest, FreezeContainerRequest,
        HelloRequest, HelloResponse, ListProcessesRequest, ListProcessesResponse, NextEventRequest, NextEventResponse,
        PutVolumeRequest, ResizeTerminalRequest, ShutdownRequest, SignalContainerRequest, StartContainerRequest,
        StartContainerResponse, StatusRequest, StatusResponse, UpdateContainerRequest, WaitContainerRequest,
        WaitContainerResponse,
    },
    agent_ttrpc::Agent,
};
use tokio::sync::Notify;
use ttrpc::{Code, asynchronous::TtrpcContext};

use super::one_line;
use crate::boot::BootError;

/// Answers every request with the reason. A fatal one ends the guest once it was told.
pub struct RefusingAgent {
    code: Code,
    reason: String,
    is_fatal: bool,
    end: Arc<Notify>,
}

impl RefusingAgent {
    /// Refuses because of `error`; `end` is told when the guest shall end.
    pub fn new(error: &BootError, end: Arc<Notify>) -> Self {
        let is_fatal = error.is_fatal();
        let code = if is_fatal {
            Code::FAILED_PRECONDITION
        } else {
            Code::RESOURCE_EXHAUSTED
        };
        Self {
            code,
            reason: one_line(error),
            is_fatal,
            end,
        }
    }

    fn refuse<T>(&self) -> ttrpc::Result<T> {
        if self.is_fatal {
            self.end.notify_one();
        }
        Err(ttrpc::Error::RpcStatus(ttrpc::get_status(self.code, &self.reason)))
    }
}

#[async_trait]
impl Agent for RefusingAgent {
    async fn hello(&self, _: &TtrpcContext, _: HelloRequest) -> ttrpc::Result<HelloResponse> {
        self.refuse()
    }

    async fn configure_network(&self, _: &TtrpcContext, _: ConfigureNetworkRequest) -> ttrpc::Result<Empty> {
        self.refuse()
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        _: CreateContainerRequest,
    ) -> ttrpc::Result<CreateContainerResponse> {
        self.refuse()
    }

    async fn exec_process(&self, _: &TtrpcContext, _: ExecProcessRequest) -> ttrpc::Result<CreateContainerResponse> {
        self.refuse()
    }

    async fn resize_terminal(&self, _: &TtrpcContext, _: ResizeTerminalRequest) -> ttrpc::Result<Empty> {
        self.refuse()
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        _: StartContainerRequest,
    ) -> ttrpc::Result<StartContainerResponse> {
        self.refuse()
    }

    async fn wait_container(&self, _: &TtrpcContext, _: WaitContainerRequest) -> ttrpc::Result<WaitContainerResponse> {
        self.refuse()
    }

    async fn signal_container(&self, _: &TtrpcContext, _: SignalContainerRequest) -> ttrpc::Result<Empty> {
        self.refuse()
    }

    async fn freeze_container(&self, _: &TtrpcContext, _: FreezeContainerRequest) -> ttrpc::Result<Empty> {
        self.refuse()
    }

    async fn update_container(&self, _: &TtrpcContext, _: UpdateContainerRequest) -> ttrpc::Result<Empty> {
        self.refuse()
    }

    async fn container_stats(
        &self,
        _: &TtrpcContext,
        _: ContainerStatsRequest,
    ) -> ttrpc::Result<ContainerStatsResponse> {
        self.refuse()
    }

    async fn put_volume(&self, _: &TtrpcContext, _: PutVolumeRequest) -> ttrpc::Result<Empty> {
        self.refuse()
    }

    async fn next_event(&self, _: &TtrpcContext, _: NextEventRequest) -> ttrpc::Result<NextEventResponse> {
        self.refuse()
    }

    async fn delete_container(
        &self,
        _: &TtrpcContext,
        _: DeleteContainerRequest,
    ) -> ttrpc::Result<WaitContainerResponse> {
        self.refuse()
    }

    async fn list_processes(&self, _: &TtrpcContext, _: ListProcessesRequest) -> ttrpc::Result<ListProcessesResponse> {
        self.refuse()
    }

    async fn status(&self, _: &TtrpcContext, _: StatusRequest) -> ttrpc::Result<StatusResponse> {
        self.refuse()
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.end.notify_one();
        Ok(Empty::new())
    }
}
