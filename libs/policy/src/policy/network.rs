//! Whom the pod's containers may speak to, and who may speak to them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::Deserialize;

use super::Rule;
use crate::names::NameError;

/// The network of the pod's containers. The agent's own connections, to key broker and registries, are no part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Whom they may speak to.
    pub egress: Rule<Vec<Destination>>,
    /// Ports on which clients may speak to them, once every required container is there.
    pub ingress: Rule<BTreeSet<Port>>,
}

/// A network and ports in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its first address: no bit beyond the prefix is set.
    pub address: IpAddr,
    /// Length of its prefix.
    pub prefix: u8,
    /// By which protocol.
    pub protocol: Protocol,
    /// Which ports; any for ICMP, which has none.
    pub ports: Rule<BTreeSet<u16>>,
}

/// A port of the pod's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Port {
    /// Its number, never 0.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// What is spoken over IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, and ICMPv6 where the address is of IPv6.
    Icmp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// Its name in policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

impl FromStr for Protocol {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let found = Self::ALL.into_iter().find(|protocol| protocol.as_str() == text);
        found.ok_or_else(|| NameError::new("protocol", text, "must be tcp, udp or icmp"))
    }
}

impl FromStr for Port {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::new("port", text, "must be 1 to 65535 and /tcp or /udp: \"8080/tcp\"");
        let (port, protocol) = text.split_once('/').ok_or_else(wrong)?;
        let is_number = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port
            .parse()
            .ok()
            .filter(|port| is_number && *port != 0)
            .ok_or_else(wrong)?;
        match protocol.parse() {
            Ok(protocol @ (Protocol::Tcp | Protocol::Udp)) => Ok(Self { port, protocol }),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Port {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

/// An address, or a network as `address/prefix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
}

impl FromStr for Network {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = |rule| NameError::new("network", text, rule);
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| {
            wrong("must be an IP address or ADDRESS/PREFIX: what a name stands for is the host's to say, so names are not taken")
        })?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(text) => {
                let number = text.parse().ok().filter(|number| *number <= longest);
                number.ok_or_else(|| wrong("its prefix must be 0 to 32, or to 128 for IPv6"))?
            }
        };
        if first(address, prefix) != address {
            return Err(wrong("has bits beyond its prefix: write the network's first address"));
        }
        if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err(wrong("is an address of IPv4: write it as one"));
        }
        Ok(Self { address, prefix })
    }
}

/// The first address of the network.
fn first(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128_u32.saturating_sub(prefix.into()))
                .unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)?;
        match (&self.ports, self.protocol) {
            (_, Protocol::Icmp) => write!(f, " icmp"),
            (Rule::Any, protocol) => write!(f, " {protocol} any port"),
            (Rule::Only(ports), protocol) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                write!(f, " {protocol} {}", ports.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_addresses_and_never_names() {
        let network = |text: &str| text.parse::<Network>().map(|network| network.to_string());
        assert_eq!(network("10.0.0.0/8").unwrap(), "10.0.0.0/8");
        assert_eq!(network("10.1.2.3").unwrap(), "10.1.2.3/32");
        assert_eq!(network("fd00::/8").unwrap(), "fd00::/8");
        assert_eq!(network("0.0.0.0/0").unwrap(), "0.0.0.0/0");
        for (bad, words) in [
            ("kbs.example", "names are not taken"),
            ("10.0.0.1/8", "bits beyond its prefix"),
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0.0/", "0 to 32"),
            ("fd00::1/8", "bits beyond its prefix"),
            ("::ffff:10.0.0.1", "write it as one"),
            ("", "names are not taken"),
        ] {
            let error = network(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn ports_have_a_protocol() {
        assert_eq!("8080/tcp".parse::<Port>().unwrap().to_string(), "8080/tcp");
        for bad in [
            "8080",
            "0/tcp",
            "65536/tcp",
            "080/tcp",
            "8080/icmp",
            "8080/TCP",
            "+1/tcp",
            "/tcp",
        ] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
    }
}
