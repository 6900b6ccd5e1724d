//! The shim's logic against real processes and real sockets, with programs that stand in for QEMU, the vsock backend, the
//! agent and the simulated platform.
//!
//! The stand-ins ([`fake`]) are this very test binary, started again through small scripts, so that everything the shim does
//! with processes is real: death signals, pidfds, kills, files. What they cannot show is shown with the real programs in the
//! workspace's end-to-end tests. Every test ends with a check that nothing is left.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is test code"
)]

mod containerd;
mod fake;
mod host;

mod boot;
mod death;
mod exec;
mod life;
mod nonsense;
mod sandbox;
mod whole;
