//! What containers use, as exactly as the policy lets the host know (threat T4).
//!
//! | `stats` | what is told |
//! |---|---|
//! | `deny` | nothing |
//! | `coarse` | memory in use and its limit, rounded up to 64 MiB, and CPU time, rounded up to 10 s; as they were at the last full minute since the first question |
//! | `exact` | all that the kernel counts, now |

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use cella_policy::{Policy, Stats as Detail, check::check_stats};
use cella_protos::agent::{
    ContainerStatsRequest, ContainerStatsResponse, CpuStats, IoStats, MemoryStats, NetworkStats,
};
use protobuf::MessageField;
use tokio::time::Instant;

use super::{ApiError, service::id};
use crate::container::{Containers, CpuUse, IoUse, MemoryUse, NetworkUse, Stats};

/// Answers, and what was told of whom and when.
#[derive(Debug, Default)]
pub(super) struct StatsDesk {
    told: Mutex<BTreeMap<String, Told>>,
}

#[derive(Debug)]
struct Told {
    since: Instant,
    /// Full periods since then, at the last reading.
    periods: u64,
    stats: ContainerStatsResponse,
}

impl StatsDesk {
    /// The answer for a container, or for the pod.
    pub(super) fn answer(
        &self,
        policy: &Policy,
        containers: &Containers,
        request: &ContainerStatsRequest,
    ) -> Result<ContainerStatsResponse, ApiError> {
        let detail = check_stats(policy.pod()).map_err(ApiError::Denied)?;
        let read = || {
            let stats = match request.id.as_str() {
                "" => containers.pod_stats(),
                text => containers.stats(&id(text)?),
            };
            stats.map_err(ApiError::Container)
        };
        if detail == Detail::Exact {
            return read().map(message);
        }
        // Even where nothing new is told, a container that is gone is gone.
        let stats = read()?;
        self.seldom(&request.id, || coarse(&stats))
    }

    /// What was told of `name`, read again when a further period is full.
    fn seldom(
        &self,
        name: &str,
        read: impl FnOnce() -> ContainerStatsResponse,
    ) -> Result<ContainerStatsResponse, ApiError> {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = told.get_mut(name) {
            let periods = now
                .duration_since(told.since)
                .as_secs()
                .checked_div(PERIOD.as_secs())
                .unwrap_or(0);
            if periods > told.periods {
                (told.periods, told.stats) = (periods, read());
            }
            return Ok(told.stats.clone());
        }
        let stats = read();
        // Ids that are used no more; the host invents them.
        if told.len() >= MAX_TOLD {
            told.clear();
        }
        told.insert(
            name.to_owned(),
            Told {
                since: now,
                periods: 0,
                stats: stats.clone(),
            },
        );
        Ok(stats)
    }
}

/// Memory and CPU time, rounded up; nothing else.
fn coarse(stats: &Stats) -> ContainerStatsResponse {
    let up = |value: u64, step: u64| value.checked_next_multiple_of(step).unwrap_or(u64::MAX);
    ContainerStatsResponse {
        cpu: MessageField::some(CpuStats {
            usage_us: up(stats.cpu.usage_us, CPU_STEP_US),
            ..Default::default()
        }),
        memory: MessageField::some(MemoryStats {
            usage_bytes: up(stats.memory.usage_bytes, MEMORY_STEP),
            limit_bytes: up(stats.memory.limit_bytes, MEMORY_STEP),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn message(stats: Stats) -> ContainerStatsResponse {
    ContainerStatsResponse {
        cpu: MessageField::some(cpu(stats.cpu)),
        memory: MessageField::some(memory(stats.memory)),
        pids: stats.pids,
        pids_limit: stats.pids_limit,
        io: stats.io.into_iter().map(io).collect(),
        networks: NetworkUse::of_the_pod().into_iter().map(network).collect(),
        ..Default::default()
    }
}

fn cpu(cpu: CpuUse) -> CpuStats {
    CpuStats {
        usage_us: cpu.usage_us,
        user_us: cpu.user_us,
        system_us: cpu.system_us,
        periods: cpu.periods,
        throttled_periods: cpu.throttled_periods,
        throttled_us: cpu.throttled_us,
        ..Default::default()
    }
}

fn memory(memory: MemoryUse) -> MemoryStats {
    MemoryStats {
        usage_bytes: memory.usage_bytes,
        limit_bytes: memory.limit_bytes,
        peak_bytes: memory.peak_bytes,
        stat: memory.stat.into_iter().collect(),
        events: memory.events.into_iter().collect(),
        ..Default::default()
    }
}

fn io(io: IoUse) -> IoStats {
    IoStats {
        major: io.major,
        minor: io.minor,
        read_bytes: io.read_bytes,
        written_bytes: io.written_bytes,
        reads: io.reads,
        writes: io.writes,
        ..Default::default()
    }
}

fn network(network: NetworkUse) -> NetworkStats {
    NetworkStats {
        name: network.name,
        received_bytes: network.received_bytes,
        received_packets: network.received_packets,
        receive_errors: network.receive_errors,
        receive_dropped: network.receive_dropped,
        sent_bytes: network.sent_bytes,
        sent_packets: network.sent_packets,
        send_errors: network.send_errors,
        send_dropped: network.send_dropped,
        ..Default::default()
    }
}

/// Least time between two readings.
const PERIOD: Duration = Duration::from_secs(60);

/// What a figure of memory is rounded up to; [`super::status`] rounds by the same.
pub(super) const MEMORY_STEP: u64 = 64 << 20;

const CPU_STEP_US: u64 = 10_000_000;

/// Containers that are remembered.
const MAX_TOLD: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(usage_us: u64, usage_bytes: u64) -> Stats {
        Stats {
            cpu: CpuUse {
                usage_us,
                user_us: 7,
                ..CpuUse::default()
            },
            memory: MemoryUse {
                usage_bytes,
                peak_bytes: usage_bytes,
                stat: [("anon".to_owned(), usage_bytes)].into(),
                ..MemoryUse::default()
            },
            pids: 3,
            ..Stats::default()
        }
    }

    #[test]
    fn t4_use_within_a_bucket_looks_alike() {
        let (one, two) = (coarse(&stats(1, 1 << 20)), coarse(&stats(9_999_999, 63 << 20)));
        assert_eq!(one, two);
        assert_eq!((one.memory.usage_bytes, one.cpu.usage_us), (64 << 20, 10_000_000));
        assert!(one.memory.stat.is_empty() && one.memory.peak_bytes == 0 && one.pids == 0 && one.cpu.user_us == 0);
        assert_ne!(one, coarse(&stats(1, 65 << 20)));
        assert_eq!(coarse(&stats(u64::MAX, u64::MAX)).memory.usage_bytes, u64::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn t4_the_answer_changes_once_a_minute_however_often_is_asked() {
        let desk = StatsDesk::default();
        let ask = |usage| {
            desk.seldom("c1", || coarse(&stats(0, usage)))
                .unwrap()
                .memory
                .usage_bytes
                >> 20
        };
        assert_eq!(ask(1 << 20), 64);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(ask(200 << 20), 64);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ask(200 << 20), 256);
        // The minutes are those since the first question, not since the last.
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(ask(1 << 20), 256);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(ask(1 << 20), 64);
        for number in 0..3000 {
            desk.seldom(&number.to_string(), ContainerStatsResponse::default)
                .unwrap();
        }
        assert!(desk.told.lock().unwrap().len() <= MAX_TOLD);
    }
}
