//! The three files that every C library reads, checked line by line.
//!
//! The host writes them in Kubernetes. It may name any address, since it is the network anyway; but what it writes must be
//! what it claims, and a parser of forty years must not be fed anything else.

use std::net::IpAddr;

use cella_policy::VolumeKind;

use super::VolumeError;

/// Refuses a file of kind hosts, hostname or resolv-conf that has other lines than such a file has. Others pass.
pub(super) fn check(kind: VolumeKind, bytes: &[u8]) -> Result<(), VolumeError> {
    let is_good: fn(&str) -> bool = match kind {
        VolumeKind::Hosts => |line| is_comment(line) || is_hosts_line(line),
        VolumeKind::Hostname => is_hostname,
        VolumeKind::ResolvConf => |line| is_comment(line) || is_resolver_line(line),
        _ => return Ok(()),
    };
    let refused = |line| VolumeError::Line { kind, line };
    if bytes.len() > MAX_TEXT {
        return Err(VolumeError::Form {
            kind,
            rule: "is at most 64 KiB",
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| refused(1))?;
    for (number, line) in (1..).zip(text.lines()) {
        if !line.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) || !is_good(line) {
            return Err(refused(number));
        }
    }
    if kind == VolumeKind::Hostname && text.lines().count() != 1 {
        return Err(refused(1));
    }
    Ok(())
}

/// Whether `name` is a host name: labels of letters, digits and hyphens, at most 64 bytes, which is what the kernel keeps.
pub fn is_hostname(name: &str) -> bool {
    name.len() <= 64 && is_domain(name)
}

/// Whether `name` is a domain's name as a resolver takes it, underscores of service names included.
pub fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(label)
}

/// Whether `option` is a word that may stand after `options` of a resolv.conf: `ndots:5`, `single-request`.
pub fn is_resolver_option(option: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte);
    (1..=64).contains(&option.len()) && option.bytes().all(plain)
}

fn is_comment(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with(['#', ';'])
}

/// `10.0.0.1 name name`, and a comment behind it.
fn is_hosts_line(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let address = words.next().is_some_and(|word| word.parse::<IpAddr>().is_ok());
    let mut names = words.peekable();
    address && names.peek().is_some() && names.all(is_domain)
}

fn is_resolver_line(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let keyword = words.next().unwrap_or_default();
    let mut words = words.peekable();
    match keyword {
        "nameserver" => {
            // A link-local server names its interface behind a percent sign.
            let is_server = |word: &str| {
                word.split('%')
                    .next()
                    .is_some_and(|address| address.parse::<IpAddr>().is_ok())
            };
            words.next().is_some_and(is_server) && words.next().is_none()
        }
        "search" | "domain" => words.all(|word| word == "." || is_domain(word)),
        "options" => words.all(is_resolver_option),
        _ => false,
    }
}

/// Bytes of such a file.
const MAX_TEXT: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn good(kind: VolumeKind, text: &str) -> bool {
        check(kind, text.as_bytes()).is_ok()
    }

    #[test]
    fn what_kubelet_writes_passes() {
        let hosts = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\nfe00::0\tip6-localnet\n\
                     10.0.0.7\tpod-1\n\n# Entries added by HostAliases.\n1.2.3.4\tfoo.local\tbar_1.local # x\n";
        assert!(good(VolumeKind::Hosts, hosts));
        let resolver = "search default.svc.cluster.local svc.cluster.local .\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\n\
                        options ndots:5 edns0\n";
        assert!(good(VolumeKind::ResolvConf, resolver));
        assert!(good(VolumeKind::ResolvConf, ""));
        assert!(good(VolumeKind::Hostname, "pod-1\n"));
        assert!(good(VolumeKind::ConfigMap, "\u{1}anything"));
    }

    #[test]
    fn t10_text_that_is_not_what_it_claims_is_refused() {
        for bad in [
            "localhost 127.0.0.1",
            "10.0.0.1",
            "10.0.0.1 a\u{1b}[2J",
            "10.0.0.1 a/b",
            "10.0.0.1 é",
        ] {
            assert!(!good(VolumeKind::Hosts, bad), "{bad:?}");
        }
        for bad in [
            "nameserver x",
            "nameserver 1.1.1.1 2.2.2.2",
            "options a=b",
            "include /etc/passwd",
            "search a;b",
        ] {
            assert!(!good(VolumeKind::ResolvConf, bad), "{bad:?}");
        }
        for bad in ["", "a\nb\n", "-a", "a b", &"a".repeat(65)] {
            assert!(!good(VolumeKind::Hostname, bad), "{bad:?}");
        }
        assert!(!good(VolumeKind::Hosts, &"127.0.0.1 localhost\n".repeat(4000)));
        assert!(check(VolumeKind::Hosts, b"\xff\xff").is_err());
    }
}
