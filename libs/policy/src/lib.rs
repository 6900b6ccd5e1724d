//! Workload policy and initdata: what a guest obeys, and the document that carries it past an untrusted host.
//!
//! * [`initdata`] frames, inflates, digests and parses the document (initdata 0.1.0). The inflater and the framing see
//!   host bytes before anything vouches for them: bounded, no panic. [`initdata::parse`] is for bytes whose digest the
//!   hardware evidence has confirmed, and for tools on the author's desk.
//! * [`Policy`] is the validated form of `cella.toml`; [`mod@file`] is its serialised form. Unknown keys are refused by name.
//! * [`check`] compares what the host asks for with what the policy names, and gives what is admitted as data: that is
//!   what an agent runs. Deny by default.
//!
//! Everything here is pure: bytes in, values or errors out; no I/O, no clock, no randomness.
#![forbid(unsafe_code)]

pub mod check;
pub mod file;
pub mod initdata;

mod capability;
mod choice;
mod error;
mod form;
mod names;
mod pattern;
mod pem;
mod policy;
mod provenance;
mod signal;
mod thumbprint;
mod volume;

pub use capability::{Capability, CapabilityError};
pub use error::{Place, PolicyError};
pub use form::Form;
pub use names::{DigestRef, Endpoint, GuestPath, KeyId, NameError, RegistryName, Scheme, Sha256Digest};
pub use pattern::{EnvPattern, SysctlPattern};
pub use pem::{CertificatePem, PemError};
pub use policy::{
    Call, ContainerPolicy, Destination, Kbs, MaskedPaths, Match, Memlock, Mirror, ModelMount, ModelPolicy,
    NetworkPolicy, Output, OutputPolicy, PodPolicy, Policy, Port, Presence, Protocol, Registry, Rlimits, Rule,
    SealedKind, Seccomp, Signals, Stats, Stdio, Tmpfs, User, UserPolicy, VolumePolicy,
};
pub use provenance::{ModelDigest, Provenance};
pub use signal::{Signal, SignalError};
pub use thumbprint::KeyThumbprint;
pub use volume::{VolumeKind, VolumeKindError};

/// The only `version` of `cella.toml` that this crate reads and writes.
pub const POLICY_VERSION: u64 = 1;
