//! What a guest, or a QEMU that it has taken over, can say to the shim: the monitor's lines, the vsock backend's answer, the agent's frames and answers, the console.
#![no_main]
use cella_protos::agent::{ContainerStatsResponse, CreateContainerResponse, NextEventResponse, StatusResponse, WaitContainerResponse};
use cella_shim::{agent::Bounds, metrics::GuestFacts, qmp::codec, untrusted, vsock::Handshake};
use libfuzzer_sys::fuzz_target;
use protobuf::Message;

fuzz_target!(|data: &[u8]| {
    let _ = codec::parse(data);
    let mut handshake = Handshake::default();
    for (count, byte) in data.iter().enumerate() {
        match handshake.push(*byte) {
            Ok(cella_shim::vsock::Progress::More) => assert!(count < 64, "an answer without end"),
            _ => break,
        }
    }
    let (mut whole, mut bytewise) = (Bounds::default(), Bounds::default());
    for bounds in [&mut whole, &mut bytewise] {
        bounds.sent(&[0; 40]); // four empty requests
    }
    let each = data.iter().try_for_each(|byte| bytewise.received(&[*byte]));
    assert_eq!(whole.received(data), each, "it matters how the bytes are cut");
    let text = String::from_utf8_lossy(data);
    let shown = untrusted::printable(&text, 128);
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    for line in untrusted::last_lines(data, 8, 256) {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    if let Ok(status) = StatusResponse::parse_from_bytes(data) {
        let _ = GuestFacts::of(&status);
    }
    let _ = ContainerStatsResponse::parse_from_bytes(data);
    let _ = CreateContainerResponse::parse_from_bytes(data);
    let _ = NextEventResponse::parse_from_bytes(data);
    let _ = WaitContainerResponse::parse_from_bytes(data);
});
