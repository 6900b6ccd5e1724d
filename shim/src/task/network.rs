//! What the guest is told about QEMU's user-mode network (10.0.2.0/24, QEMU's defaults).
//!
//! The gateway address reaches the host's own loopback. Name servers are untrusted like the rest of it.

use cella_protos::agent as wire;

use crate::vm::GUEST_MAC;

/// The request for a guest on the user-mode network.
pub(super) fn user_network(hostname: &str) -> wire::ConfigureNetworkRequest {
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
        hostname: hostname.to_owned(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_the_one_that_ports_are_forwarded_to() {
        let request = user_network("pod");
        let address = format!("{}/24", crate::qemu::USER_NET_GUEST);
        assert_eq!(request.interfaces[0].addresses, [address]);
        assert_eq!(
            (request.routes[0].destination.as_str(), request.hostname.as_str()),
            ("", "pod")
        );
    }
}
