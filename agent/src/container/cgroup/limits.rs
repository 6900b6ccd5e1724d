//! Limits as the host gives them, and what is written for them.

use std::{collections::BTreeMap, fs, num::NonZeroU64};

use cella_protos::agent::Resources;

use crate::untrusted::shown;

/// Limits of a container. Default = none, or in an update: all as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory, in bytes.
    pub memory: Option<Limit>,
    /// CPU time in each period, in µs.
    pub cpu_quota_us: Option<Limit>,
    /// The period, in µs; `None` = the kernel's 100 ms.
    pub cpu_period_us: Option<NonZeroU64>,
    /// Share of the CPU as cgroup v1 counts it, 2 to 262144; 0 = as it is.
    pub cpu_shares: u64,
    /// Processes and threads.
    pub pids: Option<Limit>,
    /// Processors, as the kernel writes a list: `0-1,3`; empty = as it is.
    pub cpus: String,
    /// Memory nodes in the same form.
    pub memory_nodes: String,
    /// Further files of the group, from a list of those that only limit the container itself.
    pub unified: BTreeMap<&'static str, String>,
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// At most so many.
    At(NonZeroU64),
    /// As many as there are.
    None,
}

/// What the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// Its processors.
    pub processors: u64,
}

/// What is wrong with limits. Host text in it is escaped and cut.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// Not a list of numbers.
    #[error("{text} is not a list of processors or memory nodes, such as 0-1,3")]
    List {
        /// What was given.
        text: String,
    },
    /// A file that the host may not write.
    #[error("{file} is not a limit that a container can be given")]
    File {
        /// What was given.
        file: String,
    },
    /// Not such a file's content.
    #[error("{value} is not a value for {file}")]
    Value {
        /// Which file.
        file: &'static str,
        /// What was given.
        value: String,
    },
    /// A CPU period that the kernel does not take.
    #[error("a CPU period of {period_us} µs is outside 1000 to 1000000, or a quota of {quota_us} µs is below 1000")]
    Cpu {
        /// The period.
        period_us: u64,
        /// The quota.
        quota_us: u64,
    },
    /// More than the machine has. A confidential guest's size is fixed at its launch.
    #[error("the limit asks for {wanted} {what}; this guest has {available} and cannot grow")]
    Machine {
        /// Of what.
        what: &'static str,
        /// How much was asked for.
        wanted: u64,
        /// How much there is.
        available: u64,
    },
}

impl Limits {
    /// From the API's message: 0 and "" = not given, a negative number = no limit.
    ///
    /// Lists of processors and memory nodes that `machine` does not have are left out: they are the host's own numbers, which
    /// mean nothing here.
    pub fn parse(resources: &Resources, machine: Machine) -> Result<Self, LimitError> {
        let mut unified = BTreeMap::new();
        for (file, value) in &resources.unified {
            let known = UNIFIED
                .iter()
                .find(|known| *known == file)
                .ok_or_else(|| LimitError::File { file: shown(file) })?;
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b' ';
            if !(1..=64).contains(&value.len()) || !value.bytes().all(plain) {
                return Err(LimitError::Value {
                    file: known,
                    value: shown(value),
                });
            }
            unified.insert(*known, value.clone());
        }
        let limits = Self {
            memory: Limit::of(resources.memory_limit_bytes),
            cpu_quota_us: Limit::of(resources.cpu_quota_us),
            cpu_period_us: NonZeroU64::new(resources.cpu_period_us),
            cpu_shares: resources.cpu_shares,
            pids: Limit::of(resources.pids_limit),
            cpus: list(&resources.cpuset_cpus, machine.processors)?,
            memory_nodes: list(&resources.cpuset_mems, 1)?,
            unified,
        };
        let (period_us, quota) = (limits.period_us(), limits.cpu_quota_us.and_then(Limit::number));
        let quota_us = quota.unwrap_or(u64::MAX);
        if (1_000..=1_000_000).contains(&period_us) && quota_us >= 1_000 {
            Ok(limits)
        } else {
            Err(LimitError::Cpu { period_us, quota_us })
        }
    }

    /// Refuses what `machine` does not have.
    pub fn check(&self, machine: Machine) -> Result<(), LimitError> {
        let within = |what, wanted: Option<u64>, available| match wanted {
            Some(wanted) if wanted > available => Err(LimitError::Machine {
                what,
                wanted,
                available,
            }),
            _ => Ok(()),
        };
        within(
            "bytes of memory",
            self.memory.and_then(Limit::number),
            machine.memory_bytes,
        )?;
        // Rounded up: 1.5 processors do not fit into one.
        let processors = self
            .cpu_quota_us
            .and_then(Limit::number)
            .map(|quota| quota.div_ceil(self.period_us()));
        within("processors", processors, machine.processors)
    }

    /// Files and what to write into them.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let mut settings = Vec::new();
        let mut set = |file: &str, value: String| settings.push((file.to_owned(), value));
        if let Some(memory) = self.memory {
            set("memory.max", memory.text());
        }
        if let Some(quota) = self.cpu_quota_us {
            set("cpu.max", format!("{} {}", quota.text(), self.period_us()));
        }
        if self.cpu_shares > 0 {
            // The mapping that systemd and every runtime use: 2..262144 onto 1..10000.
            let shares = self.cpu_shares.clamp(2, 262_144);
            set("cpu.weight", (1 + (shares - 2) * 9_999 / 262_142).to_string());
        }
        if let Some(pids) = self.pids {
            set("pids.max", pids.text());
        }
        for (file, list) in [("cpuset.cpus", &self.cpus), ("cpuset.mems", &self.memory_nodes)] {
            if !list.is_empty() {
                set(file, list.clone());
            }
        }
        for (file, value) in &self.unified {
            set(file, value.clone());
        }
        settings
    }

    fn period_us(&self) -> u64 {
        self.cpu_period_us.map_or(100_000, NonZeroU64::get)
    }
}

impl Limit {
    fn of(number: i64) -> Option<Self> {
        match u64::try_from(number) {
            Ok(number) => NonZeroU64::new(number).map(Self::At),
            Err(_) => Some(Self::None),
        }
    }

    fn number(self) -> Option<u64> {
        match self {
            Self::At(number) => Some(number.get()),
            Self::None => None,
        }
    }

    fn text(self) -> String {
        self.number()
            .map_or_else(|| "max".to_owned(), |number| number.to_string())
    }
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            memory_bytes: crate::boot::total_memory(&meminfo).unwrap_or(u64::MAX),
            processors: u64::try_from(processors).unwrap_or(u64::MAX),
        }
    }
}

/// A list of numbers and ranges; empty stays empty, and one that goes beyond `count` becomes empty.
fn list(text: &str, count: u64) -> Result<String, LimitError> {
    let number = |number: &str| (1..=4).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let range = |range: &str| match range.split_once('-') {
        Some((first, last)) => number(first) && number(last),
        None => number(range),
    };
    if text.is_empty() {
        return Ok(String::new());
    }
    if text.len() > 256 || !text.split(',').all(range) {
        return Err(LimitError::List { text: shown(text) });
    }
    let is_here = |number: &str| number.parse::<u64>().is_ok_and(|number| number < count);
    let is_here = text.split([',', '-']).all(is_here);
    Ok(if is_here { text.to_owned() } else { String::new() })
}

/// What a specification may set by a file's name.
const UNIFIED: [&str; 13] = [
    "cpu.idle",
    "cpu.max",
    "cpu.max.burst",
    "cpu.weight",
    "cpu.weight.nice",
    "cpuset.cpus",
    "cpuset.mems",
    "memory.high",
    "memory.low",
    "memory.max",
    "memory.min",
    "memory.oom.group",
    "pids.max",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(change: impl FnOnce(&mut Resources)) -> Result<Limits, LimitError> {
        let mut resources = Resources::new();
        change(&mut resources);
        Limits::parse(&resources, MACHINE)
    }

    const MACHINE: Machine = Machine {
        memory_bytes: 1 << 30,
        processors: 2,
    };

    fn settings(change: impl FnOnce(&mut Resources)) -> Vec<(String, String)> {
        parse(change).unwrap().settings()
    }

    #[test]
    fn limits_become_settings() {
        let found = settings(|resources| {
            resources.memory_limit_bytes = 1 << 30;
            resources.cpu_quota_us = 50_000;
            resources.cpu_shares = 1024;
            resources.pids_limit = 100;
            resources.cpuset_cpus = "0,1".into();
            resources.unified.insert("memory.high".into(), "1000".into());
        });
        let expected = [
            ("memory.max", "1073741824"),
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "39"),
            ("pids.max", "100"),
            ("cpuset.cpus", "0,1"),
            ("memory.high", "1000"),
        ];
        assert_eq!(found, expected.map(|(file, value)| (file.to_owned(), value.to_owned())));
        assert_eq!(settings(|resources| resources.cpu_shares = u64::MAX)[0].1, "10000");
    }

    #[test]
    fn nothing_given_is_nothing_changed_and_negative_is_no_limit() {
        assert_eq!(settings(|_| {}), []);
        let none = settings(|resources| {
            resources.memory_limit_bytes = -1;
            resources.cpu_quota_us = -1;
            resources.pids_limit = -1;
        });
        let values: Vec<&str> = none.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["max", "max 100000", "max"]);
    }

    #[test]
    fn t10_only_limits_are_written() {
        for bad in ["x", "1-", "-1", "0,,1", "0-1-2", "12345", "0\n", &"1,".repeat(200)] {
            let error = parse(|resources| resources.cpuset_cpus = bad.to_owned()).unwrap_err();
            assert!(matches!(error, LimitError::List { .. }), "{bad:?}");
        }
        for bad in [
            "cgroup.procs",
            "../memory.max",
            "cgroup.freeze",
            "memory.reclaim",
            "",
            "io.max",
        ] {
            let error = parse(|resources| drop(resources.unified.insert(bad.to_owned(), "1".into()))).unwrap_err();
            assert!(matches!(error, LimitError::File { .. }), "{bad:?}");
        }
        for bad in ["", "1\n2", "-1", "A", &"1".repeat(65)] {
            let change =
                |resources: &mut Resources| drop(resources.unified.insert("memory.high".into(), bad.to_owned()));
            assert!(matches!(parse(change), Err(LimitError::Value { .. })), "{bad:?}");
        }
        for (quota, period) in [(999, 100_000), (5_000, 999), (5_000, 1_000_001)] {
            let error = parse(|resources| {
                resources.cpu_quota_us = quota;
                resources.cpu_period_us = period;
            });
            assert!(matches!(error, Err(LimitError::Cpu { .. })), "{quota} {period}");
        }
    }

    #[test]
    fn the_hosts_own_processors_are_not_ours() {
        for list in ["2", "0-2", "0,17", "40-47"] {
            assert_eq!(
                settings(|resources| resources.cpuset_cpus = list.to_owned()),
                [],
                "{list}"
            );
        }
        assert_eq!(settings(|resources| resources.cpuset_mems = "1".into()), []);
        assert_eq!(settings(|resources| resources.cpuset_mems = "0".into()).len(), 1);
    }

    #[test]
    fn a_limit_is_within_the_machine() {
        let check = |change: fn(&mut Resources)| parse(change).unwrap().check(MACHINE);
        assert_eq!(check(|resources| resources.memory_limit_bytes = 1 << 30), Ok(()));
        assert_eq!(
            check(|resources| resources.memory_limit_bytes = (1 << 30) + 1),
            Err(LimitError::Machine {
                what: "bytes of memory",
                wanted: (1 << 30) + 1,
                available: 1 << 30
            })
        );
        assert_eq!(check(|resources| resources.cpu_quota_us = 200_000), Ok(()));
        assert!(check(|resources| resources.cpu_quota_us = 200_001).is_err());
        assert!(Machine::here().memory_bytes > 0 && Machine::here().processors > 0);
    }
}
