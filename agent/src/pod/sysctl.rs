//! Kernel parameters of the pod: which the host may set at all, and how they are written.
//!
//! Only those that belong to a namespace of the pod's: the machine's own stay as the agent made them. Which of these a pod
//! may set, the policy says.

use std::{collections::BTreeMap, fs, io, path::Path};

use crate::untrusted::shown;

/// One parameter to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Below `/proc/sys`: plain parts with `/` between.
    path: String,
    value: String,
}

/// Why a parameter is refused or was not set. Host text in it is escaped and cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysctlError {
    /// Not a parameter of a namespace that a pod has.
    #[error("{name} is not a kernel parameter of a pod: net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*")]
    NotThePods {
        /// What was given.
        name: String,
    },
    /// More of them than anybody sets.
    #[error("{count} kernel parameters; {MAX_SYSCTLS} are allowed")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Not what a parameter can be.
    #[error("{value} is not a value for kernel parameter {name}")]
    Value {
        /// Which.
        name: String,
        /// What was given.
        value: String,
    },
    /// The kernel refused.
    #[error("setting kernel parameter {name} failed")]
    Set {
        /// Which.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Sysctl {
    /// Checks what the host gives: `net.ipv4.tcp_syncookies`, or with `/` where a name has dots in it.
    pub fn parse(given: &BTreeMap<String, String>) -> Result<Vec<Self>, SysctlError> {
        if given.len() > MAX_SYSCTLS {
            return Err(SysctlError::TooMany { count: given.len() });
        }
        given.iter().map(|(name, value)| Self::one(name, value)).collect()
    }

    fn one(name: &str, value: &str) -> Result<Self, SysctlError> {
        let path = path(name).ok_or_else(|| SysctlError::NotThePods { name: shown(name) })?;
        let is_value = (1..=256).contains(&value.len())
            && value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte));
        if !is_value {
            return Err(SysctlError::Value {
                name: shown(name),
                value: shown(value),
            });
        }
        Ok(Self {
            path,
            value: value.to_owned(),
        })
    }

    /// Writes it for the namespaces of the calling thread.
    pub(super) fn set(&self, root: &Path) -> Result<(), SysctlError> {
        fs::write(root.join(&self.path), &self.value).map_err(|source| SysctlError::Set {
            name: shown(&self.path),
            source,
        })
    }
}

/// What containerd sets for every pod: unprivileged programs may open low ports and send pings.
pub(super) fn set_defaults(root: &Path) -> Result<(), SysctlError> {
    for (path, value) in DEFAULTS {
        let (path, value) = (path.to_owned(), value.to_owned());
        Sysctl { path, value }.set(root)?;
    }
    Ok(())
}

fn path(name: &str) -> Option<String> {
    let separator = if name.contains('/') { '/' } else { '.' };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
    let parts: Vec<&str> = name.split(separator).collect();
    if name.len() > 128 || !parts.iter().copied().all(part) {
        return None;
    }
    let is_the_pods = match parts.as_slice() {
        ["net", _, ..] | ["fs", "mqueue", _] | ["kernel", "sem"] => true,
        ["kernel", name] => name.starts_with("shm") || name.starts_with("msg"),
        _ => false,
    };
    is_the_pods.then(|| parts.join("/"))
}

const DEFAULTS: [(&str, &str); 2] = [
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
];

/// Parameters of a pod.
const MAX_SYSCTLS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<Vec<Sysctl>, SysctlError> {
        Sysctl::parse(&[(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn names_become_paths() {
        for (name, path) in [
            ("net.ipv4.tcp_syncookies", "net/ipv4/tcp_syncookies"),
            ("net/ipv4/conf/eth0.7/arp_ignore", "net/ipv4/conf/eth0.7/arp_ignore"),
            ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
            ("kernel.sem", "kernel/sem"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ] {
            assert_eq!(parse(name, "1").unwrap()[0].path, path);
        }
    }

    #[test]
    fn t10_the_machines_own_parameters_and_other_files_are_refused() {
        for bad in [
            "",
            "net",
            "kernel.core_pattern",
            "kernel.hostname",
            "vm.overcommit_memory",
            "fs.file-max",
            "kernel.printk",
            "net..x",
            "net/../kernel/core_pattern",
            "net/./x",
            "/net/x",
            "net.ipv4.a b",
            "net.ipv4.a\n",
            "kernel.sem.x",
        ] {
            assert!(
                matches!(parse(bad, "1"), Err(SysctlError::NotThePods { .. })),
                "{bad:?}"
            );
        }
        for bad in ["", "1\n2", "\u{1}", &"1".repeat(257)] {
            assert!(
                matches!(parse("net.core.somaxconn", bad), Err(SysctlError::Value { .. })),
                "{bad:?}"
            );
        }
        let many = (0..65)
            .map(|number| (format!("net.x.{number}"), "1".to_owned()))
            .collect();
        assert!(matches!(Sysctl::parse(&many), Err(SysctlError::TooMany { count: 65 })));
    }

    #[test]
    fn a_parameter_that_the_kernel_does_not_have_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let error = parse("net.core.nothing", "1").unwrap()[0].set(root.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "setting kernel parameter \"net/core/nothing\" failed"
        );
    }
}
