//! The `Status` answer: what an operator may know. Nothing secret goes in.

use std::fs;

use cella_policy::Stats;
use cella_protos::agent::{Container, Ingress, Memory, Stage, StatusResponse};
use protobuf::MessageField;

use super::stats::MEMORY_STEP;
use crate::{
    boot::BootInfo,
    container::Containers,
    stage::{StageLog, boot_time_us},
    workload::Workload,
};

/// Everything that is known now. Reads /proc: some milliseconds, so not on an async thread.
pub(super) fn response(
    boot: &BootInfo,
    stages: &StageLog,
    containers: &Containers,
    workload: Option<&Workload>,
    wants_record: bool,
) -> StatusResponse {
    let mut response = StatusResponse {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        now_us: boot_time_us(),
        initdata_digest: boot.digests.sha256.to_vec(),
        stages: stages.snapshot().into_iter().map(stage).collect(),
        memory: MessageField::some(memory(boot.policy.pod().stats)),
        ingress: MessageField::some(Ingress {
            missing: containers.ingress().missing().iter().map(ToString::to_string).collect(),
            ..Default::default()
        }),
        containers: containers
            .snapshots()
            .into_iter()
            .map(|one| Container {
                id: one.id.to_string(),
                name: one.name,
                state: one.state.as_str().to_owned(),
                pid: one.pid,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    if let Some(workload) = workload {
        workload.status(&mut response);
        response.record = wants_record
            .then(|| workload.record())
            .flatten()
            .unwrap_or_default()
            .into_bytes();
        response.run_record = wants_record
            .then(|| workload.run_record())
            .flatten()
            .unwrap_or_default()
            .into_bytes();
    }
    response
}

fn stage(record: crate::stage::StageRecord) -> Stage {
    Stage {
        name: record.name.as_str().to_owned(),
        subject: record.subject,
        start_us: record.start_us,
        end_us: record.end_us.unwrap_or(0),
        failure: record.failure.unwrap_or_default(),
        ..Default::default()
    }
}

/// Of what is free as much as the host may know of what is used: coarse unless statistics are exact.
fn memory(stats: Stats) -> Memory {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Memory {
        total_bytes: kib(&meminfo, "MemTotal:"),
        available_bytes: match (stats, kib(&meminfo, "MemAvailable:")) {
            (Stats::Exact, available) => available,
            (_, available) => available.saturating_sub(available.checked_rem(MEMORY_STEP).unwrap_or(0)),
        },
        mlocked_bytes: kib(&meminfo, "Mlocked:"),
        swap_total_bytes: kib(&meminfo, "SwapTotal:"),
        agent_rss_bytes: kib(&own, "VmRSS:"),
        ..Default::default()
    }
}

/// A line such as `MemTotal:  1024 kB`, in bytes; 0 when it is not there.
fn kib(text: &str, name: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"));
    value
        .and_then(|value| value.trim().parse::<u64>().ok())
        .unwrap_or(0)
        .saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_in_bytes() {
        let text = "MemTotal:        2048 kB\nMemFree: x kB\n";
        assert_eq!(kib(text, "MemTotal:"), 2 << 20);
        assert_eq!(kib(text, "MemFree:"), 0);
        assert_eq!(kib(text, "SwapTotal:"), 0);
        assert!(memory(Stats::Exact).total_bytes > 0 && memory(Stats::Exact).agent_rss_bytes > 0);
        for stats in [Stats::Deny, Stats::Coarse] {
            assert_eq!(memory(stats).available_bytes % MEMORY_STEP, 0);
        }
    }
}
