//! What a group uses, as the kernel counts it. The texts are the guest kernel's own; what is missing counts as 0.

use std::{collections::BTreeMap, fs, path::Path};

use super::{CgroupError, watch::value};

/// Use of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processors.
    pub cpu: CpuUse,
    /// Memory.
    pub memory: MemoryUse,
    /// Processes and threads.
    pub pids: u64,
    /// How many there may be; 0 = no limit.
    pub pids_limit: u64,
    /// Disks.
    pub io: Vec<IoUse>,
}

/// `cpu.stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the kernel documents them")]
pub struct CpuUse {
    pub usage_us: u64,
    pub user_us: u64,
    pub system_us: u64,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_us: u64,
}

/// `memory.*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes now.
    pub usage_bytes: u64,
    /// Bytes at most; 0 = no limit.
    pub limit_bytes: u64,
    /// Most bytes so far.
    pub peak_bytes: u64,
    /// `memory.stat`.
    pub stat: BTreeMap<String, u64>,
    /// `memory.events`.
    pub events: BTreeMap<String, u64>,
}

/// One disk's line of `io.stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct IoUse {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// One interface's line of `/proc/net/dev`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NetworkUse {
    pub name: String,
    pub received_bytes: u64,
    pub received_packets: u64,
    pub receive_errors: u64,
    pub receive_dropped: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub send_errors: u64,
    pub send_dropped: u64,
}

/// Reads a group's files. Blocks for less than a millisecond.
pub(super) fn read(dir: &Path) -> Result<Stats, CgroupError> {
    let cpu = super::read(dir, "cpu.stat")?;
    // Controllers that are off have no files.
    let text = |file: &str| super::read(dir, file).unwrap_or_default();
    let one = |file: &str| text(file).trim().parse().unwrap_or(0);
    let of = |name| value(&cpu, name).unwrap_or(0);
    Ok(Stats {
        cpu: CpuUse {
            usage_us: of("usage_usec"),
            user_us: of("user_usec"),
            system_us: of("system_usec"),
            periods: of("nr_periods"),
            throttled_periods: of("nr_throttled"),
            throttled_us: of("throttled_usec"),
        },
        memory: MemoryUse {
            usage_bytes: one("memory.current"),
            limit_bytes: one("memory.max"),
            peak_bytes: one("memory.peak"),
            stat: table(&text("memory.stat")),
            events: table(&text("memory.events")),
        },
        pids: one("pids.current"),
        pids_limit: one("pids.max"),
        io: text("io.stat").lines().filter_map(disk).collect(),
    })
}

impl NetworkUse {
    /// The interfaces of the agent's, and so the pod's, network namespace, without the loopback.
    pub fn of_the_pod() -> Vec<Self> {
        let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        text.lines()
            .filter_map(interface)
            .filter(|interface| interface.name != "lo")
            .collect()
    }
}

fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, number)| Some((name.to_owned(), number.trim().parse().ok()?)))
        .collect()
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn disk(line: &str) -> Option<IoUse> {
    let mut words = line.split_ascii_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let mut found = IoUse {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        ..IoUse::default()
    };
    for (name, number) in words.filter_map(|word| word.split_once('=')) {
        let number = number.parse().unwrap_or(0);
        match name {
            "rbytes" => found.read_bytes = number,
            "wbytes" => found.written_bytes = number,
            "rios" => found.reads = number,
            "wios" => found.writes = number,
            _ => {}
        }
    }
    Some(found)
}

/// ` eth0: 1 2 3 4 …`: eight columns received, eight sent.
fn interface(line: &str) -> Option<NetworkUse> {
    let (name, columns) = line.split_once(':')?;
    let columns: Vec<u64> = columns
        .split_ascii_whitespace()
        .filter_map(|text| text.parse().ok())
        .collect();
    let column = |number: usize| columns.get(number).copied();
    Some(NetworkUse {
        name: name.trim().to_owned(),
        received_bytes: column(0)?,
        received_packets: column(1)?,
        receive_errors: column(2)?,
        receive_dropped: column(3)?,
        sent_bytes: column(8)?,
        sent_packets: column(9)?,
        send_errors: column(10)?,
        send_dropped: column(11)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in [
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.peak", "8192\n"),
            ("memory.stat", "anon 1\nfile 2\nodd\n"),
            ("memory.events", "oom 1\noom_kill 1\n"),
            ("pids.current", "2\n"),
            ("pids.max", "10\n"),
            (
                "io.stat",
                "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n",
            ),
        ] {
            fs::write(dir.path().join(file), content).unwrap();
        }
        let stats = read(dir.path()).unwrap();
        assert_eq!(
            (stats.cpu.usage_us, stats.cpu.throttled_periods, stats.cpu.throttled_us),
            (30, 2, 1)
        );
        assert_eq!((stats.memory.usage_bytes, stats.memory.limit_bytes), (4096, 0));
        assert_eq!((stats.memory.stat.len(), stats.memory.events["oom_kill"]), (2, 1));
        assert_eq!((stats.pids, stats.pids_limit), (2, 10));
        assert_eq!(
            stats.io[0],
            IoUse {
                major: 254,
                minor: 0,
                read_bytes: 1,
                written_bytes: 2,
                reads: 3,
                writes: 4
            }
        );
    }

    #[test]
    fn a_group_that_is_gone_is_an_error() {
        assert!(read(Path::new("/no/such/group")).is_err());
    }

    #[test]
    fn interfaces_are_understood() {
        let line = "  eth0:     100       2    3    4    0     0          0         0      500       6    7    8    0     0       0          0";
        let found = interface(line).unwrap();
        assert_eq!(
            (found.name.as_str(), found.received_bytes, found.receive_dropped),
            ("eth0", 100, 4)
        );
        assert_eq!((found.sent_bytes, found.send_dropped), (500, 8));
        assert_eq!(interface("Inter-|   Receive"), None);
        assert!(NetworkUse::of_the_pod().iter().all(|interface| interface.name != "lo"));
    }
}
