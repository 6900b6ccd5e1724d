//! Names that a policy allows, one by one or by how they begin.
//!
//! A pattern is a name, or the beginning of one and `*`. There is no other wildcard: what a pattern allows can be seen by
//! looking at it.

use std::fmt;
use std::str::FromStr;

use crate::form::Form;
use crate::names::NameError;

/// Environment variables whose value the host may choose: `NAME`, `PREFIX_*`, or `*` for all; with `=<form>` behind it, of that
/// form only: `POD_IP=<ip>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvPattern {
    name: String,
    form: Option<Form>,
}

impl EnvPattern {
    /// Whether it allows the variable `name`, with some value.
    pub fn allows_name(&self, name: &str) -> bool {
        matches(&self.name, name)
    }

    /// Whether it allows the variable `name` with this value.
    pub fn allows(&self, name: &str, value: &str) -> bool {
        self.allows_name(name) && self.form.is_none_or(|form| form.fits(value))
    }

    /// Whether it allows every variable with every value.
    pub fn is_any(&self) -> bool {
        self.name == "*" && self.form.is_none()
    }

    /// The form that a value must have; `None` = any.
    pub fn form(&self) -> Option<Form> {
        self.form
    }
}

impl FromStr for EnvPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let rule = "must be NAME, or PREFIX_* for all that begin so, or * for all; at most 128 characters; a form may \
                    follow: =<ip>, =<ips>, =<host-name>, =<integer>, =<service>, =<uid> or =<text>";
        let wrong = || NameError::new("variable", text, rule);
        let (pattern, form) = match text.split_once('=') {
            Some((pattern, form)) => (pattern, Some(form.parse().map_err(|()| wrong())?)),
            None => (text, None),
        };
        let name = pattern.strip_suffix('*').unwrap_or(pattern);
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"=*".contains(&byte));
        if pattern.is_empty() || pattern.len() > MAX_PATTERN || !is_name {
            return Err(wrong());
        }
        Ok(Self {
            name: pattern.to_owned(),
            form,
        })
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
        f.write_str(&self.name)?;
        self.form.map_or(Ok(()), |form| write!(f, "={form}"))
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
        let allows = |pattern: &str, name: &str| env(pattern).allows(name, "any value");
        assert!(allows("HOSTNAME", "HOSTNAME") && !allows("HOSTNAME", "HOSTNAME2"));
        assert!(allows("KUBERNETES_*", "KUBERNETES_PORT") && allows("KUBERNETES_*", "KUBERNETES_"));
        assert!(!allows("KUBERNETES_*", "KUBERNETES") && !env("KUBERNETES_*").is_any());
        assert!(allows("*", "LD_PRELOAD") && env("*").is_any());
        for bad in [
            "",
            "A=b",
            "A*B",
            "**",
            "*A",
            "A B",
            "Ä",
            "A\0",
            &"A".repeat(129),
            "A=<x>",
            "=<ip>",
            "A=<ip>x",
        ] {
            assert!(bad.parse::<EnvPattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn t1_a_value_may_be_bound_to_a_form() {
        let pod_ip = env("POD_IP=<ip>");
        assert!(pod_ip.allows("POD_IP", "10.0.0.1") && !pod_ip.allows("POD_IP", "$(id)"));
        assert!(!pod_ip.allows("POD_IPS", "10.0.0.1"));
        let services = env("KUBERNETES_*=<service>");
        assert!(services.allows("KUBERNETES_SERVICE_HOST", "10.96.0.1"));
        assert!(!services.allows("KUBERNETES_SERVICE_HOST", "evil.example") && !env("*=<text>").is_any());
        for pattern in ["POD_IP=<ip>", "A_*", "*=<text>"] {
            assert_eq!(env(pattern).to_string(), pattern);
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
