//! The API of a guest that serves a pod.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use cella_policy::check::check_container;
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
use slog::{Logger, info, warn};
use tokio::sync::Notify;
use ttrpc::asynchronous::TtrpcContext;

use super::{ApiError, convert, one_line, pod, stats::StatsDesk, status};
use crate::{
    boot::BootInfo,
    container::{ContainerId, Containers, Creation, Ended, ExecCreation, Limits, Machine, ProcessId, StreamNumbers},
    network::NetworkPlan,
    pod::EventKind,
    stage::StageLog,
    workload::Workload,
};

/// What the agent does for the host.
pub struct AgentService {
    boot: Arc<BootInfo>,
    containers: Containers,
    stages: StageLog,
    pod: tokio::sync::Mutex<()>,
    network: OnceLock<(Arc<NetworkPlan>, Workload)>,
    stats: StatsDesk,
    end: Arc<Notify>,
    log: Logger,
}

impl AgentService {
    /// Obeys `boot`; `end` is told when the host asks for the guest's end.
    pub fn new(boot: Arc<BootInfo>, containers: Containers, stages: StageLog, end: Arc<Notify>, log: Logger) -> Self {
        Self {
            boot,
            containers,
            stages,
            pod: tokio::sync::Mutex::default(),
            network: OnceLock::new(),
            stats: StatsDesk::default(),
            end,
            log,
        }
    }

    async fn set_network(&self, request: &ConfigureNetworkRequest) -> Result<(), ApiError> {
        let _once = self.pod.lock().await;
        if self.network.get().is_some() {
            return Err(ApiError::NetworkTwice);
        }
        let certificates = convert::certificates(request)?;
        let plan = pod::set_network(&self.boot.policy, self.containers.pod(), request).await?;
        if !certificates.is_empty() {
            info!(self.log, "the host's certificates for evidence"; "count" => certificates.len());
            self.boot.evidence.offer_certificates(certificates);
        }
        info!(self.log, "network configured"; "interfaces" => plan.interfaces.len());
        // Before the first container can start: it needs the workload, which is set below.
        pod::filter(&self.boot.policy, &self.containers, &plan, &self.end, &self.log).await?;
        let workload = Workload::start(Arc::clone(&self.boot), self.stages.clone(), self.log.clone());
        self.network.set((plan, workload)).map_err(|_| ApiError::NetworkTwice)
    }

    fn create(&self, request: &CreateContainerRequest) -> Result<CreateContainerResponse, ApiError> {
        let id = id(&request.id)?;
        let asked = convert::container_request(request, |name| self.containers.pod().volumes().kind(name));
        let admission = check_container(&self.boot.policy, &asked).map_err(ApiError::Denied)?;
        if !admission.image_offered {
            warn!(self.log, "the host offered other images: the policy's runs"; "container" => &admission.policy.name,
                "image" => %admission.policy.image);
        }
        let numbers = self
            .containers
            .create(Creation {
                id,
                host_seccomp: convert::host_seccomp(&admission, &request.spec.seccomp)?,
                admission,
                pipes: convert::pipes(request),
                limits: Limits::parse(&request.spec.resources, Machine::here()).map_err(ApiError::Limits)?,
            })
            .map_err(ApiError::Container)?;
        Ok(pipes_message(numbers))
    }

    fn exec(&self, request: &ExecProcessRequest) -> Result<CreateContainerResponse, ApiError> {
        let id = id(&request.id)?;
        let exec = request.exec_id.parse().map_err(ApiError::Id)?;
        let policy = self.containers.policy(&id).map_err(ApiError::Container)?;
        let process = convert::exec_process(&policy, request)?;
        let creation = ExecCreation {
            exec,
            process,
            pipes: convert::exec_pipes(request),
        };
        let numbers = self.containers.exec(&id, creation).map_err(ApiError::Container)?;
        Ok(pipes_message(numbers))
    }

    async fn start(&self, request: &StartContainerRequest) -> Result<StartContainerResponse, ApiError> {
        let id = process_id(&request.id, &request.exec_id)?;
        let started = match &id.exec {
            Some(exec) => self.containers.start_exec(&id.container, exec).await,
            None => {
                let (network, workload) = self.network.get().ok_or(ApiError::NoNetwork)?;
                let supply = Arc::new(workload.clone());
                self.containers.start(&id.container, supply, Arc::clone(network)).await
            }
        };
        let pid = started.map_err(ApiError::Container)?;
        Ok(StartContainerResponse {
            pid,
            ..Default::default()
        })
    }

    /// The container's termination message, for the end of its first process.
    fn last_words(&self, id: &ProcessId) -> Vec<u8> {
        match &id.exec {
            None => self.containers.last_words(&id.container),
            Some(_) => Vec::new(),
        }
    }

    async fn end(&self) {
        self.containers.kill_all(KILL_LIMIT).await;
        if let Some((_, workload)) = self.network.get() {
            workload.wipe().await;
        }
        self.end.notify_one();
    }

    /// Errors of requests are worth a line: on the host they may get lost.
    fn answer<T>(&self, what: &'static str, result: Result<T, ApiError>) -> ttrpc::Result<T> {
        self.answer_for(what, "", "", result)
    }

    /// The same for a request about one container or process: what the policy denies becomes an event, too.
    fn answer_for<T>(
        &self,
        what: &'static str,
        container: &str,
        exec_id: &str,
        result: Result<T, ApiError>,
    ) -> ttrpc::Result<T> {
        result.map_err(|error| {
            let text = one_line(&error);
            if error.is_denial() {
                // The audit trail on the console; the names in it are checked or cut by the log.
                warn!(self.log, "request denied"; "request" => what, "container" => container, "exec" => exec_id, "reason" => &text);
                let events = self.containers.pod().events();
                events.add(EventKind::Denied, &cut(container), &cut(exec_id), &text);
            } else {
                warn!(self.log, "request failed"; "request" => what, "error" => text);
            }
            error.into()
        })
    }
}

#[async_trait]
impl Agent for AgentService {
    async fn hello(&self, _: &TtrpcContext, _: HelloRequest) -> ttrpc::Result<HelloResponse> {
        Ok(HelloResponse {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            initdata_digest: self.boot.digests.sha256.to_vec(),
            ..Default::default()
        })
    }

    async fn configure_network(&self, _: &TtrpcContext, request: ConfigureNetworkRequest) -> ttrpc::Result<Empty> {
        self.answer("ConfigureNetwork", self.set_network(&request).await)?;
        Ok(Empty::new())
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<CreateContainerResponse> {
        self.answer_for("CreateContainer", &request.id, "", self.create(&request))
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: StartContainerRequest,
    ) -> ttrpc::Result<StartContainerResponse> {
        let started = self.start(&request).await;
        self.answer_for("StartContainer", &request.id, &request.exec_id, started)
    }

    async fn exec_process(
        &self,
        _: &TtrpcContext,
        request: ExecProcessRequest,
    ) -> ttrpc::Result<CreateContainerResponse> {
        self.answer_for("ExecProcess", &request.id, &request.exec_id, self.exec(&request))
    }

    async fn resize_terminal(&self, _: &TtrpcContext, request: ResizeTerminalRequest) -> ttrpc::Result<Empty> {
        let resized = process_id(&request.id, &request.exec_id).and_then(|id| {
            let size = convert::terminal_size(&request)?;
            self.containers.resize(&id, size).map_err(ApiError::Container)
        });
        self.answer("ResizeTerminal", resized.map(|()| Empty::new()))
    }

    async fn wait_container(
        &self,
        _: &TtrpcContext,
        request: WaitContainerRequest,
    ) -> ttrpc::Result<WaitContainerResponse> {
        let ended = match process_id(&request.id, &request.exec_id) {
            Ok(id) => {
                let ended = self.containers.wait(&id).await.map_err(ApiError::Container);
                ended.map(|ended| (ended, self.last_words(&id)))
            }
            Err(error) => Err(error),
        };
        self.answer("WaitContainer", ended.map(exit_message))
    }

    async fn signal_container(&self, _: &TtrpcContext, request: SignalContainerRequest) -> ttrpc::Result<Empty> {
        let sent = process_id(&request.id, &request.exec_id).and_then(|id| {
            self.containers
                .signal(&id, request.signal, request.all)
                .map_err(ApiError::Container)
        });
        self.answer_for(
            "SignalContainer",
            &request.id,
            &request.exec_id,
            sent.map(|()| Empty::new()),
        )
    }

    async fn freeze_container(&self, _: &TtrpcContext, request: FreezeContainerRequest) -> ttrpc::Result<Empty> {
        let frozen = pod::freeze(&self.boot.policy, &self.containers, &request).await;
        self.answer_for("FreezeContainer", &request.id, "", frozen.map(|()| Empty::new()))
    }

    async fn update_container(&self, _: &TtrpcContext, request: UpdateContainerRequest) -> ttrpc::Result<Empty> {
        let updated = pod::update(&self.boot.policy, &self.containers, &request);
        self.answer_for("UpdateContainer", &request.id, "", updated.map(|()| Empty::new()))
    }

    async fn container_stats(
        &self,
        _: &TtrpcContext,
        request: ContainerStatsRequest,
    ) -> ttrpc::Result<ContainerStatsResponse> {
        let stats = self.stats.answer(&self.boot.policy, &self.containers, &request);
        self.answer_for("ContainerStats", &request.id, "", stats)
    }

    async fn put_volume(&self, _: &TtrpcContext, request: PutVolumeRequest) -> ttrpc::Result<Empty> {
        let put = pod::put_volume(&self.boot.policy, self.containers.pod(), request).await;
        self.answer("PutVolume", put.map(|()| Empty::new()))
    }

    async fn next_event(&self, _: &TtrpcContext, request: NextEventRequest) -> ttrpc::Result<NextEventResponse> {
        Ok(pod::next_event(self.containers.pod(), &request).await)
    }

    async fn delete_container(
        &self,
        _: &TtrpcContext,
        request: DeleteContainerRequest,
    ) -> ttrpc::Result<WaitContainerResponse> {
        let deleted = match process_id(&request.id, &request.exec_id) {
            Ok(id) => {
                let words = self.last_words(&id);
                let ended = self.containers.delete(&id).await.map_err(ApiError::Container);
                ended.map(|ended| (ended, words))
            }
            Err(error) => Err(error),
        };
        self.answer("DeleteContainer", deleted.map(exit_message))
    }

    async fn list_processes(
        &self,
        _: &TtrpcContext,
        request: ListProcessesRequest,
    ) -> ttrpc::Result<ListProcessesResponse> {
        let pids = pod::processes(&self.boot.policy, &self.containers, &request.id);
        self.answer_for(
            "ListProcesses",
            &request.id,
            "",
            pids.map(|pids| ListProcessesResponse {
                pids,
                ..Default::default()
            }),
        )
    }

    async fn status(&self, _: &TtrpcContext, request: StatusRequest) -> ttrpc::Result<StatusResponse> {
        let (boot, stages, containers) = (Arc::clone(&self.boot), self.stages.clone(), self.containers.clone());
        let workload = self.network.get().map(|(_, workload)| workload.clone());
        let response = move || status::response(&boot, &stages, &containers, workload.as_ref(), request.record);
        self.answer(
            "Status",
            tokio::task::spawn_blocking(response)
                .await
                .map_err(|_| ApiError::Interrupted),
        )
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.end().await;
        Ok(Empty::new())
    }
}

/// A container's id out of a request.
pub(super) fn id(text: &str) -> Result<ContainerId, ApiError> {
    text.parse().map_err(ApiError::Id)
}

/// A name that was refused may be of any length.
fn cut(name: &str) -> String {
    name.chars().take(MAX_SHOWN_ID).collect()
}

/// Exec id "" is the container's first process.
fn process_id(container: &str, exec: &str) -> Result<ProcessId, ApiError> {
    Ok(ProcessId {
        container: id(container)?,
        exec: match exec {
            "" => None,
            exec => Some(exec.parse().map_err(ApiError::Id)?),
        },
    })
}

fn pipes_message(numbers: StreamNumbers) -> CreateContainerResponse {
    CreateContainerResponse {
        stdin_stream: numbers.stdin,
        stdout_stream: numbers.stdout,
        stderr_stream: numbers.stderr,
        ..Default::default()
    }
}

fn exit_message((ended, termination_message): (Ended, Vec<u8>)) -> WaitContainerResponse {
    let since = ended.exit.at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    WaitContainerResponse {
        exit_status: ended.exit.status,
        exited_at_unix_ns: i64::try_from(since.as_nanos()).unwrap_or(0),
        out_of_memory: ended.out_of_memory,
        termination_message,
        ..Default::default()
    }
}

/// Characters of an id in an event.
const MAX_SHOWN_ID: usize = 76;

/// From Shutdown to the end of the last container.
const KILL_LIMIT: Duration = Duration::from_secs(5);
