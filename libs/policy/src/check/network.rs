//! The rules for connections: whom containers may speak to, and which ports clients may use. In the guest programs in the kernel
//! judge by the same policy, packet by packet; this is for saying beforehand what comes of it.

use std::net::IpAddr;

use super::{Denial, shown_list};
use crate::policy::{Destination, NetworkPolicy, Port, Protocol};

/// Whether a container may begin to speak to somebody beyond the pod. ICMP has no port.
///
/// # Errors
/// [`Denial::Connect`], with whom it may speak to.
pub fn check_egress(network: &NetworkPolicy, to: IpAddr, protocol: Protocol, port: u16) -> Result<(), Denial> {
    let to = to.to_canonical();
    if network
        .egress
        .allows(|list| list.iter().any(|one| one.names(to, protocol, port)))
    {
        return Ok(());
    }
    Err(Denial::Connect {
        to,
        protocol,
        port,
        allowed: shown_list(network.egress.only().into_iter().flatten()),
    })
}

/// Whether clients may use a port of the pod's, once every required container is there.
///
/// # Errors
/// [`Denial::Client`], with the ports that they may use.
pub fn check_ingress(network: &NetworkPolicy, port: Port) -> Result<(), Denial> {
    if network.ingress.allows(|ports| ports.contains(&port)) {
        return Ok(());
    }
    Err(Denial::Client {
        port,
        allowed: shown_list(network.ingress.only().into_iter().flatten()),
    })
}

impl Destination {
    /// Whether it is this address and port.
    pub fn names(&self, to: IpAddr, protocol: Protocol, port: u16) -> bool {
        let is_within = match (self.address, to) {
            (IpAddr::V4(network), IpAddr::V4(to)) => {
                let mask = u32::MAX
                    .checked_shl(32_u32.saturating_sub(self.prefix.into()))
                    .unwrap_or(0);
                network.to_bits() == to.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(to)) => {
                let mask = u128::MAX
                    .checked_shl(128_u32.saturating_sub(self.prefix.into()))
                    .unwrap_or(0);
                network.to_bits() == to.to_bits() & mask
            }
            _ => false,
        };
        is_within && protocol == self.protocol && self.ports.allows(|ports| ports.contains(&port))
    }
}
