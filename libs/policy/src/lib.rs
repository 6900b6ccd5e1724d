//! Workload policy and initdata: what a guest obeys, and the document that carries it past an untrusted host.
//!
//! * [`initdata`] frames, inflates, digests and parses the document (initdata 0.1.0). The inflater and the framing see
//!   host bytes before anything vouches for them: bounded, no panic. [`initdata::parse`] is for bytes whose digest the
//!   hardware evidence has confirmed, and for tools on the author's desk.
//! * [`Policy`] is the validated form of `cella.toml`; [`mod@file`] is its serialised form. Unknown keys are refused by name.
//! * [`check::check_container`] compares what the host asks for with what the policy names. Deny by default.
//!
//! Everything here is pure: bytes in, values or errors out; no I/O, no clock, no randomness.
#![forbid(unsafe_code)]

pub mod check;
pub mod file;
pub mod initdata;

mod capability;
mod error;
mod names;
mod pem;
mod policy;
mod signal;

pub use capability::{Capability, CapabilityError};
pub use error::{Place, PolicyError};
pub use names::{DigestRef, Endpoint, GuestPath, KeyId, NameError, RegistryName, Scheme, Sha256Digest};
pub use pem::{CertificatePem, PemError};
pub use policy::{
    ContainerPolicy, Kbs, Memlock, ModelMount, ModelPolicy, Policy, Registry, Signals, Stdio, Tmpfs, User,
};
pub use signal::{Signal, SignalError};

/// The only `version` of `cella.toml` that this crate reads and writes.
pub const POLICY_VERSION: u64 = 1;
