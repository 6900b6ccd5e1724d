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
    fn t2_each_call_stands_in_the_specification_with_its_reason() {
        let calls: Vec<_> = include_str!("../proto/agent.proto")
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next())
            .collect();
        assert_eq!(calls.len(), 17);
        let after = SPECIFICATION
            .lines()
            .skip_while(|line| *line != "## The agent's API")
            .skip(1);
        let section = after.take_while(|line| !line.starts_with("## "));
        let rows: Vec<Vec<&str>> = section
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let documented: Vec<String> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
        assert_eq!(calls, documented);
        for row in rows {
            assert!(row.len() == 3 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        }
    }

    const SPECIFICATION: &str = include_str!("../../docs/specification.md");
}
