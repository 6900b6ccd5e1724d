//! Keys of pods and volumes, each broken in turn.

use super::*;

#[test]
fn new_keys_are_checked_as_the_old_ones_are() {
    let refused = |key: &str| refused("name = \"server\"", &format!("name = \"server\"\n{key}"));
    for key in [
        "instances = 0",
        "instances = 1025",
        "exec = [[]]",
        &format!("env-allow = [{}]", "\"A\",".repeat(65)),
    ] {
        let error = refused(key);
        assert!(matches!(error, PolicyError::Range { .. }), "{key}: {error}");
    }
    for key in ["instances = \"many\"", "exec = \"some\""] {
        assert!(matches!(refused(key), PolicyError::Choice { .. }), "{key}");
    }
    for key in [
        "match = \"any\"",
        "volumes = \"all\"",
        "seccomp = \"none\"",
        "instances = -1",
        "rlimits = 1",
    ] {
        assert!(matches!(refused(key), PolicyError::Syntax { .. }), "{key}");
    }
    assert!(matches!(refused("env-allow = [\"A=b\"]"), PolicyError::Name { .. }));
    assert!(matches!(refused("exec = [[\"\"]]"), PolicyError::Text { .. }));
    let user = "user = { uid = 65534, gid = 65534, additional-gids = [] }";
    let message = said(user, "user = \"nobody\"");
    assert!(message.contains("\"image\", \"any\" or a table"), "{message}");
    let pod = |lines: &str| Policy::parse(&format!("{EXAMPLE}\n[pod]\n{lines}")).unwrap_err();
    assert!(matches!(
        pod("sysctl = [\"kernel.core_pattern\"]"),
        PolicyError::Name { .. }
    ));
    assert!(matches!(pod("forward-ports = [0]"), PolicyError::Range { .. }));
    assert!(matches!(pod("forward-ports = [65536]"), PolicyError::Syntax { .. }));
    assert!(matches!(pod("forward-ports = \"all\""), PolicyError::Choice { .. }));
    assert!(matches!(
        pod(&format!("forward-ports = [{}]", "1,".repeat(65))),
        PolicyError::Range { .. }
    ));
}

#[test]
fn volumes_have_a_kind_and_a_place_of_their_own() {
    let volume = |destination: &str, kind: &str| {
        let entry = format!("[[container.volume]]\ndestination = {destination:?}\nkind = {kind:?}\n\n[[model]]");
        EXAMPLE.replacen("[[model]]", &entry, 1)
    };
    for good in [
        "/config",
        "/dev/shm",
        "/dev/termination-log",
        "/run/secrets",
        "/etc/hosts",
    ] {
        assert!(Policy::parse(&volume(good, "secret")).is_ok(), "{good}");
    }
    for bad in ["/", "/proc/x", "/sys", "/dev", "/dev/null", "/models/demo/x", "/tmp"] {
        let error = Policy::parse(&volume(bad, "secret")).unwrap_err();
        assert!(matches!(error, PolicyError::Overlap { .. }), "{bad}: {error}");
    }
    let kind = Policy::parse(&volume("/config", "host-path")).unwrap_err();
    assert!(kind.to_string().contains("no kind of volume"), "{kind}");
    let both = volume("/config", "secret").replace("name = \"server\"", "name = \"server\"\nvolumes = \"any\"");
    assert!(matches!(Policy::parse(&both), Err(PolicyError::Text { .. })));
}

#[test]
fn an_order_has_no_gaps_and_no_circles() {
    let other = |name: &str, lines: &str| {
        let from = EXAMPLE.find("[[container]]").unwrap();
        let to = EXAMPLE.find("[[container.mount]]").unwrap();
        EXAMPLE[from..to].replace("name = \"server\"", &format!("name = {name:?}\n{lines}"))
    };
    let with = |server: &str, a: &str, b: &str| {
        let first = EXAMPLE.replacen("name = \"server\"", &format!("name = \"server\"\n{server}"), 1);
        Policy::parse(&format!("{first}\n{}{}", other("a", a), other("b", b)))
    };
    let policy = with(
        "after = [\"a\", \"b\"]",
        "",
        "after = [\"a\"]\npresence = \"completed\"",
    )
    .unwrap();
    assert_eq!(policy.container("server").unwrap().after, ["a", "b"]);
    assert_eq!(policy.container("a").unwrap().presence, Presence::Running);
    assert_eq!(policy.container("b").unwrap().presence, Presence::Completed);
    assert_eq!(Policy::parse(&policy.to_toml()).unwrap(), policy);
    let said = |result: Result<Policy, PolicyError>| result.unwrap_err().to_string();
    assert_eq!(
        said(with("after = [\"c\"]", "", "")),
        "policy, container \"server\" after[0]: no [[container]] is named \"c\""
    );
    for (server, a, b) in [
        ("after = [\"server\"]", "", ""),
        ("after = [\"a\"]", "after = [\"b\"]", "after = [\"server\"]"),
    ] {
        assert!(matches!(with(server, a, b), Err(PolicyError::Circle { .. })));
    }
    assert!(matches!(
        with("after = [\"a\", \"a\"]", "", ""),
        Err(PolicyError::Duplicate { .. })
    ));
    assert!(said(with("presence = \"there\"", "", "")).contains("unknown variant `there`"));
}

#[test]
fn t3_streams_are_shut_unless_the_policy_opens_them() {
    let stdio = |text: &str| {
        let text = EXAMPLE.replacen("stdio = \"allow\"\n", text, 1);
        Policy::parse(&text).map(|policy| {
            assert_eq!(Policy::parse(&policy.to_toml()).unwrap(), policy);
            policy.container("server").unwrap().stdio
        })
    };
    assert_eq!(stdio("").unwrap(), Stdio::DENY);
    assert_eq!(stdio("stdio = \"deny\"\n").unwrap(), Stdio::DENY);
    assert_eq!(stdio("stdio = \"allow\"\n").unwrap(), Stdio::ALLOW);
    let redacted = stdio("stdio = \"redact\"\n").unwrap();
    assert_eq!(
        (redacted.stdin, redacted.stdout, redacted.stderr),
        (false, Output::Redact, Output::Redact)
    );
    let mixed = stdio("stdio = { stdout = \"allow\", stderr = \"redact\" }\n").unwrap();
    assert_eq!(
        (mixed.stdin, mixed.stdout, mixed.stderr),
        (false, Output::Allow, Output::Redact)
    );
    assert_eq!(mixed.terminal(), Output::Redact, "a terminal shows both");
    assert!(!mixed.tells_last_words() && Stdio::ALLOW.tells_last_words());
    for bad in ["stdio = \"some\"\n", "stdio = { stdin = \"redact\" }\n"] {
        assert!(matches!(stdio(bad), Err(PolicyError::Choice { .. })), "{bad}");
    }
    assert!(
        stdio("stdio = { stdlog = \"deny\" }\n")
            .unwrap_err()
            .to_string()
            .contains("`stdlog`")
    );
}

#[test]
fn t2_optional_calls_are_denied_unless_they_are_named() {
    let pod = |lines: &str| Policy::parse(&format!("{EXAMPLE}\n[pod]\n{lines}"));
    let none = example();
    assert!(none.pod().calls.is_empty());
    assert_eq!(none.pod().stats, Stats::Deny);
    let policy = pod("calls = [\"pause\", \"update\", \"processes\"]\nstats = \"coarse\"").unwrap();
    assert_eq!(policy.pod().calls, Call::ALL.into());
    assert_eq!(policy.pod().stats, Stats::Coarse);
    assert_eq!(Policy::parse(&policy.to_toml()).unwrap(), policy);
    assert!(matches!(pod("calls = [\"exec\"]"), Err(PolicyError::Name { .. })));
    assert!(
        pod("stats = \"some\"")
            .unwrap_err()
            .to_string()
            .contains("unknown variant `some`")
    );
    let silent = EXAMPLE.replacen("signals = \"any\"\n", "", 1);
    let silent = Policy::parse(&silent).unwrap();
    let signals = &silent.containers()[0].signals;
    let allowed: Vec<u32> = (1..=64).filter(|number| signals.allows(*number)).collect();
    assert_eq!(allowed, [2, 9, 15], "SIGINT, SIGKILL, SIGTERM");
}

#[test]
fn t10_the_network_has_addresses_and_bounds() {
    let network = |lines: &str| Policy::parse(&format!("{EXAMPLE}\n[network]\n{lines}"));
    let none = example();
    assert_eq!(none.network().egress, Rule::Only(vec![]));
    assert_eq!(none.network().ingress, Rule::Only([].into()));
    let to = |to: &str, protocol: &str, ports: &str| {
        network(&format!("egress = [{{ to = {to:?}, protocol = {protocol:?}{ports} }}]"))
    };
    let policy = to("10.0.0.0/8", "tcp", ", ports = [443, 80]").unwrap();
    let named: Vec<String> = policy
        .network()
        .egress
        .only()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(named, ["10.0.0.0/8 tcp 80,443"]);
    for policy in [
        policy,
        to("fd00::1", "udp", ", ports = \"any\"").unwrap(),
        to("10.0.0.1", "icmp", "").unwrap(),
        network("egress = \"any\"\ningress = \"any\"").unwrap(),
        network("ingress = [\"8080/tcp\", \"53/udp\"]").unwrap(),
    ] {
        assert_eq!(Policy::parse(&policy.to_toml()).unwrap(), policy);
    }
    for (to_, protocol, ports) in [
        ("example.com", "tcp", ", ports = [443]"),
        ("10.0.0.1/8", "tcp", ", ports = [443]"),
        ("10.0.0.0/8", "sctp", ", ports = [443]"),
    ] {
        assert!(
            matches!(to(to_, protocol, ports), Err(PolicyError::Name { .. })),
            "{to_} {protocol}"
        );
    }
    for (protocol, ports) in [("tcp", ""), ("icmp", ", ports = [1]")] {
        assert!(
            matches!(to("10.0.0.1", protocol, ports), Err(PolicyError::Text { .. })),
            "{protocol}{ports}"
        );
    }
    for ports in [", ports = []", ", ports = [0]"] {
        assert!(
            matches!(to("10.0.0.1", "tcp", ports), Err(PolicyError::Range { .. })),
            "{ports}"
        );
    }
    assert!(matches!(
        to("10.0.0.1", "tcp", ", ports = \"some\""),
        Err(PolicyError::Choice { .. })
    ));
    let ports = (1..=60).map(|port| port.to_string()).collect::<Vec<_>>().join(", ");
    let one = format!("{{ to = \"10.0.0.1\", protocol = \"tcp\", ports = [{ports}] }}");
    let many = vec![one; 9].join(", ");
    assert!(matches!(
        network(&format!("egress = [{many}]")),
        Err(PolicyError::Range { found: 540, .. })
    ));
    for bad in ["8080", "0/tcp", "8080/icmp"] {
        assert!(
            matches!(network(&format!("ingress = [{bad:?}]")), Err(PolicyError::Name { .. })),
            "{bad}"
        );
    }
}
