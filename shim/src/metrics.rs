//! What an operator can measure of a pod: Prometheus text (format 0.0.4) on a Unix socket of the shim's.
//!
//! `metrics.sock` in the run directory, mode 0600, answers `GET /metrics` (HTTP/1.1, one request a connection) from the start of
//! the VM's launch to its end, and `GET /trace` with the steps of [`crate::trace`]. `cellactl metrics` merges the sockets of a node and adds whose each sample is.
//!
//! One shim process is one pod, so what it counts lives in one place, [`global`]: a hook is one line where something happens,
//! costs an atomic addition or a short lock, and never waits or fails.
//!
//! | metric | what |
//! |---|---|
//! | `cella_shim_info` | version, TEE and acceleration, as labels |
//! | `cella_stage_duration_seconds` | `sandbox-launch`, `pod-schedule-to-ready`: by the host's clock |
//! | `cella_guest_stage_duration_seconds` | `guest-boot`, `attestation`, `key-release`, `image-pull`, `model-decrypt-and-load`, `container-start` |
//! | `cella_guest_stage_failures` | the same stages |
//! | `cella_vm_*`, `cella_shim_resident_memory_bytes` | size and use of the VM, seen from the host |
//! | `cella_guest_up`, `cella_guest_memory_bytes`, `cella_guest_model_locked_bytes` | the guest's memory |
//! | `cella_containers*`, `cella_container_*`, `cella_execs_total`, `cella_task_events_total` | containers and processes |
//! | `cella_refusals_total` | failed requests of containerd by call and gRPC code; a policy's denial is `PERMISSION_DENIED` |
//! | `cella_guest_events_total` | the agent's events by kind |
//! | `cella_stdio_bytes_total` | bytes of containers' stdin, stdout, stderr |
//!
//! `cella_guest_*` is the guest's word, read from the agent at each scrape: bounded, cleaned, and as credible as the guest. The
//! first-token latency is not here: the ingress is encrypted through to the guest, and nothing on the host can see a token.

mod counted;
mod counters;
mod guest;
mod page;
mod server;

pub use counted::Counted;
pub use counters::{Metrics, Pipe, Stage, global};
pub use guest::{GuestFacts, StageFact};
pub use server::{Handle, Server, ServerError, VmFacts};
