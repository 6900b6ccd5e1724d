//! What the host asks for, parsed: every address is an address, every name a name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cella_protos::agent::{ConfigureNetworkRequest, Interface, Route};

use crate::{
    untrusted::shown,
    volume::text::{is_domain, is_resolver_option},
};

/// A network that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkPlan {
    /// Interfaces besides the loopback.
    pub interfaces: Vec<InterfacePlan>,
    /// Routes, those without a gateway first: a gateway may be reachable only through one of them.
    pub routes: Vec<RoutePlan>,
    /// Name servers, at most three, which is what a C library looks at.
    pub name_servers: Vec<IpAddr>,
    /// Domains that short names are looked for in.
    pub search_domains: Vec<String>,
    /// Words for the resolver, such as `ndots:5`.
    pub resolver_options: Vec<String>,
    /// The pod's host name; empty = none given.
    pub hostname: String,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfacePlan {
    /// What it shall be called.
    pub name: String,
    /// What it is found by.
    pub hardware_address: [u8; 6],
    /// Its addresses.
    pub addresses: Vec<AddressPlan>,
    /// Its MTU; `None` = as it is.
    pub mtu: Option<u16>,
    /// Neighbours that need not answer.
    pub neighbours: Vec<Neighbour>,
}

/// Somebody on the link whose hardware address is known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Where frames to it go.
    pub hardware_address: [u8; 6],
}

/// An address with the length of its network prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPlan {
    /// The address.
    pub address: IpAddr,
    /// Prefix length, at most 32 or 128.
    pub prefix: u8,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePlan {
    /// Where to; prefix 0 = everywhere.
    pub destination: AddressPlan,
    /// Through whom; `None` = on the link. Same family as the destination.
    pub gateway: Option<IpAddr>,
    /// By which interface.
    pub interface: String,
}

impl NetworkPlan {
    /// Checks a request.
    pub fn parse(request: &ConfigureNetworkRequest) -> Result<Self, PlanError> {
        for (what, count) in [
            ("interfaces", request.interfaces.len()),
            ("routes", request.routes.len()),
            ("name servers", request.name_servers.len()),
            ("search domains", request.search_domains.len()),
            ("resolver options", request.resolver_options.len()),
        ] {
            if count > MAX_ITEMS {
                return Err(PlanError::TooMany { what, count });
            }
        }
        let interfaces: Vec<InterfacePlan> = request.interfaces.iter().map(interface).collect::<Result<_, _>>()?;
        let mut routes: Vec<RoutePlan> = request.routes.iter().map(route).collect::<Result<_, _>>()?;
        for route in &routes {
            if !interfaces.iter().any(|interface| interface.name == route.interface) {
                return Err(PlanError::UnknownInterface {
                    name: shown(&route.interface),
                });
            }
        }
        routes.sort_by_key(|route| route.gateway.is_some());
        let name_servers = request
            .name_servers
            .iter()
            .take(MAX_NAME_SERVERS)
            .map(|text| address(text));
        Ok(Self {
            interfaces,
            routes,
            name_servers: name_servers.collect::<Result<_, _>>()?,
            search_domains: words(&request.search_domains, "search domain", |word| {
                word == "." || is_domain(word)
            })?,
            resolver_options: words(&request.resolver_options, "resolver option", is_resolver_option)?,
            hostname: hostname(&request.hostname)?,
        })
    }

    /// `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> String {
        let line = |keyword: &str, words: &[String]| match words {
            [] => String::new(),
            words => format!("{keyword} {}\n", words.join(" ")),
        };
        let servers = self.name_servers.iter().map(|server| format!("nameserver {server}\n"));
        let mut text = line("search", &self.search_domains);
        text.extend(servers);
        text + &line("options", &self.resolver_options)
    }

    /// `/etc/hosts` for something that is called `hostname`.
    pub fn hosts(&self, hostname: &str) -> String {
        let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
        if !hostname.is_empty() {
            for address in self.interfaces.iter().flat_map(|interface| &interface.addresses) {
                text += &format!("{} {hostname}\n", address.address);
            }
        }
        text
    }
}

/// What is wrong with a description of a network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// More of something than a pod has.
    #[error("{count} {what} are described; {MAX_ITEMS} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// Not an interface's name.
    #[error("{name} is not the name of an interface: 1 to 15 letters, digits, _ . -")]
    Name {
        /// What was given.
        name: String,
    },
    /// A route through an interface that is not described.
    #[error("a route goes through interface {name}, which is not described")]
    UnknownInterface {
        /// What was given.
        name: String,
    },
    /// Not six bytes in hexadecimal.
    #[error("{text} is not a hardware address, such as 02:00:00:00:00:01")]
    HardwareAddress {
        /// What was given.
        text: String,
    },
    /// Not an address.
    #[error("{text} is not an IP address, or not one with a prefix length where that is needed")]
    Address {
        /// What was given.
        text: String,
    },
    /// Destination and gateway are of different families.
    #[error("the gateway {gateway} is of another family than its route's destination")]
    Family {
        /// What was given.
        gateway: IpAddr,
    },
    /// Outside what an interface can have.
    #[error("an MTU of {mtu} is outside 576 to 65535")]
    Mtu {
        /// What was given.
        mtu: u32,
    },
    /// Not a word that may stand in a resolv.conf.
    #[error("{text} is not a {what}")]
    Resolver {
        /// What it should be.
        what: &'static str,
        /// What was given.
        text: String,
    },
    /// Not a host name.
    #[error("{name} is not a host name")]
    Hostname {
        /// What was given.
        name: String,
    },
}

fn interface(given: &Interface) -> Result<InterfacePlan, PlanError> {
    let mtu = match given.mtu {
        0 => None,
        mtu => Some(
            u16::try_from(mtu)
                .ok()
                .filter(|mtu| *mtu >= 576)
                .ok_or(PlanError::Mtu { mtu })?,
        ),
    };
    for (what, count) in [
        ("addresses", given.addresses.len()),
        ("neighbours", given.neighbours.len()),
    ] {
        if count > MAX_ITEMS {
            return Err(PlanError::TooMany { what, count });
        }
    }
    Ok(InterfacePlan {
        name: interface_name(&given.name)?,
        hardware_address: hardware_address(&given.hardware_address)?,
        addresses: given
            .addresses
            .iter()
            .map(|text| cidr(text))
            .collect::<Result<_, _>>()?,
        mtu,
        neighbours: given
            .neighbours
            .iter()
            .map(|text| neighbour(text))
            .collect::<Result<_, _>>()?,
    })
}

/// `10.0.0.1 02:00:00:00:00:01`.
fn neighbour(text: &str) -> Result<Neighbour, PlanError> {
    let (ip, hardware) = text
        .split_once(' ')
        .ok_or_else(|| PlanError::Address { text: shown(text) })?;
    Ok(Neighbour {
        address: address(ip)?,
        hardware_address: hardware_address(hardware)?,
    })
}

/// Words of a resolv.conf, each of the right form.
fn words(given: &[String], what: &'static str, is_good: fn(&str) -> bool) -> Result<Vec<String>, PlanError> {
    match given.iter().find(|word| !is_good(word)) {
        Some(word) => Err(PlanError::Resolver {
            what,
            text: shown(word),
        }),
        None => Ok(given.to_vec()),
    }
}

fn route(given: &Route) -> Result<RoutePlan, PlanError> {
    let gateway = match given.gateway.as_str() {
        "" => None,
        text => Some(address(text)?),
    };
    let destination = match (given.destination.as_str(), gateway) {
        ("", Some(IpAddr::V6(_))) => AddressPlan {
            address: Ipv6Addr::UNSPECIFIED.into(),
            prefix: 0,
        },
        ("", _) => AddressPlan {
            address: Ipv4Addr::UNSPECIFIED.into(),
            prefix: 0,
        },
        (text, _) => cidr(text)?,
    };
    if let Some(gateway) = gateway.filter(|gateway| gateway.is_ipv4() != destination.address.is_ipv4()) {
        return Err(PlanError::Family { gateway });
    }
    Ok(RoutePlan {
        destination,
        gateway,
        interface: interface_name(&given.interface)?,
    })
}

fn interface_name(name: &str) -> Result<String, PlanError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let is_name = (1..=15).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.') && name != "lo";
    if is_name {
        Ok(name.to_owned())
    } else {
        Err(PlanError::Name { name: shown(name) })
    }
}

fn hardware_address(text: &str) -> Result<[u8; 6], PlanError> {
    let refused = || PlanError::HardwareAddress { text: shown(text) };
    let mut parts = text.split(':');
    let mut address = [0; 6];
    for byte in &mut address {
        let is_byte = |part: &&str| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        let part = parts.next().filter(is_byte).ok_or_else(refused)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| refused())?;
    }
    if parts.next().is_some() {
        Err(refused())
    } else {
        Ok(address)
    }
}

fn address(text: &str) -> Result<IpAddr, PlanError> {
    text.parse().map_err(|_| PlanError::Address { text: shown(text) })
}

fn cidr(text: &str) -> Result<AddressPlan, PlanError> {
    let refused = || PlanError::Address { text: shown(text) };
    let (address, prefix) = text.split_once('/').ok_or_else(refused)?;
    let address: IpAddr = address.parse().map_err(|_| refused())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix
        .parse()
        .ok()
        .filter(|prefix| *prefix <= longest)
        .ok_or_else(refused)?;
    Ok(AddressPlan { address, prefix })
}

fn hostname(name: &str) -> Result<String, PlanError> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.is_empty() || (name.len() <= 64 && name.split('.').all(label)) {
        Ok(name.to_owned())
    } else {
        Err(PlanError::Hostname { name: shown(name) })
    }
}

/// Interfaces, routes, name servers, search domains and options; addresses and neighbours of an interface.
const MAX_ITEMS: usize = 32;

const MAX_NAME_SERVERS: usize = 3;

#[cfg(test)]
mod tests;
