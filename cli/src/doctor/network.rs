//! Traffic control: the pod's packets are redirected between its CNI interface and the guest's tap by u32 and mirred.

use super::facts::Facts;
use super::host::Host;
use super::{Check, Finding};

/// A trial in a network namespace that is gone when it ends.
pub(super) struct TrafficControl;

impl Check for TrafficControl {
    fn name(&self) -> &'static str {
        "traffic control"
    }

    fn run(&self, host: &Host, _: &Facts) -> Finding {
        match host.ask("unshare", &["--net", "sh", "-c", TRIAL]) {
            Ok(answer) if answer.succeeded => Finding::ok("u32 and mirred work (tried in a namespace of its own)"),
            Ok(answer) if answer.text.contains(NO_TOOLS) => modules(host),
            Err(_) => modules(host),
            Ok(answer) => Finding::failed(
                format!(
                    "a redirect cannot be made: {}",
                    answer.text.lines().last().unwrap_or_default()
                ),
                "the kernel needs sch_ingress, cls_u32 and act_mirred; run as root",
            ),
        }
    }
}

/// Without the tools: what the kernel says it has.
fn modules(host: &Host) -> Finding {
    let release = host.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let list = |name: &str| {
        let path = format!("/lib/modules/{}/{name}", release.trim());
        host.text(path).unwrap_or_default()
    };
    let (builtin, known) = (list("modules.builtin"), list("modules.dep"));
    let missing: Vec<_> = MODULES
        .into_iter()
        .filter(|module| {
            let file = format!("/{module}.ko");
            !host.exists(format!("/sys/module/{module}")) && !builtin.contains(&file) && !known.contains(&file)
        })
        .collect();
    if missing.is_empty() {
        Finding::ok("the kernel has u32 and mirred (not tried: unshare, ip or tc is missing)")
    } else {
        Finding::warning(
            format!(
                "not tried (unshare, ip or tc is missing), and {} not found",
                missing.join(", ")
            ),
            "install iproute2 and run again, or load the modules",
        )
    }
}

const NO_TOOLS: &str = "no iproute2";
const TRIAL: &str = "command -v ip >/dev/null && command -v tc >/dev/null || { echo 'no iproute2'; exit 1; }
    set -e
    ip tuntap add name cella0 mode tap
    tc qdisc add dev lo ingress
    tc qdisc add dev cella0 ingress
    tc filter add dev cella0 parent ffff: protocol all u32 match u8 0 0 action mirred egress redirect dev lo";
const MODULES: [&str; 3] = ["sch_ingress", "cls_u32", "act_mirred"];
