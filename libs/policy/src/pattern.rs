//! Names that a policy allows, one by one or by how they begin.
//!
//! A pattern is a name, or the beginning of one and `*`. There is no other wildcard: what a pattern allows can be seen by
//! looking at it.

use std::fmt;
use std::str::FromStr;

use crate::names::NameError;

/// Environment variables whose value the host may choose: `NAME`, `PREFIX_*`, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvPattern(String);

impl EnvPattern {
    /// Whether it allows the variable `name`.
    pub fn allows(&self, name: &str) -> bool {
        matches(&self.0, name)
    }

    /// Whether it allows every variable.
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }
}

impl FromStr for EnvPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"=*".contains(&byte));
        if text.is_empty() || text.len() > MAX_PATTERN || !is_name {
            let rule = "must be NAME, or PREFIX_* for all that begin so, or * for all; at most 128 characters, no =";
            return Err(NameError::new("variable", text, rule));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Kernel parameters that the host may set for the pod: `net.ipv4.tcp_syncookies`, `net.*`.
///
/// Only parameters of the pod's own namespaces can be named. Others belong to the guest's kernel, and some of them
/// (`kernel.core_pattern`) would run programs of the host's choice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysctlPattern(String);

impl SysctlPattern {
    /// Whether it allows the parameter `name`.
    pub fn allows(&self, name: &str) -> bool {
        is_sysctl(name) && matches(&self.0, name)
    }
}

impl FromStr for SysctlPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_pattern = match text.strip_suffix(".*") {
            // `net.*`: whatever could follow keeps the name within the namespace.
            Some(top) => is_sysctl(&format!("{top}.x")),
            None => is_sysctl(text),
        };
        if !is_pattern {
            let rule = "must be a parameter of the pod's own namespaces (net.…, fs.mqueue.…, kernel.shm…, kernel.msg…, \
                        kernel.sem), whole or with .* at its end";
            return Err(NameError::new("kernel parameter", text, rule));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A parameter of a namespace that the pod has for itself, with dots between its parts.
fn is_sysctl(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    name.len() <= MAX_PATTERN
        && name.split('.').all(is_part)
        && (name == "kernel.sem"
            || ["net.", "fs.mqueue.", "kernel.shm", "kernel.msg"]
                .iter()
                .any(|top| name.len() > top.len() && name.starts_with(top)))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

impl fmt::Display for EnvPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SysctlPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const MAX_PATTERN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn env(text: &str) -> EnvPattern {
        text.parse().unwrap()
    }

    fn sysctl(text: &str) -> SysctlPattern {
        text.parse().unwrap()
    }

    #[test]
    fn variables_are_named_whole_or_by_their_beginning() {
        assert!(env("HOSTNAME").allows("HOSTNAME") && !env("HOSTNAME").allows("HOSTNAME2"));
        assert!(env("KUBERNETES_*").allows("KUBERNETES_PORT") && env("KUBERNETES_*").allows("KUBERNETES_"));
        assert!(!env("KUBERNETES_*").allows("KUBERNETES") && !env("KUBERNETES_*").is_any());
        assert!(env("*").allows("LD_PRELOAD") && env("*").is_any());
        for bad in ["", "A=b", "A*B", "**", "*A", "A B", "Ä", "A\0", &"A".repeat(129)] {
            assert!(bad.parse::<EnvPattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn parameters_stay_within_the_pods_namespaces() {
        assert!(sysctl("net.*").allows("net.ipv4.ip_forward"));
        assert!(sysctl("net.ipv4.*").allows("net.ipv4.ip_forward") && !sysctl("net.ipv4.*").allows("net.ipv6.x"));
        assert!(sysctl("net.core.somaxconn").allows("net.core.somaxconn"));
        assert!(!sysctl("net.core.somaxconn").allows("net.core.somaxconn2"));
        assert!(sysctl("kernel.shmmax").allows("kernel.shmmax"));
        assert!(sysctl("fs.mqueue.*").allows("fs.mqueue.msg_max"));
        for bad in [
            "*",
            "kernel.*",
            "kernel.core_pattern",
            "kernel.semx",
            "vm.swappiness",
            "fs.*",
            "net",
            "net.",
            "net..x",
            "net/ipv4/x",
            "net.ip*",
            "net.*.x",
            "net.../x",
            "",
        ] {
            assert!(bad.parse::<SysctlPattern>().is_err(), "{bad:?}");
        }
        for name in ["net.ipv4/../../kernel/core_pattern", "net.", "net.a..b", "network.x"] {
            assert!(!sysctl("net.*").allows(name), "{name}");
        }
    }
}
