//! The rules of `[network]`.

use std::collections::BTreeSet;

use super::{Checked, MAX_TABLES, any_or, count, listed, name, range};
use crate::error::{Place, PolicyError};
use crate::file::{EgressFile, NetworkFile};
use crate::policy::network::Network;
use crate::policy::{Destination, NetworkPolicy, Port, Protocol, Rule};

pub(super) fn network(file: &NetworkFile) -> Checked<NetworkPolicy> {
    let place = Place::new("network");
    let at = place.with("egress");
    let egress = match any_or(&at, &file.egress, "\"any\" or a list of tables")? {
        Rule::Any => Rule::Any,
        Rule::Only(list) => {
            count(&at, list.len(), 0, MAX_TABLES)?;
            let one = |(index, file)| destination(&place.at("egress", index), file);
            let list: Vec<Destination> = list.iter().enumerate().map(one).collect::<Checked<_>>()?;
            let ports = |one: &Destination| one.ports.only().map_or(1, BTreeSet::len);
            count(&at.with("ports"), list.iter().map(ports).sum(), 0, MAX_PORTS)?;
            Rule::Only(list)
        }
    };
    let at = place.with("ingress");
    let ingress = match any_or(&at, &file.ingress, "\"any\" or a list of ports such as \"8080/tcp\"")? {
        Rule::Any => Rule::Any,
        Rule::Only(list) => {
            count(&at, list.len(), 0, MAX_TABLES)?;
            Rule::Only(listed(list, |index, text: &String| {
                name::<Port>(&place.at("ingress", index), text)
            })?)
        }
    };
    Ok(NetworkPolicy { egress, ingress })
}

fn destination(place: &Place, file: &EgressFile) -> Checked<Destination> {
    let Network { address, prefix } = name(&place.with("to"), &file.to)?;
    let protocol: Protocol = name(&place.with("protocol"), &file.protocol)?;
    let at = place.with("ports");
    let ports = match (&file.ports, protocol) {
        (None, Protocol::Icmp) => Rule::Any,
        (Some(_), Protocol::Icmp) => {
            return Err(PolicyError::Text {
                place: at,
                rule: "icmp has no ports: leave them out",
            });
        }
        (None, _) => {
            return Err(PolicyError::Text {
                place: at,
                rule: "must be \"any\" or a list of ports",
            });
        }
        (Some(choice), _) => match any_or(&at, choice, "\"any\" or a list of ports")? {
            Rule::Any => Rule::Any,
            Rule::Only(ports) => {
                count(&at, ports.len(), 1, MAX_TABLES)?;
                Rule::Only(listed(ports, |index, port: &u16| {
                    range(&place.at("ports", index), u64::from(*port), 1, u64::from(u16::MAX)).map(|()| *port)
                })?)
            }
        },
    };
    Ok(Destination {
        address,
        prefix,
        protocol,
        ports,
    })
}

/// Ports of all destinations together: each is an instruction of the filter's.
const MAX_PORTS: u64 = 512;
