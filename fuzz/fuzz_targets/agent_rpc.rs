//! Requests of the agent's API, as ttrpc would hand them on: every message type, and what the agent makes of those that it parses itself.
#![no_main]
use std::path::Path;

use cella_agent::{
    container::{ContainerId, Limits, Machine},
    launch::HostSeccomp,
    network::NetworkPlan,
    pod::Sysctl,
    volume::{Content, MAX_FILES, VolumeName},
};
use cella_protos::agent::{
    ConfigureNetworkRequest, ContainerStatsRequest, CreateContainerRequest, DeleteContainerRequest, ExecProcessRequest, FreezeContainerRequest,
    ListProcessesRequest, NextEventRequest, PutVolumeRequest, ResizeTerminalRequest, SignalContainerRequest, StartContainerRequest, StatusResponse,
    UpdateContainerRequest, WaitContainerRequest,
};
use libfuzzer_sys::fuzz_target;
use protobuf::Message;

const MACHINE: Machine = Machine { memory_bytes: 2 << 30, processors: 2 };

fuzz_target!(|data: &[u8]| {
    let _ = StartContainerRequest::parse_from_bytes(data);
    let _ = WaitContainerRequest::parse_from_bytes(data);
    let _ = SignalContainerRequest::parse_from_bytes(data);
    let _ = DeleteContainerRequest::parse_from_bytes(data);
    let _ = ListProcessesRequest::parse_from_bytes(data);
    let _ = ContainerStatsRequest::parse_from_bytes(data);
    let _ = ExecProcessRequest::parse_from_bytes(data);
    let _ = FreezeContainerRequest::parse_from_bytes(data);
    let _ = NextEventRequest::parse_from_bytes(data);
    let _ = ResizeTerminalRequest::parse_from_bytes(data);
    let _ = StatusResponse::parse_from_bytes(data);
    let _ = HostSeccomp::parse(data);
    if let Ok(request) = ConfigureNetworkRequest::parse_from_bytes(data) {
        let _ = Sysctl::parse(&request.sysctl.clone().into_iter().collect());
        if let Ok(plan) = NetworkPlan::parse(&request) {
            for line in plan.resolv_conf().lines().chain(plan.hosts(&plan.hostname).lines()) {
                assert!(line.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{line:?}");
            }
        }
    }
    if let Ok(request) = UpdateContainerRequest::parse_from_bytes(data) {
        let _ = Limits::parse(&request.resources, MACHINE).map(|limits| limits.check(MACHINE));
    }
    if let Ok(request) = PutVolumeRequest::parse_from_bytes(data) {
        let is_plain = |name: &str| Path::new(name).components().count() == 1 && !name.starts_with('.');
        assert!(request.name.parse::<VolumeName>().is_err() || is_plain(&request.name), "{:?}", request.name);
        if let Ok((_, Content::Tree(files))) = Content::parse(request) {
            assert!(files.len() <= MAX_FILES);
            for path in files.keys() {
                assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{path:?}");
            }
        }
    }
    if let Ok(request) = CreateContainerRequest::parse_from_bytes(data) {
        let bytes = request.write_to_bytes().expect("a decoded request encodes");
        assert_eq!(CreateContainerRequest::parse_from_bytes(&bytes).expect("and decodes"), request);
        assert!(request.id.parse::<ContainerId>().is_err() || Path::new(&request.id).components().count() == 1);
        let _ = HostSeccomp::parse(&request.spec.seccomp);
        let _ = Limits::parse(&request.spec.resources, MACHINE);
    }
});
