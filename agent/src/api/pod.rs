//! What the host asks of the pod rather than of one process: its network, volumes, limits, events.

use std::{fs, net::IpAddr, sync::Arc};

use cella_policy::{
    Call, Policy,
    check::{check_call, check_pod, check_volume},
};
use cella_protos::agent::{
    ConfigureNetworkRequest, FreezeContainerRequest, NextEventRequest, NextEventResponse, Output, PutVolumeRequest,
    UpdateContainerRequest,
};
use protobuf::MessageField;
use slog::{Logger, error};
use tokio::sync::Notify;

use super::{ApiError, service::id};
use crate::{
    container::{Containers, Limits, Machine},
    filter::{self, Filter},
    network::{self, NetworkError, NetworkPlan},
    pod::{self, Event, EventKind, Pod, PodError, Sysctl},
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

/// Puts the policy's filter on the containers' network, and lets it follow the pod's ingress. A way in that cannot be shut any more
/// ends the guest.
pub(super) async fn filter(
    policy: &Policy,
    containers: &Containers,
    plan: &NetworkPlan,
    end: &Arc<Notify>,
    log: &Logger,
) -> Result<(), ApiError> {
    let Some(root) = containers.cgroups().filter(|_| Filter::is_wanted(policy)) else {
        return Ok(());
    };
    let (path, network) = (root.path().to_owned(), policy.network().clone());
    let addresses = plan.interfaces.iter().flat_map(|interface| &interface.addresses);
    let own: Vec<IpAddr> = addresses.map(|one| one.address).collect();
    let attached = tokio::task::spawn_blocking(move || Filter::attach(&path, &network, &own))
        .await
        .map_err(|_| ApiError::Interrupted)?;
    let (ingress, events) = (containers.ingress().clone(), containers.pod().events().clone());
    let (end, log) = (Arc::clone(end), log.clone());
    tokio::spawn(filter::follow(
        attached.map_err(ApiError::Filter)?,
        ingress,
        events,
        move |error| {
            error!(log, "the network filter does not follow the ingress; ending"; "error" => super::one_line(&error));
            end.notify_one();
        },
    ));
    Ok(())
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

pub(super) async fn freeze(
    policy: &Policy,
    containers: &Containers,
    request: &FreezeContainerRequest,
) -> Result<(), ApiError> {
    check_call(policy.pod(), Call::Pause).map_err(ApiError::Denied)?;
    let frozen = containers.freeze(&id(&request.id)?, request.frozen).await;
    frozen.map_err(ApiError::Container)
}

pub(super) fn update(
    policy: &Policy,
    containers: &Containers,
    request: &UpdateContainerRequest,
) -> Result<(), ApiError> {
    check_call(policy.pod(), Call::Update).map_err(ApiError::Denied)?;
    let id = id(&request.id)?;
    let machine = Machine::here();
    let limits = Limits::parse(&request.resources, machine).map_err(ApiError::Limits)?;
    containers.update(&id, &limits, machine).map_err(ApiError::Container)
}

/// The numbers of a container's processes.
pub(super) fn processes(policy: &Policy, containers: &Containers, text: &str) -> Result<Vec<u32>, ApiError> {
    check_call(policy.pod(), Call::Processes).map_err(ApiError::Denied)?;
    id(text).and_then(|id| containers.processes(&id).map_err(ApiError::Container))
}

pub(super) async fn next_event(pod: &Pod, request: &NextEventRequest) -> NextEventResponse {
    event_message(pod.events().next(request.after).await, request.after)
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
        output: match event.kind {
            EventKind::Output(amount) => MessageField::some(Output {
                stream: amount.stream.to_owned(),
                lines: amount.lines,
                bytes: amount.bytes,
                ended: amount.ended,
                ..Default::default()
            }),
            _ => MessageField::none(),
        },
        ..Default::default()
    }
}
