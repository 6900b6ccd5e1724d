//! Requests of the agent's API, as ttrpc would hand them on: every message type.
#![no_main]
use cella_protos::agent::{
    ConfigureNetworkRequest, ContainerStatsRequest, CreateContainerRequest, DeleteContainerRequest, ExecProcessRequest, FreezeContainerRequest,
    ListProcessesRequest, NextEventRequest, PutVolumeRequest, ResizeTerminalRequest, SignalContainerRequest, StartContainerRequest, StatusResponse,
    UpdateContainerRequest, WaitContainerRequest,
};
use libfuzzer_sys::fuzz_target;
use protobuf::Message;

fuzz_target!(|data: &[u8]| {
    let _ = ConfigureNetworkRequest::parse_from_bytes(data);
    let _ = StartContainerRequest::parse_from_bytes(data);
    let _ = WaitContainerRequest::parse_from_bytes(data);
    let _ = SignalContainerRequest::parse_from_bytes(data);
    let _ = DeleteContainerRequest::parse_from_bytes(data);
    let _ = ListProcessesRequest::parse_from_bytes(data);
    let _ = ContainerStatsRequest::parse_from_bytes(data);
    let _ = ExecProcessRequest::parse_from_bytes(data);
    let _ = FreezeContainerRequest::parse_from_bytes(data);
    let _ = NextEventRequest::parse_from_bytes(data);
    let _ = PutVolumeRequest::parse_from_bytes(data);
    let _ = ResizeTerminalRequest::parse_from_bytes(data);
    let _ = UpdateContainerRequest::parse_from_bytes(data);
    let _ = StatusResponse::parse_from_bytes(data);
    if let Ok(request) = CreateContainerRequest::parse_from_bytes(data) {
        let bytes = request.write_to_bytes().expect("a decoded request encodes");
        assert_eq!(CreateContainerRequest::parse_from_bytes(&bytes).expect("and decodes"), request);
    }
});
