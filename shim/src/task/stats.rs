//! The agent's statistics in containerd's form: `io.containerd.cgroups.v2.Metrics`, of which CRI makes its own.
//!
//! The numbers are the guest's word, about itself. They are carried, never acted upon.

use std::collections::HashMap;

use cella_protos::agent as guest;
use containerd_shim::protos::cgroups_v2::metrics;
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;

use super::error::TaskError;

/// The type by which containerd knows the message.
const TYPE: &str = "io.containerd.cgroups.v2.Metrics";
/// Most devices and interfaces that are passed on.
const MAX_ENTRIES: usize = 64;
/// Longest interface name, in bytes.
const MAX_NAME: usize = 16;

/// `told`, in containerd's form.
///
/// # Errors
/// It cannot be encoded, which does not happen.
pub(super) fn metrics(told: &guest::ContainerStatsResponse) -> Result<Any, TaskError> {
    let all = metrics::Metrics {
        pids: Some(metrics::PidsStat {
            current: told.pids,
            limit: told.pids_limit,
            ..Default::default()
        })
        .into(),
        cpu: Some(cpu(&told.cpu)).into(),
        memory: Some(memory(&told.memory)).into(),
        memory_events: Some(memory_events(&told.memory.events)).into(),
        io: Some(io(&told.io)).into(),
        network: told.networks.iter().take(MAX_ENTRIES).map(network).collect(),
        ..Default::default()
    };
    let value = all.write_to_bytes().map_err(|_| TaskError::Interrupted)?;
    Ok(Any {
        type_url: TYPE.into(),
        value,
        ..Default::default()
    })
}

fn cpu(told: &guest::CpuStats) -> metrics::CPUStat {
    metrics::CPUStat {
        usage_usec: told.usage_us,
        user_usec: told.user_us,
        system_usec: told.system_us,
        nr_periods: told.periods,
        nr_throttled: told.throttled_periods,
        throttled_usec: told.throttled_us,
        ..Default::default()
    }
}

fn memory(told: &guest::MemoryStats) -> metrics::MemoryStat {
    let stat = |key: &str| told.stat.get(key).copied().unwrap_or_default();
    metrics::MemoryStat {
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        workingset_refault: stat("workingset_refault_anon").saturating_add(stat("workingset_refault_file")),
        workingset_activate: stat("workingset_activate_anon").saturating_add(stat("workingset_activate_file")),
        workingset_nodereclaim: stat("workingset_nodereclaim"),
        pgrefill: stat("pgrefill"),
        pgscan: stat("pgscan"),
        pgsteal: stat("pgsteal"),
        pgactivate: stat("pgactivate"),
        pgdeactivate: stat("pgdeactivate"),
        pglazyfree: stat("pglazyfree"),
        pglazyfreed: stat("pglazyfreed"),
        thp_fault_alloc: stat("thp_fault_alloc"),
        thp_collapse_alloc: stat("thp_collapse_alloc"),
        usage: told.usage_bytes,
        // The kernel's own way to say "no limit".
        usage_limit: if told.limit_bytes == 0 {
            u64::MAX
        } else {
            told.limit_bytes
        },
        max_usage: told.peak_bytes,
        ..Default::default()
    }
}

fn memory_events(told: &HashMap<String, u64>) -> metrics::MemoryEvents {
    let count = |key: &str| told.get(key).copied().unwrap_or_default();
    metrics::MemoryEvents {
        low: count("low"),
        high: count("high"),
        max: count("max"),
        oom: count("oom"),
        oom_kill: count("oom_kill"),
        oom_group_kill: count("oom_group_kill"),
        ..Default::default()
    }
}

fn io(told: &[guest::IoStats]) -> metrics::IOStat {
    let entry = |device: &guest::IoStats| metrics::IOEntry {
        major: device.major.into(),
        minor: device.minor.into(),
        rbytes: device.read_bytes,
        wbytes: device.written_bytes,
        rios: device.reads,
        wios: device.writes,
        ..Default::default()
    };
    metrics::IOStat {
        usage: told.iter().take(MAX_ENTRIES).map(entry).collect(),
        ..Default::default()
    }
}

fn network(told: &guest::NetworkStats) -> metrics::NetworkStat {
    metrics::NetworkStat {
        name: crate::untrusted::printable(&told.name, MAX_NAME),
        rx_bytes: told.received_bytes,
        rx_packets: told.received_packets,
        rx_errors: told.receive_errors,
        rx_dropped: told.receive_dropped,
        tx_bytes: told.sent_bytes,
        tx_packets: told.sent_packets,
        tx_errors: told.send_errors,
        tx_dropped: told.send_dropped,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(told: &guest::ContainerStatsResponse) -> metrics::Metrics {
        let any = metrics(told).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        metrics::Metrics::parse_from_bytes(&any.value).unwrap()
    }

    #[test]
    fn what_cri_reads_is_there() {
        let told = guest::ContainerStatsResponse {
            cpu: Some(guest::CpuStats {
                usage_us: 1_500,
                ..Default::default()
            })
            .into(),
            memory: Some(guest::MemoryStats {
                usage_bytes: 100,
                limit_bytes: 400,
                peak_bytes: 120,
                stat: [("inactive_file".to_owned(), 30), ("pgfault".to_owned(), 9)].into(),
                events: [("oom_kill".to_owned(), 1)].into(),
                ..Default::default()
            })
            .into(),
            pids: 3,
            io: vec![guest::IoStats {
                major: 253,
                read_bytes: 5,
                ..Default::default()
            }],
            networks: vec![guest::NetworkStats {
                name: "eth0".into(),
                sent_bytes: 8,
                ..Default::default()
            }],
            ..Default::default()
        };
        let all = decoded(&told);
        assert_eq!((all.cpu.usage_usec, all.pids.current), (1_500, 3));
        // The working set is their difference.
        assert_eq!((all.memory.usage, all.memory.inactive_file), (100, 30));
        assert_eq!((all.memory.usage_limit, all.memory.max_usage), (400, 120));
        assert_eq!((all.memory_events.oom_kill, all.io.usage[0].rbytes), (1, 5));
        assert_eq!((all.network[0].name.as_str(), all.network[0].tx_bytes), ("eth0", 8));
    }

    #[test]
    fn a_guest_that_says_nothing_or_too_much_gives_a_small_answer() {
        let all = decoded(&guest::ContainerStatsResponse::default());
        assert_eq!((all.memory.usage, all.memory.usage_limit), (0, u64::MAX));
        let flood = guest::ContainerStatsResponse {
            networks: vec![
                guest::NetworkStats {
                    name: "x\n".repeat(1000),
                    ..Default::default()
                };
                1000
            ],
            io: vec![guest::IoStats::default(); 1000],
            ..Default::default()
        };
        let all = decoded(&flood);
        assert_eq!((all.network.len(), all.io.usage.len()), (MAX_ENTRIES, MAX_ENTRIES));
        assert!(all.network[0].name.starts_with("x?"));
    }
}
