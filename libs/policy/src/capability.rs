//! Linux capabilities by name.

use std::fmt;
use std::str::FromStr;

use crate::names::shown;

/// One capability that Linux 6.12 knows. Parsed with or without `CAP_`; written with it, as OCI does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

impl Capability {
    /// The capability's number in `linux/capability.h`.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// True for the set that containerd puts into every container's specification. Asking for these is no offence; the
    /// process still gets only what the policy names.
    pub fn is_containerd_default(self) -> bool {
        CONTAINERD_DEFAULT.contains(&self.bare_name())
    }

    fn bare_name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let bare = text.strip_prefix("CAP_").unwrap_or(text);
        NAMES
            .iter()
            .position(|name| *name == bare)
            .and_then(|number| u8::try_from(number).ok())
            .map(Self)
            .ok_or_else(|| CapabilityError { given: shown(text) })
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAP_{}", self.bare_name())
    }
}

/// A name that is no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given} is no capability of Linux; write for example NET_BIND_SERVICE")]
pub struct CapabilityError {
    given: String,
}

/// In the order of their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const CONTAINERD_DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_linux() {
        for (name, number) in [
            ("CHOWN", 0),
            ("CAP_SYS_ADMIN", 21),
            ("IPC_LOCK", 14),
            ("CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(name.parse::<Capability>().unwrap().number(), number);
        }
        assert_eq!("KILL".parse::<Capability>().unwrap().to_string(), "CAP_KILL");
        assert!("CAP_CAP_KILL".parse::<Capability>().is_err());
        assert!("kill".parse::<Capability>().is_err());
        assert!("".parse::<Capability>().is_err());
    }

    #[test]
    fn fourteen_are_containerds_default() {
        let defaults = NAMES
            .iter()
            .filter(|name| name.parse::<Capability>().unwrap().is_containerd_default())
            .count();
        assert_eq!(defaults, CONTAINERD_DEFAULT.len());
    }
}
