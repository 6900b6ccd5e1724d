//! The agent: PID 1 of the guest and its only program.
//!
//! Everything that reaches it from outside is hostile: kernel command line and initdata device (bound by the launch
//! measurement and by HOST_DATA, refused when they do not match), the host's RPCs (each checked against the measured
//! workload policy), registry and key broker (digests and evidence). What fails before the policy is known powers the
//! guest off; what fails later is one container's error, said in one line to whoever asked.
//!
//! Reading order: [`guest`] is PID 1's life from mounts to power off, [`boot`] finds out what to obey, [`api`] serves the
//! host, [`container`] keeps the containers, [`launch`] makes one of them in a process of its own.

pub mod api;
pub mod boot;
pub mod cmdline;
pub mod container;
pub mod entropy;
pub mod evidence;
pub mod filter;
pub mod forward;
pub mod guest;
pub mod initdata;
pub mod launch;
pub mod logging;
pub mod network;
pub mod pod;
pub mod reaper;
pub mod stage;
pub mod stream;
mod untrusted;
pub mod volume;
pub mod workload;
pub mod zeroing;
