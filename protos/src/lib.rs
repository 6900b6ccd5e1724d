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
/// vsock port of the host's simulated platform (development hosts only).
pub const SIM_PLATFORM_PORT: u32 = 1027;
