//! What CNI told the interfaces of the namespace: addresses, routes, permanent neighbours; the guest is told the same.
//!
//! Left out: link-local IPv6 addresses, which the guest makes itself; what the kernel adds to an address by itself (the route
//! to its network, multicast); routes other than unicast of the main table. Of several routes to one place the one with the
//! lowest metric counts, of several ways of one route the first.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::NetworkError;
use super::link::Link;
use super::netlink::{Attributes, Netlink, NetlinkError, Request, attribute, u8_at, u16_at, u32_at};

/// Most routes, and most addresses or neighbours of one interface: what the agent takes.
const MAX_ITEMS: usize = 32;

const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A pod's network as its guest shall have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodNetwork {
    /// In the order of the guest's cards.
    pub interfaces: Vec<Interface>,
    /// Those on the link first: a gateway may be reachable only through one of them.
    pub routes: Vec<Route>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// As CNI calls it, "eth0".
    pub name: String,
    /// Of the interface and of the guest's card.
    pub mac: Mac,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<Prefix>,
    /// Who answers no ARP or neighbour discovery.
    pub neighbours: Vec<(IpAddr, Mac)>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Prefix,
    /// Through whom; none: on the link.
    pub gateway: Option<IpAddr>,
    /// By which interface.
    pub interface: String,
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

/// An address and how much of it is the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// Bits, at most 32 or 128.
    pub length: u8,
}

impl PodNetwork {
    /// Reads the addresses, routes and neighbours of `links` in the namespace of the calling thread.
    pub(super) fn read(netlink: &mut Netlink, links: &[Link]) -> Result<Self, NetworkError> {
        let addresses = dump(netlink, "list addresses", RTM_GETADDR, &[0; 8], FoundAddress::parse)?;
        let routes = dump(netlink, "list routes", RTM_GETROUTE, &[0; 12], FoundRoute::parse)?;
        let neighbours = dump(
            netlink,
            "list neighbours",
            RTM_GETNEIGH,
            &[0; 12],
            FoundNeighbour::parse,
        )?;
        let network = assemble(links, &addresses, &routes, &neighbours);
        for interface in &network.interfaces {
            bounded("addresses on an interface", &interface.addresses)?;
            bounded("permanent neighbours on an interface", &interface.neighbours)?;
        }
        bounded("routes", &network.routes)?;
        Ok(network)
    }
}

impl Prefix {
    /// The address alone.
    fn host(address: IpAddr) -> Self {
        let length = if address.is_ipv4() { 32 } else { 128 };
        Self { address, length }
    }

    /// The bits that count, from the top of 128.
    fn network(&self) -> (bool, u128) {
        let (bits, width) = match self.address {
            IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        let kept = u32::from(self.length.min(width));
        let mask = u128::MAX.checked_shl(128 - kept).unwrap_or(0);
        (self.address.is_ipv4(), bits & mask)
    }

    fn contains(&self, address: IpAddr) -> bool {
        let length = self.length;
        Self { address, length }.network() == self.network()
    }

    fn same_network(&self, other: &Self) -> bool {
        self.length == other.length && self.network() == other.network()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FoundAddress {
    link: u32,
    prefix: Prefix,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FoundRoute {
    link: u32,
    destination: Prefix,
    gateway: Option<IpAddr>,
    metric: u32,
    /// Made by the kernel for an address.
    automatic: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FoundNeighbour {
    link: u32,
    address: IpAddr,
    mac: Mac,
}

impl FoundAddress {
    /// From an RTM_NEWADDR: `struct ifaddrmsg`, 8 bytes.
    fn parse(payload: &[u8]) -> Option<Self> {
        const FIXED: usize = 8;
        const IFA_ADDRESS: u16 = 1;
        const IFA_LOCAL: u16 = 2;
        const IFA_FLAGS: u16 = 8;
        const DAD_FAILED: u32 = 0x08;
        let family = u8_at(payload, 0)?;
        let flags = attribute(payload, FIXED, IFA_FLAGS).and_then(|value| u32_at(value, 0));
        // On a point-to-point link IFA_ADDRESS is the other end's.
        let own = attribute(payload, FIXED, IFA_LOCAL).or_else(|| attribute(payload, FIXED, IFA_ADDRESS))?;
        let prefix = prefix(family, own, u8_at(payload, 1)?)?;
        let unusable = flags.unwrap_or(0) & DAD_FAILED != 0 || is_link_local_v6(prefix.address);
        (!unusable).then_some(Self {
            link: u32_at(payload, 4)?,
            prefix,
        })
    }
}

impl FoundRoute {
    /// From an RTM_NEWROUTE: `struct rtmsg`, 12 bytes.
    fn parse(payload: &[u8]) -> Option<Self> {
        const FIXED: usize = 12;
        const RTA_DST: u16 = 1;
        const RTA_OIF: u16 = 4;
        const RTA_PRIORITY: u16 = 6;
        const RTA_MULTIPATH: u16 = 9;
        const RTA_TABLE: u16 = 15;
        const MAIN: u32 = 254;
        const UNICAST: u8 = 1;
        const KERNEL: u8 = 2;
        const CLONED: u32 = 0x200;
        let number = |kind| attribute(payload, FIXED, kind).and_then(|value| u32_at(value, 0));
        let family = u8_at(payload, 0)?;
        let table = number(RTA_TABLE).unwrap_or(u32::from(u8_at(payload, 4)?));
        if table != MAIN || u8_at(payload, 7)? != UNICAST || u32_at(payload, 8)? & CLONED != 0 {
            return None;
        }
        let everywhere: &[u8] = match family {
            AF_INET => &[0; 4],
            _ => &[0; 16],
        };
        let destination = attribute(payload, FIXED, RTA_DST).unwrap_or(everywhere);
        let destination = prefix(family, destination, u8_at(payload, 1)?)?;
        if destination.address.is_multicast() || is_link_local_v6(destination.address) {
            return None;
        }
        let (link, gateway) = match attribute(payload, FIXED, RTA_MULTIPATH) {
            // struct rtnexthop: length, flags, hops, interface; then attributes.
            Some(hops) => (
                u32_at(hops, 4)?,
                gateway(family, hops.get(..usize::from(u16_at(hops, 0)?))?, 8),
            ),
            None => (number(RTA_OIF)?, gateway(family, payload, FIXED)),
        };
        Some(Self {
            link,
            destination,
            gateway,
            metric: number(RTA_PRIORITY).unwrap_or(0),
            automatic: u8_at(payload, 5)? == KERNEL,
        })
    }
}

impl FoundNeighbour {
    /// From an RTM_NEWNEIGH: `struct ndmsg`, 12 bytes.
    fn parse(payload: &[u8]) -> Option<Self> {
        const FIXED: usize = 12;
        const NDA_DST: u16 = 1;
        const NDA_LLADDR: u16 = 2;
        const PERMANENT: u16 = 0x80;
        if u16_at(payload, 8)? & PERMANENT == 0 {
            return None;
        }
        Some(Self {
            link: u32_at(payload, 4)?,
            address: address(u8_at(payload, 0)?, attribute(payload, FIXED, NDA_DST)?)?,
            mac: Mac(attribute(payload, FIXED, NDA_LLADDR)?.try_into().ok()?),
        })
    }
}

/// A next hop; of an IPv4 route it may be an IPv6 address (RTA_VIA).
fn gateway(family: u8, payload: &[u8], fixed: usize) -> Option<IpAddr> {
    const RTA_GATEWAY: u16 = 5;
    const RTA_VIA: u16 = 18;
    if let Some(value) = attribute(payload, fixed, RTA_GATEWAY) {
        return address(family, value);
    }
    let via = attribute(payload, fixed, RTA_VIA)?;
    address(u8::try_from(u16_at(via, 0)?).ok()?, via.get(2..)?)
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

fn prefix(family: u8, bytes: &[u8], length: u8) -> Option<Prefix> {
    let address = address(family, bytes)?;
    (length <= Prefix::host(address).length).then_some(Prefix { address, length })
}

fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn dump<T>(
    netlink: &mut Netlink,
    action: &'static str,
    kind: u16,
    fixed: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, NetlinkError> {
    let request = Request {
        action,
        kind,
        flags: 0,
        fixed,
        attributes: Attributes::new(),
    };
    netlink.list(&request, read)
}

fn bounded<T>(what: &'static str, items: &[T]) -> Result<(), NetworkError> {
    if items.len() > MAX_ITEMS {
        return Err(NetworkError::TooMany { what, limit: MAX_ITEMS });
    }
    Ok(())
}

fn assemble(
    links: &[Link],
    addresses: &[FoundAddress],
    routes: &[FoundRoute],
    neighbours: &[FoundNeighbour],
) -> PodNetwork {
    let interfaces: Vec<Interface> = links
        .iter()
        .filter_map(|link| {
            let of_link = addresses.iter().filter(|found| found.link == link.index);
            Some(Interface {
                name: link.name.clone(),
                mac: Mac(link.mac?),
                mtu: link.mtu,
                addresses: of_link.map(|found| settled(found, routes)).collect(),
                neighbours: neighbours
                    .iter()
                    .filter(|found| found.link == link.index)
                    .map(|found| (found.address, found.mac))
                    .collect(),
            })
        })
        .collect();
    let mut found: Vec<&FoundRoute> = routes.iter().filter(|route| !route.automatic).collect();
    found.sort_by_key(|route| route.metric);
    let mut chosen: Vec<Route> = Vec::new();
    for route in found {
        let Some(link) = links.iter().find(|link| link.index == route.link) else {
            continue;
        };
        if chosen
            .iter()
            .any(|other| other.destination.same_network(&route.destination))
        {
            continue;
        }
        chosen.push(Route {
            destination: route.destination,
            gateway: route.gateway,
            interface: link.name.clone(),
        });
    }
    for (gateway, interface) in unreachable_gateways(&interfaces, &chosen) {
        chosen.push(Route {
            destination: Prefix::host(gateway),
            gateway: None,
            interface,
        });
    }
    chosen.sort_by_key(|route| route.gateway.is_some());
    PodNetwork {
        interfaces,
        routes: chosen,
    }
}

/// The address as the guest shall set it. Where the plugin has removed the route to the address's network (`ptp` does, and
/// reaches its neighbours through the gateway), the guest's kernel must not make one either: the address stands alone.
fn settled(found: &FoundAddress, routes: &[FoundRoute]) -> Prefix {
    let on_link = routes
        .iter()
        .any(|route| route.link == found.link && route.automatic && route.destination.same_network(&found.prefix));
    if on_link {
        found.prefix
    } else {
        Prefix::host(found.prefix.address)
    }
}

/// Gateways that neither an address's network nor a route on the link covers ("onlink" routes).
fn unreachable_gateways(interfaces: &[Interface], routes: &[Route]) -> Vec<(IpAddr, String)> {
    let mut found: Vec<(IpAddr, String)> = Vec::new();
    for route in routes {
        let Some(gateway) = route.gateway else { continue };
        let by_address = interfaces
            .iter()
            .filter(|interface| interface.name == route.interface)
            .flat_map(|interface| &interface.addresses)
            .any(|prefix| prefix.contains(gateway));
        let by_route = routes.iter().any(|other| {
            other.gateway.is_none() && other.interface == route.interface && other.destination.contains(gateway)
        });
        let known = found.iter().any(|(other, _)| *other == gateway);
        if !by_address && !by_route && !known && !is_link_local_v6(gateway) {
            found.push((gateway, route.interface.clone()));
        }
    }
    found
}

#[cfg(test)]
mod tests;
