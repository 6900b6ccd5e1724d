//! The pod's network, as the host describes it: checked for form, then set.
//!
//! Nothing here is trusted. A wrong address or name server costs availability; what comes over the network is checked by
//! digests and evidence. The form is checked so that no text reaches the kernel or a file that is not what it claims.

mod apply;
mod ioctl;
mod netlink;
mod plan;

pub use apply::{NetworkError, apply, bring_up_loopback};
pub use plan::{AddressPlan, InterfacePlan, Neighbour, NetworkPlan, PlanError, RoutePlan};
