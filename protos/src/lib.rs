//! The agent's API as Rust types: messages in [`agent`], ttrpc client and service trait in [`agent_ttrpc`].
//!
//! Generated from `proto/agent.proto`, which holds the documentation. Decoding does no I/O and is bounded by ttrpc's frame
//! limit of 4 MiB; what the bytes mean is checked by whoever receives them.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::restriction, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/pmod.rs"));

/// vsock port on which the agent serves its API.
pub const AGENT_PORT: u32 = 1024;
/// vsock port on which the agent takes pipe streams.
pub const STREAM_PORT: u32 = 1025;
/// vsock port on which the agent takes connections to ports of the pod.
pub const FORWARD_PORT: u32 = 1026;
/// vsock port of the host's simulated platform (development hosts only).
pub const SIM_PLATFORM_PORT: u32 = 1027;

#[cfg(test)]
mod tests {
    /// Kata's agent has 42. Each new one is a decision (docs/adr/0001-agent-api.md).
    #[test]
    fn the_host_may_ask_for_seventeen_things() {
        let calls: Vec<_> = include_str!("../proto/agent.proto")
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next())
            .collect();
        let documented = [
            "Hello",
            "ConfigureNetwork",
            "CreateContainer",
            "StartContainer",
            "ExecProcess",
            "WaitContainer",
            "SignalContainer",
            "ResizeTerminal",
            "FreezeContainer",
            "UpdateContainer",
            "ContainerStats",
            "PutVolume",
            "DeleteContainer",
            "NextEvent",
            "ListProcesses",
            "Status",
            "Shutdown",
        ];
        assert_eq!(calls, documented);
    }
}
