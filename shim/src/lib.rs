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
//! | [`network`] | the pod's network namespace: taps, redirects, port forwards |
//! | [`vm`] | the micro-VM's life, from run directory to clean-up; its size |
//! | [`volumes`] | bind mounts of a bundle made into volumes of the agent |
//! | [`task`], [`sandbox`] | containerd's Task and Sandbox services: containers, execs, stdio, events |
//! | [`shim`], [`server`] | how containerd starts this program, and the socket that it serves |
//! | [`metrics`] | what is counted and timed, as Prometheus text |
//! | [`cleanup`] | `containerd-shim-cella-v2 delete`, after the shim itself has died |
//! | [`containerd`], [`users`] | what both programs ask containerd, and how a user's name gets through it |
//! | [`snapshotter`] | the second program, `cella-snapshotter` |
//!
//! # What it leaves on the host
//!
//! Nothing, once the last container is deleted. While a VM runs, `<run-dir>/<id, at most 11 characters>-<hash>/`, mode 0700, to
//! which the bundle's symlink `cella-run-dir` leads:
//!
//! | file | what |
//! |---|---|
//! | `state.json` | programs by number and start time, for `delete`; whose VM it is and of what size, for `cellactl ps` |
//! | `console.log`, `console.log.1` | the guest's console, bounded by `console-log-kib` |
//! | `initdata.img` | the initdata device |
//! | `qmp.sock`, `console.sock` | the shim listens, QEMU connects |
//! | `vhost.sock`, `vsock`, `vsock_1027` | `sim`: backend, host → guest (`CONNECT <port>`), guest → simulated platform |
//! | `qemu.pid` | for the simulated platform |
//! | `metrics.sock` | answers `GET /metrics` |
//!
//! # What it reads
//!
//! Annotations: `io.katacontainers.config.hypervisor.cc_init_data` (or `default-initdata` of the configuration),
//! `io.cella.ports` (loopback forwards), CRI's
//! `container-type`, `sandbox-id`, `container-name`, `sandbox-name`, `sandbox-namespace`, and `sandbox-memory`, `sandbox-cpu-*` for the
//! VM's size. Mount options of the rootfs: `x-cella.image=`. Runtime options:
//! `ConfigPath`. No annotation reaches QEMU's command line but port numbers, the VM's size and the digest of the initdata.
//!
//! # Exit statuses
//!
//! The process's own; 137 when the VM or the shim has gone; 128 + signal when a signal ended a container without its
//! process's word; 255 when it could not be started.
//!
//! # Limits
//!
//! containerd 2.0 or newer (Task API v3). No checkpoints, no log drivers (`binary://`); a sandbox cannot be paused or resized.
//! SIGTERM to the shim is ignored, since a pod's end is containerd's to say; every program that it started dies with it by
//! SIGKILL. Not run on TEE hardware yet.
//!
//! # Untrusted bytes
//!
//! Each has a parser without I/O that can be fuzzed: [`qmp::codec::parse`], [`vsock::Handshake`], [`options::config_source`],
//! [`ports::parse`], [`container_spec::images`], [`bundle::oci::Spec`], [`sandbox::config::decode`]; answers of the agent are bounded in [`agent`].

pub mod agent;
pub mod bundle;
pub mod cleanup;
pub mod config;
pub mod container_spec;
pub mod containerd;
pub mod initdata;
pub mod logging;
pub mod metrics;
pub mod network;
pub mod options;
pub mod ports;
pub mod process;
pub mod qemu;
pub mod qmp;
pub mod sandbox;
pub mod server;
pub mod shim;
pub mod snapshotter;
pub mod task;
pub mod trace;
pub mod untrusted;
pub mod users;
pub mod vm;
pub mod volumes;
pub mod vsock;
