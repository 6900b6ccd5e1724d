use super::*;

fn link() -> Link {
    Link::sample(7, "eth0", 1400)
}

fn at(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix {
        address: address.parse().unwrap(),
        length: length.parse().unwrap(),
    }
}

fn found(text: &str) -> FoundAddress {
    FoundAddress {
        link: 7,
        prefix: at(text),
    }
}

fn automatic(text: &str) -> FoundRoute {
    FoundRoute {
        automatic: true,
        ..route(text, None)
    }
}

fn route(text: &str, gateway: Option<&str>) -> FoundRoute {
    FoundRoute {
        link: 7,
        destination: at(text),
        gateway: gateway.map(|text| text.parse().unwrap()),
        metric: 0,
        automatic: false,
    }
}

fn shown(network: &PodNetwork) -> Vec<String> {
    let via = |route: &Route| {
        route
            .gateway
            .map_or("on link".to_owned(), |gateway| format!("via {gateway}"))
    };
    network
        .routes
        .iter()
        .map(|route| format!("{} {} dev {}", route.destination, via(route), route.interface))
        .collect()
}

#[test]
fn what_the_bridge_plugin_makes() {
    let network = assemble(
        &[link()],
        &[found("10.88.77.5/24"), found("fd00:88::5/64")],
        &[
            automatic("10.88.77.0/24"),
            automatic("fd00:88::/64"),
            route("0.0.0.0/0", Some("10.88.77.1")),
            route("::/0", Some("fd00:88::1")),
        ],
        &[],
    );
    let eth0 = &network.interfaces[0];
    assert_eq!(
        (eth0.name.as_str(), eth0.mtu, eth0.mac.to_string().as_str()),
        ("eth0", 1400, "02:00:00:00:00:07")
    );
    assert_eq!(eth0.addresses, [at("10.88.77.5/24"), at("fd00:88::5/64")]);
    assert_eq!(
        shown(&network),
        ["0.0.0.0/0 via 10.88.77.1 dev eth0", "::/0 via fd00:88::1 dev eth0"]
    );
}

#[test]
fn what_calico_makes_a_gateway_outside_of_the_network() {
    let mac = Mac([0xee; 6]);
    let gateway = "169.254.1.1".parse().unwrap();
    let network = assemble(
        &[link()],
        &[found("192.168.7.9/32")],
        &[
            route("0.0.0.0/0", Some("169.254.1.1")),
            route("169.254.1.1/32", None),
            route("::/0", Some("fe80::ecee:eeff:feee:eeee")),
        ],
        &[FoundNeighbour {
            link: 7,
            address: gateway,
            mac,
        }],
    );
    assert_eq!(network.interfaces[0].addresses, [at("192.168.7.9/32")]);
    assert_eq!(network.interfaces[0].neighbours, [(gateway, mac)]);
    assert_eq!(
        shown(&network),
        [
            "169.254.1.1/32 on link dev eth0",
            "0.0.0.0/0 via 169.254.1.1 dev eth0",
            "::/0 via fe80::ecee:eeff:feee:eeee dev eth0"
        ]
    );
}

#[test]
fn what_ptp_makes_no_neighbour_on_the_link() {
    let network = assemble(
        &[link()],
        &[found("10.1.1.5/24")],
        &[
            route("10.1.1.0/24", Some("10.1.1.1")),
            route("10.1.1.1/32", None),
            route("0.0.0.0/0", Some("10.1.1.1")),
        ],
        &[],
    );
    assert_eq!(network.interfaces[0].addresses, [at("10.1.1.5/32")]);
    assert_eq!(
        shown(&network),
        [
            "10.1.1.1/32 on link dev eth0",
            "10.1.1.0/24 via 10.1.1.1 dev eth0",
            "0.0.0.0/0 via 10.1.1.1 dev eth0"
        ]
    );
}

#[test]
fn an_onlink_gateway_gets_its_own_route_once() {
    let routes = [
        route("0.0.0.0/0", Some("172.16.0.1")),
        route("10.0.0.0/8", Some("172.16.0.1")),
    ];
    let network = assemble(&[link()], &[found("192.0.2.1/32")], &routes, &[]);
    assert_eq!(
        shown(&network),
        [
            "172.16.0.1/32 on link dev eth0",
            "0.0.0.0/0 via 172.16.0.1 dev eth0",
            "10.0.0.0/8 via 172.16.0.1 dev eth0"
        ]
    );
}

#[test]
fn the_lowest_metric_counts_and_other_links_do_not() {
    let worse = FoundRoute {
        metric: 100,
        ..route("0.0.0.0/0", Some("10.0.0.2"))
    };
    let elsewhere = FoundRoute {
        link: 3,
        ..route("10.9.0.0/16", None)
    };
    let network = assemble(
        &[link()],
        &[found("10.0.0.5/24")],
        &[
            worse,
            route("0.0.0.0/0", Some("10.0.0.1")),
            elsewhere,
            automatic("10.0.0.0/24"),
        ],
        &[],
    );
    assert_eq!(shown(&network), ["0.0.0.0/0 via 10.0.0.1 dev eth0"]);
}

/// `struct rtmsg` and attributes.
fn route_message(family: u8, kind: u8, table: u8, attributes: Attributes) -> Vec<u8> {
    let mut bytes = vec![family, 0, 0, 0, table, 3, 0, kind, 0, 0, 0, 0];
    bytes.extend(attributes.as_bytes());
    bytes
}

#[test]
fn route_messages() {
    let usual = || Attributes::new().bytes(5, &[10, 0, 0, 1]).u32(4, 7).u32(6, 50);
    let parsed = FoundRoute::parse(&route_message(AF_INET, 1, 254, usual())).unwrap();
    let expected = FoundRoute {
        metric: 50,
        ..route("0.0.0.0/0", Some("10.0.0.1"))
    };
    assert_eq!(parsed, expected);
    assert_eq!(
        FoundRoute::parse(&route_message(AF_INET, 2, 254, usual())),
        None,
        "local, not unicast"
    );
    assert_eq!(
        FoundRoute::parse(&route_message(AF_INET, 1, 255, usual())),
        None,
        "the local table"
    );
    let other_table = usual().u32(15, 100);
    assert_eq!(FoundRoute::parse(&route_message(AF_INET, 1, 252, other_table)), None);
    // Two ways, the first counts. Each: struct rtnexthop and its gateway.
    let hop = |last: u8| {
        let mut hop = vec![16, 0, 0, 0, 7, 0, 0, 0];
        hop.extend(Attributes::new().bytes(5, &[10, 0, 0, last]).as_bytes());
        hop
    };
    let ways = [hop(1), hop(2)].concat();
    let parsed = FoundRoute::parse(&route_message(AF_INET, 1, 254, Attributes::new().bytes(9, &ways))).unwrap();
    assert_eq!(parsed, route("0.0.0.0/0", Some("10.0.0.1")));
    // IPv4 by an IPv6 gateway.
    let mut via = vec![10, 0];
    via.extend(Ipv6Addr::LOCALHOST.octets());
    let parsed = FoundRoute::parse(&route_message(
        AF_INET,
        1,
        254,
        Attributes::new().bytes(18, &via).u32(4, 7),
    ));
    assert_eq!(parsed.unwrap().gateway, Some(Ipv6Addr::LOCALHOST.into()));
}

#[test]
fn address_messages() {
    let message = |family: u8, length: u8, attributes: Attributes| {
        let mut bytes = vec![family, length, 0, 0, 7, 0, 0, 0];
        bytes.extend(attributes.as_bytes());
        FoundAddress::parse(&bytes)
    };
    let ours = Attributes::new().bytes(1, &[10, 0, 0, 9]).bytes(2, &[10, 0, 0, 5]);
    assert_eq!(
        message(AF_INET, 24, ours),
        Some(found("10.0.0.5/24")),
        "the local end of a point-to-point link"
    );
    assert_eq!(
        message(AF_INET, 33, Attributes::new().bytes(1, &[10, 0, 0, 5])),
        None,
        "no such prefix"
    );
    assert_eq!(
        message(AF_INET, 24, Attributes::new().bytes(1, &[10, 0, 5])),
        None,
        "three bytes"
    );
    let v6 = |text: &str| Attributes::new().bytes(1, &text.parse::<Ipv6Addr>().unwrap().octets());
    assert_eq!(message(AF_INET6, 64, v6("fe80::1")), None);
    assert_eq!(message(AF_INET6, 64, v6("fd00::5")), Some(found("fd00::5/64")));
    assert_eq!(
        message(AF_INET6, 64, v6("fd00::5").u32(8, 0x08)),
        None,
        "a duplicate, says the kernel"
    );
    assert_eq!(message(7, 24, v6("fd00::5")), None, "another family");
}

#[test]
fn neighbour_messages() {
    let message = |state: u8| {
        let mut bytes = vec![AF_INET, 0, 0, 0, 7, 0, 0, 0, state, 0, 0, 0];
        bytes.extend(
            Attributes::new()
                .bytes(1, &[10, 0, 0, 1])
                .bytes(2, &[0xee; 6])
                .as_bytes(),
        );
        FoundNeighbour::parse(&bytes)
    };
    assert_eq!(message(0x80).unwrap().mac, Mac([0xee; 6]));
    assert_eq!(message(0x02), None, "learned, not permanent");
}

#[test]
fn prefixes() {
    assert!(at("10.0.0.0/8").contains("10.9.9.9".parse().unwrap()));
    assert!(!at("10.0.0.0/8").contains("11.0.0.1".parse().unwrap()));
    assert!(at("0.0.0.0/0").contains("11.0.0.1".parse().unwrap()));
    assert!(!at("0.0.0.0/0").contains("::1".parse().unwrap()), "families are apart");
    assert!(at("fd00::/64").contains("fd00::1:2".parse().unwrap()));
    assert!(at("10.0.0.5/24").same_network(&at("10.0.0.0/24")));
    assert!(!at("10.0.0.0/25").same_network(&at("10.0.0.0/24")));
}
