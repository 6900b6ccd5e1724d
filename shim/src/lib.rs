//! `containerd-shim-cella-v2`: containerd's Task API on one side, one micro-VM and its agent on the other.
//!
//! The shim is untrusted by design (`design.md`, 1): whatever it sends, the agent checks. In return the shim trusts nothing
//! that comes out of the guest: answers are bounded in length, stripped of control characters before they reach a log, and
//! awaited with a deadline or together with the death of the VM. It holds no secret.
//!
//! One shim process serves one pod (or one plain `ctr` container):
//!
//! ```text
//! containerd ──Task API (ttrpc)──▶ task ──▶ vm ──QMP──▶ QEMU
//!                                   │       ├─────────▶ vhost-device-vsock      (children, PR_SET_PDEATHSIG)
//!                                   │       └─────────▶ cella-sim-platform (sim only)
//!                                   └──agent API (ttrpc over vsock 1024), pipes (vsock 1025)──▶ cella-agent
//! ```
//!
//! | module | concern |
//! |---|---|
//! | [`config`] | `/etc/cella/config.toml`: file type, validated type, what this host can do |
//! | [`bundle`], [`options`], [`ports`], [`container_spec`], [`initdata`] | what containerd hands over, made into types |
//! | [`qemu`] | one struct for each QEMU switch, and the whole command line |
//! | [`qmp`], [`vsock`], [`process`], [`agent`] | the peers: monitor, transport, children, guest |
//! | [`vm`] | the micro-VM's life, from run directory to clean-up |
//! | [`task`] | the Task service, containers, stdio, events |
//! | [`cleanup`] | `containerd-shim-cella-v2 delete`, after the shim itself has died |
//! | [`snapshotter`] | the second program, `cella-snapshotter`; shares no code with the rest |
//!
//! Requires containerd 2.0 or newer (Task API v3). Every program that the shim starts dies with it.

pub mod agent;
pub mod bundle;
pub mod cleanup;
pub mod config;
pub mod container_spec;
pub mod initdata;
pub mod logging;
pub mod options;
pub mod ports;
pub mod process;
pub mod qemu;
pub mod qmp;
pub mod shim;
pub mod snapshotter;
pub mod task;
pub mod untrusted;
pub mod vm;
pub mod vsock;
