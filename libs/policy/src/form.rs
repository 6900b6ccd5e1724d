//! Forms of values that the cluster gives a variable: what may be said is bounded where the value itself cannot be known.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// What a value may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// An address of IPv4 or IPv6.
    Ip,
    /// One or more of them, with commas between.
    Ips,
    /// A name as hosts, pods and namespaces have it: letters, digits, `-` and `.`, at most 253.
    HostName,
    /// A number from 0 on.
    Integer,
    /// What Kubernetes says of a service: an address, a port, a protocol, or `tcp://ADDRESS:PORT`.
    Service,
    /// A UUID.
    Uid,
    /// At most 4096 printable characters.
    Text,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ip,
        Self::Ips,
        Self::HostName,
        Self::Integer,
        Self::Service,
        Self::Uid,
        Self::Text,
    ];

    /// Its name in policies, without the angle brackets.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ips => "ips",
            Self::HostName => "host-name",
            Self::Integer => "integer",
            Self::Service => "service",
            Self::Uid => "uid",
            Self::Text => "text",
        }
    }

    /// Whether `value` has it.
    pub fn fits(self, value: &str) -> bool {
        if value.len() > MAX_VALUE || value.chars().any(char::is_control) {
            return false;
        }
        match self {
            Self::Ip => value.parse::<IpAddr>().is_ok(),
            Self::Ips => value.split(',').all(|one| one.parse::<IpAddr>().is_ok()),
            Self::HostName => is_host_name(value),
            Self::Integer => is_number(value, 20),
            Self::Service => is_of_a_service(value),
            Self::Uid => is_uuid(value),
            Self::Text => true,
        }
    }
}

fn is_host_name(value: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_plain) && !label.starts_with('-');
    value.len() <= 253 && value.split('.').all(is_label)
}

fn is_number(value: &str, most: usize) -> bool {
    (1..=most).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit())
}

/// The values of `NAME_SERVICE_HOST`, `NAME_PORT_80_TCP_PROTO` and their like.
fn is_of_a_service(value: &str) -> bool {
    let protocols = ["tcp", "udp", "sctp"];
    protocols.contains(&value)
        || is_number(value, 5)
        || value.parse::<IpAddr>().is_ok()
        || value
            .split_once("://")
            .is_some_and(|(protocol, address)| protocols.contains(&protocol) && address.parse::<SocketAddr>().is_ok())
}

fn is_uuid(value: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let parts: Vec<&str> = value.split('-').collect();
    let is_part = |(part, length): (&&str, usize)| part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit());
    parts.len() == lengths.len() && parts.iter().zip(lengths).all(is_part)
}

impl FromStr for Form {
    type Err = ();

    /// `<ip>`, with its angle brackets.
    fn from_str(text: &str) -> Result<Self, ()> {
        let name = text
            .strip_prefix('<')
            .and_then(|text| text.strip_suffix('>'))
            .ok_or(())?;
        Self::ALL.into_iter().find(|form| form.as_str() == name).ok_or(())
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

const MAX_VALUE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_form_or_not() {
        for (form, good, bad) in [
            (
                Form::Ip,
                &["10.0.0.1", "fd00::1"][..],
                &["10.0.0", "", "10.0.0.1,10.0.0.2", "a", "10.0.0.1 "][..],
            ),
            (Form::Ips, &["10.0.0.1", "10.0.0.1,fd00::1"], &["", "10.0.0.1,", "x"]),
            (
                Form::HostName,
                &["web-0", "a.b.c", "ip-10-0-0-1.ec2"],
                &["", "-a", "a..b", "a b", "$(x)", "a/b", "a_b"],
            ),
            (
                Form::Integer,
                &["0", "12345"],
                &["", "-1", "1.5", "0x1", "123456789012345678901"],
            ),
            (
                Form::Service,
                &["10.96.0.1", "443", "tcp", "tcp://10.96.0.1:443", "udp://[fd00::1]:53"],
                &[
                    "",
                    "http://10.96.0.1:443",
                    "tcp://kubernetes:443",
                    "123456",
                    "/bin/sh",
                    "tcp://10.96.0.1",
                ],
            ),
            (
                Form::Uid,
                &["6d1b3c39-4b0c-4b0e-9f63-2a63ba0b6e50"],
                &["", "6d1b3c39", "6d1b3c39-4b0c-4b0e-9f63-2a63ba0b6e5g"],
            ),
            (Form::Text, &["", "any thing"], &["a\nb", "\u{1b}[31m"]),
        ] {
            for value in good {
                assert!(form.fits(value), "{form} {value:?}");
            }
            for value in bad {
                assert!(!form.fits(value), "{form} {value:?}");
            }
            assert_eq!(form.to_string().parse(), Ok(form));
            assert!(!form.fits(&"1".repeat(5000)), "{form}");
        }
        assert!("ip".parse::<Form>().is_err() && "<other>".parse::<Form>().is_err());
    }
}
