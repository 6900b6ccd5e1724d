use super::*;

fn request() -> ConfigureNetworkRequest {
    ConfigureNetworkRequest {
        interfaces: vec![Interface {
            name: "eth0".into(),
            hardware_address: "02:00:00:00:00:01".into(),
            addresses: vec!["10.0.2.15/24".into(), "fd00::15/64".into()],
            mtu: 1500,
            ..Default::default()
        }],
        routes: vec![Route {
            gateway: "10.0.2.2".into(),
            interface: "eth0".into(),
            ..Default::default()
        }],
        name_servers: vec!["10.0.2.3".into()],
        hostname: "pod-1".into(),
        ..Default::default()
    }
}

#[test]
fn a_user_mode_network_is_understood() {
    let plan = NetworkPlan::parse(&request()).unwrap();
    assert_eq!(plan.interfaces[0].hardware_address, [2, 0, 0, 0, 0, 1]);
    assert_eq!(plan.routes[0].destination.prefix, 0);
    assert_eq!(plan.resolv_conf(), "nameserver 10.0.2.3\n");
    assert!(plan.hosts("pod-1").ends_with("10.0.2.15 pod-1\nfd00::15 pod-1\n"));
    assert_eq!(
        NetworkPlan::parse(&ConfigureNetworkRequest::new()),
        Ok(NetworkPlan::default())
    );
}

#[test]
fn names_are_looked_for_as_the_pod_says() {
    let mut request = request();
    request.search_domains = vec!["default.svc.cluster.local".into(), ".".into()];
    request.resolver_options = vec!["ndots:5".into(), "edns0".into()];
    assert_eq!(
        NetworkPlan::parse(&request).unwrap().resolv_conf(),
        "search default.svc.cluster.local .\nnameserver 10.0.2.3\noptions ndots:5 edns0\n"
    );
    for bad in ["a b", "a\nnameserver 6.6.6.6", "", "a/b"] {
        request.search_domains = vec![bad.into()];
        let error = NetworkPlan::parse(&request).unwrap_err();
        assert!(
            matches!(
                error,
                PlanError::Resolver {
                    what: "search domain",
                    ..
                }
            ),
            "{bad:?}"
        );
    }
    request.search_domains.clear();
    request.resolver_options = vec!["ndots:5\nnameserver 6.6.6.6".into()];
    assert!(matches!(NetworkPlan::parse(&request), Err(PlanError::Resolver { .. })));
}

#[test]
fn neighbours_have_both_addresses() {
    let mut request = request();
    request.interfaces[0].neighbours = vec!["169.254.1.1 ee:ee:ee:ee:ee:ee".into()];
    let plan = NetworkPlan::parse(&request).unwrap();
    assert_eq!(
        plan.interfaces[0].neighbours,
        [Neighbour {
            address: "169.254.1.1".parse().unwrap(),
            hardware_address: [0xee; 6]
        }]
    );
    for bad in [
        "169.254.1.1",
        "x ee:ee:ee:ee:ee:ee",
        "169.254.1.1  ee:ee:ee:ee:ee:ee",
        "",
    ] {
        request.interfaces[0].neighbours = vec![bad.into()];
        assert!(NetworkPlan::parse(&request).is_err(), "{bad:?}");
    }
}

#[test]
fn routes_on_the_link_come_first() {
    let mut request = request();
    request.routes.push(Route {
        destination: "169.254.1.1/32".into(),
        interface: "eth0".into(),
        ..Default::default()
    });
    assert_eq!(NetworkPlan::parse(&request).unwrap().routes[0].gateway, None);
}

#[test]
fn t10_text_that_is_not_what_it_claims_is_refused() {
    let refused = |change: &dyn Fn(&mut ConfigureNetworkRequest)| {
        let mut request = request();
        change(&mut request);
        NetworkPlan::parse(&request).unwrap_err()
    };
    for bad in ["", "lo", "a/b", "..", ".", "eth0\n", "a-name-of-16-byte", "eth0:1"] {
        let error = refused(&|request| request.interfaces[0].name = bad.into());
        assert!(
            matches!(error, PlanError::Name { .. } | PlanError::UnknownInterface { .. }),
            "{bad:?}"
        );
    }
    for bad in [
        "",
        "02:00:00:00:00",
        "02:00:00:00:00:01:02",
        "02:00:00:00:00:0g",
        "2:0:0:0:0:1",
        "+2:00:00:00:00:01",
    ] {
        let error = refused(&|request| request.interfaces[0].hardware_address = bad.into());
        assert!(matches!(error, PlanError::HardwareAddress { .. }), "{bad:?}");
    }
    for bad in [
        "10.0.2.15",
        "10.0.2.15/33",
        "10.0.2.15/-1",
        "x/24",
        "fd00::/129",
        "10.0.2.15/24/24",
    ] {
        let error = refused(&|request| request.interfaces[0].addresses[0] = bad.into());
        assert!(matches!(error, PlanError::Address { .. }), "{bad:?}");
    }
    for bad in ["8.8.8.8\noptions debug", "dns", "8.8.8.8/32"] {
        let error = refused(&|request| request.name_servers[0] = bad.into());
        assert!(matches!(error, PlanError::Address { .. }), "{bad:?}");
    }
    for bad in ["a b", "a\n10.0.0.1 kbs", "-a", "a..b", &"a".repeat(65)] {
        let error = refused(&|request| request.hostname = bad.into());
        assert!(matches!(error, PlanError::Hostname { .. }), "{bad:?}");
    }
    assert_eq!(
        refused(&|request| request.interfaces[0].mtu = 68),
        PlanError::Mtu { mtu: 68 }
    );
    assert_eq!(
        refused(&|request| request.interfaces[0].mtu = 65_536),
        PlanError::Mtu { mtu: 65_536 }
    );
}

#[test]
fn families_do_not_mix() {
    let mut request = request();
    request.routes[0].gateway = "fd00::1".into();
    assert_eq!(
        NetworkPlan::parse(&request).unwrap().routes[0].destination.address,
        Ipv6Addr::UNSPECIFIED
    );
    request.routes[0].destination = "0.0.0.0/0".into();
    let gateway = "fd00::1".parse().unwrap();
    assert_eq!(NetworkPlan::parse(&request), Err(PlanError::Family { gateway }));
}

#[test]
fn there_is_a_limit_to_everything() {
    let mut request = request();
    request.routes = vec![request.routes[0].clone(); 33];
    assert_eq!(
        NetworkPlan::parse(&request),
        Err(PlanError::TooMany {
            what: "routes",
            count: 33
        })
    );
}
