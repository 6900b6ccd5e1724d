//! Ports of the host that lead into the guest: the annotation `io.cella.ports`, user-mode network only.

use std::net::Ipv4Addr;

/// Annotation that carries the forwards: `host address:host port:guest port`, separated by commas.
pub const ANNOTATION: &str = "io.cella.ports";
/// Most forwards that one pod may have.
pub const MAX_FORWARDS: usize = 16;

/// One TCP port of the host's loopback that leads to a port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortForward {
    /// Address on the host, always loopback.
    pub host: Ipv4Addr,
    /// Port on the host, not 0.
    pub host_port: u16,
    /// Port in the guest, not 0.
    pub guest_port: u16,
}

/// A forward that is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortsError {
    /// Not `address:port:port`.
    #[error("annotation io.cella.ports: {item:?} is not <host address>:<host port>:<guest port>")]
    Form {
        /// The item, made printable.
        item: String,
    },
    /// Reachable from other machines.
    #[error(
        "annotation io.cella.ports: {address} is not a loopback address; forwards leave the node only through a pod network"
    )]
    NotLoopback {
        /// The address that was asked for.
        address: Ipv4Addr,
    },
    /// Twice the same port of the host.
    #[error("annotation io.cella.ports: host port {address}:{port} is named twice")]
    Duplicate {
        /// Address on the host.
        address: Ipv4Addr,
        /// Port on the host.
        port: u16,
    },
    /// The pod has an address of its own.
    #[error(
        "annotation io.cella.ports works without a pod network only, and this pod has one: \
         remove the annotation and reach the pod by its address, a Service or a hostPort"
    )]
    PodNetwork,
    /// Too many items.
    #[error("annotation io.cella.ports: at most {MAX_FORWARDS} forwards are allowed")]
    TooMany,
}

/// Reads the annotation's value; blank means no forward.
///
/// # Errors
/// Anything that is not a list of distinct loopback ports, see [`PortsError`].
pub fn parse(value: &str) -> Result<Vec<PortForward>, PortsError> {
    let mut forwards: Vec<PortForward> = Vec::new();
    if value.trim().is_empty() {
        return Ok(forwards);
    }
    for item in value.split(',') {
        if forwards.len() == MAX_FORWARDS {
            return Err(PortsError::TooMany);
        }
        let forward = parse_item(item.trim()).ok_or_else(|| PortsError::Form {
            item: crate::untrusted::printable(item.trim(), 64),
        })?;
        if !forward.host.is_loopback() {
            return Err(PortsError::NotLoopback { address: forward.host });
        }
        if forwards
            .iter()
            .any(|other| (other.host, other.host_port) == (forward.host, forward.host_port))
        {
            return Err(PortsError::Duplicate {
                address: forward.host,
                port: forward.host_port,
            });
        }
        forwards.push(forward);
    }
    Ok(forwards)
}

fn parse_item(item: &str) -> Option<PortForward> {
    let mut parts = item.split(':');
    let forward = PortForward {
        host: parts.next()?.parse().ok()?,
        host_port: port(parts.next()?)?,
        guest_port: port(parts.next()?)?,
    };
    parts.next().is_none().then_some(forward)
}

/// A decimal port without sign or leading zero.
fn port(text: &str) -> Option<u16> {
    let digits_only = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    if digits_only { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_forwards() {
        let expected = [
            PortForward {
                host: Ipv4Addr::LOCALHOST,
                host_port: 18080,
                guest_port: 8080,
            },
            PortForward {
                host: Ipv4Addr::new(127, 0, 0, 2),
                host_port: 18080,
                guest_port: 9090,
            },
        ];
        assert_eq!(parse("127.0.0.1:18080:8080, 127.0.0.2:18080:9090").unwrap(), expected);
        assert_eq!(parse(" ").unwrap(), []);
    }

    #[test]
    fn what_is_not_three_numbers_is_refused() {
        for bad in [
            "x",
            "127.0.0.1:1",
            "127.0.0.1:1:2:3",
            "127.0.0.1:0:1",
            "127.0.0.1:1:65536",
            "127.0.0.1:+1:2",
            ",",
        ] {
            assert!(matches!(parse(bad), Err(PortsError::Form { .. })), "{bad}");
        }
        // Nothing of it reaches QEMU's option syntax.
        assert!(matches!(
            parse("127.0.0.1:1:2-10.0.0.1:22"),
            Err(PortsError::Form { .. })
        ));
    }

    #[test]
    fn other_addresses_and_duplicates_are_refused() {
        assert_eq!(
            parse("0.0.0.0:1:2"),
            Err(PortsError::NotLoopback {
                address: Ipv4Addr::UNSPECIFIED
            })
        );
        let twice = PortsError::Duplicate {
            address: Ipv4Addr::LOCALHOST,
            port: 1,
        };
        assert_eq!(parse("127.0.0.1:1:2,127.0.0.1:1:3"), Err(twice));
        let many = (1..=17)
            .map(|n| format!("127.0.0.1:{n}:1"))
            .collect::<Vec<_>>()
            .join(",");
        assert_eq!(parse(&many), Err(PortsError::TooMany));
    }
}
