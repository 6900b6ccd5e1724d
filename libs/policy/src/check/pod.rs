//! The rules for what a pod has as a whole.

use std::collections::BTreeMap;

use super::request::{MAX_SYSCTL, bounded};
use super::{Denial, Subject, shown_list};
use crate::names::shown;
use crate::policy::{Call, PodPolicy, Policy, Stats};

/// Kernel parameters that containerd sets for every pod: any port and echo requests for every user. They concern nobody
/// but the pod.
pub const DEFAULT_SYSCTL: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

/// Whether the host may set these kernel parameters for the pod.
///
/// # Errors
/// The first parameter that neither `[pod] sysctl` names nor containerd sets for every pod, or whose value is none.
pub fn check_pod(policy: &Policy, sysctl: &BTreeMap<String, String>) -> Result<(), Denial> {
    bounded(|| Subject::Pod, "sysctl", sysctl.len(), MAX_SYSCTL)?;
    for (name, value) in sysctl {
        if DEFAULT_SYSCTL.contains(&(name.as_str(), value.as_str())) {
            continue;
        }
        if !policy.pod().allows_sysctl(name) {
            return Err(Denial::Sysctl {
                name: shown(name),
                allowed: shown_list(&policy.pod().sysctl),
            });
        }
        if value.len() > MAX_VALUE || value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Denial::SysctlValue {
                name: shown(name),
                given: shown(value),
            });
        }
    }
    Ok(())
}

/// Whether the host may connect to the pod's TCP port through the agent.
///
/// # Errors
/// [`Denial::Forward`], with the ports that it may.
pub fn check_forward(pod: &PodPolicy, port: u16) -> Result<(), Denial> {
    if pod.forwards(port) {
        return Ok(());
    }
    Err(Denial::Forward {
        port,
        allowed: shown_list(pod.forward_ports.only().into_iter().flatten()),
    })
}

/// Whether the host may make an optional call.
///
/// # Errors
/// [`Denial::Call`], with the calls that it may make.
pub fn check_call(pod: &PodPolicy, call: Call) -> Result<(), Denial> {
    if pod.calls.contains(&call) {
        return Ok(());
    }
    Err(Denial::Call {
        call: call.as_str(),
        allowed: shown_list(&pod.calls),
    })
}

/// How exactly the host may be told what containers use.
///
/// # Errors
/// [`Denial::Stats`] where it is not told at all.
pub fn check_stats(pod: &PodPolicy) -> Result<Stats, Denial> {
    match pod.stats {
        Stats::Deny => Err(Denial::Stats),
        stats => Ok(stats),
    }
}

const MAX_VALUE: usize = 1024;
