//! The harness of the end-to-end tests: a private stack of services, workloads made with `cellactl`, containers run with `ctr`.
//!
//! Nothing here is a mock of Cella: [`Stack`] starts the programs that `make build` made, and the peers' own programs. What
//! stands in for an attacker (a proxy that dies, a broker that answers nonsense, a QEMU started with other bytes) lives in
//! [`attacker`].
#![forbid(unsafe_code)]

pub mod attacker;
pub mod conformance;
pub mod fixture;
pub mod kernel_contract;
pub mod node;
pub mod process;
pub mod registry;
pub mod stack;
pub mod workload;

pub use fixture::Fixture;
pub use node::{Outcome, Run};
pub use stack::{Mark, Stack};
pub use workload::Workload;
