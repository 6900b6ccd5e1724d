//! What the host asks of the pod rather than of one process: its network, volumes, limits, statistics, events.

use std::{fs, sync::Arc};

use cella_policy::{
    Policy,
    check::{check_pod, check_volume},
};
use cella_protos::agent::{
    ConfigureNetworkRequest, ContainerStatsRequest, ContainerStatsResponse, CpuStats, FreezeContainerRequest, IoStats,
    MemoryStats, NetworkStats, NextEventRequest, NextEventResponse, PutVolumeRequest, UpdateContainerRequest,
};
use protobuf::MessageField;

use super::{ApiError, service::id};
use crate::{
    container::{Containers, CpuUse, IoUse, Limits, Machine, MemoryUse, NetworkUse, Stats},
    network::{self, NetworkError, NetworkPlan},
    pod::{self, Event, Pod, PodError, Sysctl},
    volume::{Content, VolumeName},
};

/// Sets the guest's network, then the pod's host name and kernel parameters, in which the network's may be.
pub(super) async fn set_network(
    policy: &Policy,
    pod: &Pod,
    request: &ConfigureNetworkRequest,
) -> Result<Arc<NetworkPlan>, ApiError> {
    let given = request.sysctl.clone().into_iter().collect();
    let sysctls = Sysctl::parse(&given).map_err(|error| ApiError::Pod(PodError::Sysctl(error)))?;
    check_pod(policy, &given).map_err(ApiError::Denied)?;
    let plan = Arc::new(NetworkPlan::parse(request).map_err(ApiError::NetworkPlan)?);
    let (to_set, pod) = (Arc::clone(&plan), pod.clone());
    let set = move || {
        set(&to_set).map_err(ApiError::Network)?;
        pod::set_defaults().map_err(|error| ApiError::Pod(PodError::Sysctl(error)))?;
        pod.found(&to_set.hostname, &sysctls).map_err(ApiError::Pod)
    };
    tokio::task::spawn_blocking(set)
        .await
        .map_err(|_| ApiError::Interrupted)??;
    Ok(plan)
}

/// Interfaces and routes, and the files by which the agent itself finds registries and key broker.
fn set(plan: &NetworkPlan) -> Result<(), NetworkError> {
    network::bring_up_loopback()?;
    network::apply(plan)?;
    for (path, content) in [
        ("/etc/resolv.conf", plan.resolv_conf()),
        ("/etc/hosts", plan.hosts(&plan.hostname)),
    ] {
        fs::write(path, content).map_err(|source| NetworkError::File { path, source })?;
    }
    Ok(())
}

pub(super) async fn put_volume(policy: &Policy, pod: &Pod, request: PutVolumeRequest) -> Result<(), ApiError> {
    let name: VolumeName = request.name.parse().map_err(ApiError::Volume)?;
    let (kind, content) = Content::parse(request).map_err(ApiError::Volume)?;
    check_volume(policy, kind).map_err(ApiError::Denied)?;
    let volumes = pod.volumes().clone();
    tokio::task::spawn_blocking(move || volumes.put(&name, kind, content))
        .await
        .map_err(|_| ApiError::Interrupted)?
        .map_err(ApiError::Volume)
}

pub(super) async fn freeze(containers: &Containers, request: &FreezeContainerRequest) -> Result<(), ApiError> {
    let frozen = containers.freeze(&id(&request.id)?, request.frozen).await;
    frozen.map_err(ApiError::Container)
}

pub(super) fn update(containers: &Containers, request: &UpdateContainerRequest) -> Result<(), ApiError> {
    let id = id(&request.id)?;
    let machine = Machine::here();
    let limits = Limits::parse(&request.resources, machine).map_err(ApiError::Limits)?;
    containers.update(&id, &limits, machine).map_err(ApiError::Container)
}

pub(super) fn stats(
    containers: &Containers,
    request: &ContainerStatsRequest,
) -> Result<ContainerStatsResponse, ApiError> {
    let stats = match request.id.as_str() {
        "" => containers.pod_stats(),
        text => containers.stats(&id(text)?),
    };
    stats.map(stats_message).map_err(ApiError::Container)
}

pub(super) async fn next_event(pod: &Pod, request: &NextEventRequest) -> NextEventResponse {
    event_message(pod.events().next(request.after).await, request.after)
}

fn stats_message(stats: Stats) -> ContainerStatsResponse {
    ContainerStatsResponse {
        cpu: MessageField::some(cpu(stats.cpu)),
        memory: MessageField::some(memory(stats.memory)),
        pids: stats.pids,
        pids_limit: stats.pids_limit,
        io: stats.io.into_iter().map(io).collect(),
        networks: NetworkUse::of_the_pod().into_iter().map(network).collect(),
        ..Default::default()
    }
}

fn cpu(cpu: CpuUse) -> CpuStats {
    CpuStats {
        usage_us: cpu.usage_us,
        user_us: cpu.user_us,
        system_us: cpu.system_us,
        periods: cpu.periods,
        throttled_periods: cpu.throttled_periods,
        throttled_us: cpu.throttled_us,
        ..Default::default()
    }
}

fn memory(memory: MemoryUse) -> MemoryStats {
    MemoryStats {
        usage_bytes: memory.usage_bytes,
        limit_bytes: memory.limit_bytes,
        peak_bytes: memory.peak_bytes,
        stat: memory.stat.into_iter().collect(),
        events: memory.events.into_iter().collect(),
        ..Default::default()
    }
}

fn io(io: IoUse) -> IoStats {
    IoStats {
        major: io.major,
        minor: io.minor,
        read_bytes: io.read_bytes,
        written_bytes: io.written_bytes,
        reads: io.reads,
        writes: io.writes,
        ..Default::default()
    }
}

fn network(network: NetworkUse) -> NetworkStats {
    NetworkStats {
        name: network.name,
        received_bytes: network.received_bytes,
        received_packets: network.received_packets,
        receive_errors: network.receive_errors,
        receive_dropped: network.receive_dropped,
        sent_bytes: network.sent_bytes,
        sent_packets: network.sent_packets,
        send_errors: network.send_errors,
        send_dropped: network.send_dropped,
        ..Default::default()
    }
}

fn event_message(event: Event, after: u64) -> NextEventResponse {
    let since = event.at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    NextEventResponse {
        number: event.number,
        kind: event.kind.as_str().to_owned(),
        container: event.container,
        exec_id: event.exec_id,
        text: event.text,
        at_unix_ns: i64::try_from(since.as_nanos()).unwrap_or(0),
        lost: event.number.saturating_sub(after).saturating_sub(1),
        ..Default::default()
    }
}
