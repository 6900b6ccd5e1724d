//! Makes one container, in processes of its own.
//!
//! A process with threads must not fork and carry on, so the agent starts itself anew (`/proc/self/exe`, `argv[0]` =
//! [`LAUNCHER_NAME`]) with the container's pipes as 0-2, the plan as JSON on descriptor 3 and a socket on descriptor 4:
//!
//! ```text
//! agent              launcher                        container's process 1
//!   │ spawn ───────────▶ joins the cgroup
//!   │                    joins the pod's namespaces, makes its own
//!   │                    fork ───────────────────────▶ mounts, pivot_root
//!   │ ◀── "pid 42" ───── waits                         limits, user, capabilities
//!   │ registers 42                                     no_new_privs, seccomp
//!   │ ─── ack ─────────▶ exits                         "ready"
//!   │ ◀───────────────────────────────────────────────  exec: the socket closes itself
//!   │ ◀── "error exec /x: No such file" ───────────────  (or this, at whatever step)
//! ```
//! A further process of a running container (exec) takes the same way: descriptor 5 is a pidfd of the container's process
//! 1, the launcher joins that one's namespaces instead of making new ones, and there is nothing to mount. A process with a
//! terminal makes it in the container's devpts and sends its master side over the socket (`terminal`).
//!
//! The launcher outlives the registration, so the container's exit status cannot be reaped before anybody waits for it.
//! The plan is what the measured policy admits; nothing of it stands in argv or in the environment. Each failing step
//! ends the launch: none is skipped, a mask that cannot be laid included.

mod bind;
pub mod capabilities;
pub mod child;
mod device;
mod host_seccomp;
pub mod init;
mod namespaces;
pub mod plan;
mod process;
mod report;
mod reports;
mod resolve;
mod rootfs;
pub mod seccomp;
mod spawn;
mod step;
mod syscall_names;
mod syscalls;
mod terminal;
mod users;

pub use host_seccomp::{HostSeccomp, HostSeccompError};
pub use plan::{
    ExecPlan, LaunchPlan, MaskPlan, MountPlan, NamespacePlan, Order, PlanError, ProcessPlan, RlimitPlan, SeccompPlan,
    TerminalSize,
};
pub use spawn::{Launched, Launcher, Stdio};
pub use step::{LaunchError, StepError};

/// `argv[0]` that makes the binary a launcher.
pub const LAUNCHER_NAME: &str = "cella-launch";

/// `argv[0]` that makes the binary the init of a process namespace that containers share.
pub const INIT_NAME: &str = "cella-init";

/// Descriptor of the launcher that holds the plan.
const PLAN_FD: i32 = 3;

/// Descriptor of the launcher that leads back to the agent.
const REPORT_FD: i32 = 4;

/// Descriptor of the launcher that stands for the process whose namespaces it joins.
const HOST_FD: i32 = 5;

/// Largest plan that is read. Arguments and environment come from a policy of at most 1 MiB.
const MAX_PLAN: u64 = 4 << 20;
