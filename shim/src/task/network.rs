//! Which network a pod gets, and how the guest is told of it.
//!
//! | the bundle names | the guest gets |
//! |---|---|
//! | a network namespace that exists (CNI's) | that namespace's interfaces |
//! | a network namespace without a path, or none for a lone container | QEMU's user-mode network, 10.0.2.0/24 |
//! | none for a CRI sandbox (`hostNetwork: true`) | nothing: it is refused |
//!
//! On the user-mode network the gateway's address reaches the host's own loopback. Name servers are untrusted like the rest.

use std::sync::Arc;

use cella_protos::agent as wire;

use super::error::TaskError;
use crate::bundle::{Bundle, NetworkNamespace, Role};
use crate::network::{Interface, NetNs, NetworkError, PodNetwork, Route};
use crate::ports::{self, PortsError};
use crate::vm::{GUEST_MAC, GuestNetwork};

/// What the pod's `resolv.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolver {
    /// Addresses.
    pub(super) name_servers: Vec<String>,
    /// Search domains, in order.
    pub(super) search_domains: Vec<String>,
    /// As they stand there, "ndots:5".
    pub(super) options: Vec<String>,
}

/// The network for the pod of this bundle.
///
/// # Errors
/// The host's network; a path that is not another network namespace; port forwards in a pod that has its own address.
pub(super) fn choose(bundle: &Bundle) -> Result<GuestNetwork, TaskError> {
    let forwards = ports::parse(bundle.annotation(ports::ANNOTATION).unwrap_or_default())?;
    match bundle.network_namespace() {
        NetworkNamespace::Host if bundle.role()? == Role::Sandbox => Err(NetworkError::HostNetwork.into()),
        NetworkNamespace::At(_) if !forwards.is_empty() => Err(PortsError::PodNetwork.into()),
        NetworkNamespace::At(path) => Ok(GuestNetwork::Pod(Arc::new(NetNs::open(path)?))),
        NetworkNamespace::New | NetworkNamespace::Host => Ok(GuestNetwork::User { forwards }),
    }
}

/// The request that tells the guest; without a pod network, of the user-mode one.
pub(super) fn describe(
    network: Option<&PodNetwork>,
    resolver: &Resolver,
    hostname: &str,
) -> wire::ConfigureNetworkRequest {
    let request = network.map_or_else(user_network, pod_network);
    wire::ConfigureNetworkRequest {
        name_servers: if resolver.name_servers.is_empty() {
            request.name_servers
        } else {
            resolver.name_servers.clone()
        },
        search_domains: resolver.search_domains.clone(),
        resolver_options: resolver.options.clone(),
        hostname: hostname.to_owned(),
        ..request
    }
}

fn user_network() -> wire::ConfigureNetworkRequest {
    wire::ConfigureNetworkRequest {
        interfaces: vec![wire::Interface {
            name: "eth0".into(),
            hardware_address: GUEST_MAC.into(),
            addresses: vec!["10.0.2.15/24".into()],
            ..Default::default()
        }],
        routes: vec![wire::Route {
            gateway: "10.0.2.2".into(),
            interface: "eth0".into(),
            ..Default::default()
        }],
        name_servers: vec!["10.0.2.3".into()],
        ..Default::default()
    }
}

fn pod_network(network: &PodNetwork) -> wire::ConfigureNetworkRequest {
    wire::ConfigureNetworkRequest {
        interfaces: network.interfaces.iter().map(interface).collect(),
        routes: network.routes.iter().map(route).collect(),
        ..Default::default()
    }
}

fn interface(interface: &Interface) -> wire::Interface {
    let neighbours = interface.neighbours.iter();
    wire::Interface {
        name: interface.name.clone(),
        hardware_address: interface.mac.to_string(),
        addresses: interface.addresses.iter().map(ToString::to_string).collect(),
        mtu: interface.mtu,
        neighbours: neighbours.map(|(address, mac)| format!("{address} {mac}")).collect(),
        ..Default::default()
    }
}

fn route(route: &Route) -> wire::Route {
    wire::Route {
        destination: route.destination.to_string(),
        gateway: route.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        interface: route.interface.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::oci::{Namespace, Spec};
    use crate::network::{Mac, Prefix};

    fn bundle(container_type: Option<&str>, netns: Option<&str>, ports: &str) -> Bundle {
        let mut spec = Spec::default();
        let annotations = [
            ("io.kubernetes.cri.container-type", container_type),
            (ports::ANNOTATION, Some(ports)),
        ];
        for (key, value) in annotations {
            spec.annotations.extend(value.map(|value| (key.into(), value.into())));
        }
        spec.linux.namespaces.extend(netns.map(|path| Namespace {
            kind: "network".into(),
            path: path.into(),
        }));
        Bundle { dir: "/b".into(), spec }
    }

    #[test]
    fn the_address_is_the_one_that_ports_are_forwarded_to() {
        let request = describe(None, &Resolver::default(), "pod");
        let address = format!("{}/24", crate::qemu::USER_NET_GUEST);
        assert_eq!(request.interfaces[0].addresses, [address]);
        assert_eq!(
            (request.routes[0].destination.as_str(), request.hostname.as_str()),
            ("", "pod")
        );
    }

    #[test]
    fn a_pods_network_is_told_as_it_is() {
        let at = |address: &str, length| Prefix {
            address: address.parse().unwrap(),
            length,
        };
        let network = PodNetwork {
            interfaces: vec![Interface {
                name: "eth0".into(),
                mac: Mac([2, 0, 0, 0, 0, 0xfe]),
                mtu: 1400,
                addresses: vec![at("10.88.0.5", 24), at("fd00::5", 64)],
                neighbours: vec![("169.254.1.1".parse().unwrap(), Mac([0xee; 6]))],
            }],
            routes: vec![Route {
                destination: at("::", 0),
                gateway: Some("fd00::1".parse().unwrap()),
                interface: "eth0".into(),
            }],
        };
        let resolver = Resolver {
            name_servers: vec!["10.96.0.10".into()],
            search_domains: vec!["svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        let request = describe(Some(&network), &resolver, "pod");
        let eth0 = &request.interfaces[0];
        assert_eq!(
            (eth0.name.as_str(), eth0.hardware_address.as_str(), eth0.mtu),
            ("eth0", "02:00:00:00:00:fe", 1400)
        );
        assert_eq!(eth0.addresses, ["10.88.0.5/24", "fd00::5/64"]);
        assert_eq!(eth0.neighbours, ["169.254.1.1 ee:ee:ee:ee:ee:ee"]);
        let route = &request.routes[0];
        assert_eq!(
            (
                route.destination.as_str(),
                route.gateway.as_str(),
                route.interface.as_str()
            ),
            ("::/0", "fd00::1", "eth0")
        );
        assert_eq!(
            (
                request.name_servers,
                request.search_domains,
                request.resolver_options,
                request.hostname
            ),
            (
                resolver.name_servers,
                resolver.search_domains,
                resolver.options,
                "pod".into()
            )
        );
    }

    #[test]
    fn the_hosts_network_is_refused_with_what_to_do() {
        let refused = choose(&bundle(Some("sandbox"), None, "")).unwrap_err();
        assert!(
            matches!(refused, TaskError::Network(NetworkError::HostNetwork)),
            "{refused}"
        );
        assert!(refused.message().contains("remove hostNetwork"), "{refused}");
        // By its path too.
        let refused = choose(&bundle(Some("sandbox"), Some("/proc/self/ns/net"), "")).unwrap_err();
        assert!(
            matches!(refused, TaskError::Network(NetworkError::HostNamespace { .. })),
            "{refused}"
        );
    }

    #[test]
    fn without_a_namespace_of_cni_it_is_the_user_mode_network() {
        for bundle in [
            bundle(None, None, "127.0.0.1:1:2"),
            bundle(None, Some(""), "127.0.0.1:1:2"),
            bundle(Some("sandbox"), Some(""), "127.0.0.1:1:2"),
        ] {
            let chosen = choose(&bundle).unwrap();
            assert!(
                matches!(&chosen, GuestNetwork::User { forwards } if forwards.len() == 1),
                "{chosen:?}"
            );
        }
    }

    #[test]
    fn forwarded_ports_are_refused_where_the_pod_has_an_address() {
        let refused = choose(&bundle(Some("sandbox"), Some("/run/netns/x"), "127.0.0.1:1:2")).unwrap_err();
        assert!(matches!(refused, TaskError::Ports(PortsError::PodNetwork)), "{refused}");
    }
}
