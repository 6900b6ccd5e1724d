//! The filter in this machine's kernel: every kind of packet, and connections of processes in a cgroup. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "helpers of tests fail like tests"
)]

mod live;

use std::process::Command;

use cella_policy::Policy;
use nix::sched::{CloneFlags, unshare};

use super::{
    program::{Direction, connections, packets},
    *,
};

const POLICY: &str = include_str!("../../tests/common/policy.toml");

fn policy(network: &str) -> NetworkPolicy {
    let text = POLICY.replacen("[[registry]]", &format!("[network]\n{network}\n\n[[registry]]"), 1);
    Policy::parse(&text).unwrap().network().clone()
}

const NAMED: &str = r#"
ingress = ["8080/tcp", "5353/udp"]
egress = [
    { to = "10.9.0.0/16", protocol = "tcp", ports = [443, 8443] },
    { to = "10.9.0.2", protocol = "udp", ports = [53] },
    { to = "192.0.2.0/31", protocol = "tcp", ports = "any" },
    { to = "10.9.0.2", protocol = "icmp" },
    { to = "fd00:9::/33", protocol = "tcp", ports = [443] },
    { to = "fd00:9::2", protocol = "icmp" },
]
"#;

/// A packet without its payload.
#[derive(Clone, Copy, Debug)]
struct Packet<'a> {
    remote: &'a str,
    local: &'a str,
    protocol: u8,
    remote_port: u16,
    local_port: u16,
    /// Of TCP.
    flags: u8,
    fragment: u16,
    /// More words in the header of IPv4.
    options: usize,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

impl<'a> Packet<'a> {
    fn tcp(remote: &'a str, remote_port: u16, local_port: u16, flags: u8) -> Self {
        let local = if remote.contains(':') { "fd00::1" } else { "10.0.0.1" };
        Self {
            remote,
            local,
            protocol: TCP,
            remote_port,
            local_port,
            flags,
            fragment: 0,
            options: 0,
        }
    }

    fn udp(remote: &'a str, remote_port: u16, local_port: u16) -> Self {
        Self {
            protocol: UDP,
            ..Self::tcp(remote, remote_port, local_port, 0)
        }
    }

    fn other(remote: &'a str, protocol: u8) -> Self {
        Self {
            protocol,
            ..Self::tcp(remote, 0, 0, 0)
        }
    }

    /// As a frame.
    fn bytes(&self, direction: Direction) -> Vec<u8> {
        let ((from, from_port), (to, to_port)) = match direction {
            Direction::In => ((self.remote, self.remote_port), (self.local, self.local_port)),
            Direction::Out => ((self.local, self.local_port), (self.remote, self.remote_port)),
        };
        let mut frame = vec![0; 12];
        match (from.parse().unwrap(), to.parse().unwrap()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend(0x0800_u16.to_be_bytes());
                let words = u8::try_from(5 + self.options).unwrap();
                frame.extend([0x40 | words, 0, 0, 60, 0, 0]);
                frame.extend(self.fragment.to_be_bytes());
                frame.extend([64, self.protocol, 0, 0]);
                frame.extend(from.octets());
                frame.extend(to.octets());
                frame.extend(vec![1; self.options * 4]);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend(0x86dd_u16.to_be_bytes());
                frame.extend([0x60, 0, 0, 0, 0, 20, self.protocol, 64]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            _ => panic!("two families"),
        }
        frame.extend(from_port.to_be_bytes());
        frame.extend(to_port.to_be_bytes());
        frame.extend([0; 9]);
        frame.push(self.flags);
        frame.extend([0; 6]);
        frame
    }
}

/// A kernel that judges, and a device that is not the loopback.
struct Judge {
    counters: Counters,
    device: u32,
}

impl Judge {
    fn new() -> Option<Self> {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            eprintln!("skipped: needs root to make a network namespace and to load programs");
            return None;
        }
        let made = Command::new("ip")
            .args(["link", "add", "v0", "type", "veth", "peer", "name", "v1"])
            .status();
        assert!(made.unwrap().success());
        let shown = Command::new("ip").args(["-o", "link", "show", "v0"]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let device = shown.split(':').next().unwrap().parse().unwrap();
        assert!(device > 1, "{shown}");
        Some(Self {
            counters: Counters::make().unwrap(),
            device,
        })
    }

    fn load(&self, policy: &NetworkPolicy, direction: Direction, open: bool) -> Program {
        let program = packets(policy, direction, open, self.counters.descriptor()).unwrap();
        let hook = match direction {
            Direction::In => Hook::PacketsIn,
            Direction::Out => Hook::PacketsOut,
        };
        Program::load(hook, &program).unwrap()
    }

    fn passes(&self, program: &Program, packet: Packet<'_>, direction: Direction) -> bool {
        let judged = program.judge(&packet.bytes(direction), self.device);
        judged.unwrap_or_else(|error| panic!("{direction:?} {packet:?}: {error}")) == 1
    }
}

#[test]
fn t10_each_packet_passes_as_the_policy_says_and_no_other() {
    let Some(judge) = Judge::new() else { return };
    let policy = policy(NAMED);
    let [shut_in, open_in] = [false, true].map(|open| judge.load(&policy, Direction::In, open));
    let [shut_out, open_out] = [false, true].map(|open| judge.load(&policy, Direction::Out, open));
    // packet; out while shut, while open; in while shut, while open.
    let cases = [
        (Packet::tcp("10.9.200.1", 443, 40000, SYN), [true, true, false, false]),
        (Packet::tcp("10.9.200.1", 443, 40000, ACK), [true, true, true, true]),
        (Packet::tcp("10.9.200.1", 443, 40000, SYN_ACK), [true, true, true, true]),
        (Packet::tcp("10.9.200.1", 444, 40000, SYN), [false; 4]),
        (Packet::tcp("10.9.200.1", 444, 40000, ACK), [false; 4]),
        (Packet::tcp("10.10.0.1", 443, 40000, SYN), [false; 4]),
        (Packet::tcp("10.8.255.255", 443, 40000, ACK), [false; 4]),
        (Packet::tcp("192.0.2.1", 1, 40000, SYN), [true, true, false, false]),
        (Packet::tcp("192.0.2.2", 1, 40000, SYN), [false; 4]),
        // A client.
        (
            Packet::tcp("203.0.113.7", 50000, 8080, SYN),
            [false, false, false, true],
        ),
        (
            Packet::tcp("203.0.113.7", 50000, 8080, SYN_ACK),
            [false, true, false, true],
        ),
        (Packet::tcp("203.0.113.7", 50000, 8080, ACK), [false, true, false, true]),
        (Packet::tcp("203.0.113.7", 50000, 8081, SYN), [false; 4]),
        (Packet::tcp("203.0.113.7", 50000, 8081, ACK), [false; 4]),
        (Packet::tcp("203.0.113.7", 50000, 5353, SYN), [false; 4]),
        // Names of both lists: what the first packet may do, the direction says.
        (Packet::tcp("10.9.0.1", 443, 8080, SYN), [true, true, false, true]),
        (Packet::udp("10.9.0.2", 53, 40000), [true, true, true, true]),
        (Packet::udp("10.9.0.3", 53, 40000), [false; 4]),
        (Packet::udp("10.9.0.2", 54, 40000), [false; 4]),
        (Packet::udp("203.0.113.7", 9, 5353), [false, true, false, true]),
        (Packet::udp("203.0.113.7", 9, 8080), [false; 4]),
        (Packet::other("10.9.0.2", 1), [true; 4]),
        (Packet::other("10.9.0.3", 1), [false; 4]),
        (Packet::other("10.9.0.2", 132), [false; 4]),
        (Packet::other("10.9.0.2", 58), [false; 4]),
        // IPv6, a prefix that ends within a word.
        (
            Packet::tcp("fd00:9:7fff::1", 443, 40000, SYN),
            [true, true, false, false],
        ),
        (Packet::tcp("fd00:9:8000::1", 443, 40000, SYN), [false; 4]),
        (Packet::tcp("fd00:9::1", 80, 40000, ACK), [false; 4]),
        (
            Packet::tcp("2001:db8::1", 50000, 8080, SYN),
            [false, false, false, true],
        ),
        (Packet::udp("2001:db8::1", 50000, 5353), [false, true, false, true]),
        (Packet::other("fd00:9::2", 58), [true; 4]),
        (Packet::other("fd00:9::2", 0), [false; 4]),
        (Packet::other("fd00:9::2", 1), [false; 4]),
    ];
    for (packet, expected) in cases {
        let found = [
            judge.passes(&shut_out, packet, Direction::Out),
            judge.passes(&open_out, packet, Direction::Out),
            judge.passes(&shut_in, packet, Direction::In),
            judge.passes(&open_in, packet, Direction::In),
        ];
        assert_eq!(found, expected, "{packet:?}");
    }
    let options = Packet {
        options: 3,
        ..Packet::tcp("10.9.0.1", 443, 40000, SYN)
    };
    assert!(
        judge.passes(&open_out, options, Direction::Out),
        "ports are where the header ends"
    );
    let fragment = |fragment| Packet {
        fragment,
        ..Packet::udp("10.9.0.2", 53, 40000)
    };
    assert!(
        judge.passes(&open_out, fragment(0x2000), Direction::Out),
        "a first fragment has its ports"
    );
    assert!(!judge.passes(&open_out, fragment(0x0001), Direction::Out));
    let whole = Packet::tcp("10.9.0.1", 443, 40000, SYN).bytes(Direction::Out);
    for cut in 14..14 + 20 + 14 {
        let passes = open_out.judge(&whole[..cut], judge.device);
        assert!(!matches!(passes, Ok(1)), "cut off at {cut}: {passes:?}");
    }
    let short_header = [&whole[..14], &[0x44], &whole[15..]].concat();
    assert_eq!(open_out.judge(&short_header, judge.device), Ok(0));
    let arp = [&whole[..12], &[0x08, 0x06], &whole[14..]].concat();
    assert_eq!(open_out.judge(&arp, judge.device), Ok(0));
    // What never leaves the pod.
    let inside = Packet::tcp("203.0.113.7", 1, 1, SYN).bytes(Direction::Out);
    assert_eq!(shut_out.judge(&inside, 1), Ok(1));
    assert!(judge.counters.read(0).unwrap() > 20 && judge.counters.read(1).unwrap() > 20);
}

#[test]
fn what_is_any_passes_and_the_other_list_still_counts() {
    let Some(judge) = Judge::new() else { return };
    let egress = policy("egress = \"any\"\ningress = [\"8080/tcp\"]");
    let (out, shut) = (
        judge.load(&egress, Direction::Out, false),
        judge.load(&egress, Direction::In, false),
    );
    let open = judge.load(&egress, Direction::In, true);
    assert!(judge.passes(&out, Packet::tcp("203.0.113.7", 1, 1, SYN), Direction::Out));
    assert!(judge.passes(&out, Packet::other("203.0.113.7", 132), Direction::Out));
    assert!(judge.passes(&shut, Packet::tcp("203.0.113.7", 1, 1, SYN_ACK), Direction::In));
    assert!(!judge.passes(&shut, Packet::tcp("203.0.113.7", 1, 8080, SYN), Direction::In));
    assert!(judge.passes(&open, Packet::tcp("203.0.113.7", 1, 8080, SYN), Direction::In));
    assert!(!judge.passes(&open, Packet::tcp("203.0.113.7", 1, 8081, SYN), Direction::In));
    let ingress = policy("ingress = \"any\"");
    let (out, shut, open) = (
        judge.load(&ingress, Direction::Out, true),
        judge.load(&ingress, Direction::In, false),
        judge.load(&ingress, Direction::In, true),
    );
    assert!(!judge.passes(&out, Packet::tcp("203.0.113.7", 1, 1, SYN), Direction::Out));
    assert!(judge.passes(&out, Packet::tcp("203.0.113.7", 1, 1, ACK), Direction::Out));
    assert!(!judge.passes(&shut, Packet::tcp("203.0.113.7", 1, 1, SYN), Direction::In));
    assert!(judge.passes(&open, Packet::tcp("203.0.113.7", 1, 1, SYN), Direction::In));
    assert!(judge.passes(&open, Packet::udp("203.0.113.7", 1, 1), Direction::In));
    assert!(!judge.passes(&open, Packet::other("203.0.113.7", 132), Direction::In));
}

#[test]
fn the_largest_policy_makes_programs_that_the_kernel_takes() {
    let Some(judge) = Judge::new() else { return };
    let ports: Vec<String> = (1..=8).map(|port| port.to_string()).collect();
    let one = |index: usize| {
        format!(
            "{{ to = \"fd00:{index:x}::/97\", protocol = \"tcp\", ports = [{}] }}",
            ports.join(", ")
        )
    };
    let all: Vec<String> = (1..=64).map(one).collect();
    let clients: Vec<String> = (1..=64).map(|port| format!("\"{port}/udp\"")).collect();
    let network = format!("egress = [{}]\ningress = [{}]", all.join(", "), clients.join(", "));
    let largest = policy(&network);
    for direction in [Direction::In, Direction::Out] {
        drop(judge.load(&largest, direction, true));
    }
    for (hook, family) in [(Hook::Connect4, Family::V4), (Hook::Connect6, Family::V6)] {
        let own = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        Program::load(hook, &connections(&largest, family, &own).unwrap()).unwrap();
        Program::load(hook, &connections(&policy("egress = \"any\""), family, &own).unwrap()).unwrap();
        Program::load(hook, &connections(&policy(""), family, &[]).unwrap()).unwrap();
    }
}

#[test]
fn a_pod_whose_network_is_the_hosts_and_that_waits_for_nobody_has_no_filter() {
    let with = |network: &str, presence: &str| {
        let text = POLICY
            .replacen("[[registry]]", &format!("[network]\n{network}\n[[registry]]"), 1)
            .replacen(
                "name = \"server\"",
                &format!("name = \"server\"\npresence = \"{presence}\""),
                1,
            );
        Filter::is_wanted(&Policy::parse(&text).unwrap())
    };
    let any = "egress = \"any\"\ningress = \"any\"";
    assert!(!with(any, "optional"));
    assert!(with(any, "running") && with("egress = \"any\"", "optional") && with("", "optional"));
}

#[tokio::test]
async fn what_was_refused_is_told_roughly() {
    let events = Events::new();
    let some = Refused {
        incoming: 0,
        outgoing: 5,
    };
    assert_eq!(report(Refused::default(), some, &events), some);
    assert_eq!(report(some, some, &events), some);
    let event = events.next(0).await;
    assert_eq!(
        event.text,
        "policy denies packets: [network] egress does not name where at most 8 of the pod's containers were going"
    );
    let more = tokio::time::timeout(Duration::from_millis(20), events.next(1)).await;
    assert!(more.is_err());
}
