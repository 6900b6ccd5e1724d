//! Taps and redirects.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use cella_shim::network::{NetworkError, PodNetwork, attach, detach};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use slog::Logger;

use crate::lab::{Lab, POD_MAC};

const PATIENCE: Duration = Duration::from_secs(5);
/// `struct virtio_net_hdr`: nothing left to do.
const NO_OFFLOAD: [u8; 10] = [0; 10];

fn log() -> Logger {
    Logger::root(slog::Discard, slog::o!())
}

/// An ARP question for 10.88.77.1 as the guest would send it.
fn question() -> Vec<u8> {
    let mut frame = NO_OFFLOAD.to_vec();
    frame.extend([0xff; 6]);
    frame.extend(POD_MAC);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(POD_MAC);
    frame.extend([10, 88, 77, 2]);
    frame.extend([0; 6]);
    frame.extend([10, 88, 77, 1]);
    frame
}

/// The next frame from the guest's side for which `wanted` holds, without its virtio header.
fn frame(tap: &mut std::fs::File, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 4096];
    loop {
        match tap.read(&mut buffer) {
            Ok(length) if wanted(&buffer[NO_OFFLOAD.len()..length]) => {
                return buffer[NO_OFFLOAD.len()..length].to_vec();
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let second = Timespec { tv_sec: 1, tv_nsec: 0 };
                poll(&mut [PollFd::new(&tap.as_fd(), PollFlags::IN)], Some(&second)).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "no such frame");
    }
}

fn is_arp_answer(frame: &[u8]) -> bool {
    frame.get(..6) == Some(&POD_MAC) && frame.get(12..14) == Some(&[0x08, 0x06]) && frame.get(20..22) == Some(&[0, 2])
}

#[test]
fn packets_cross_between_the_pods_interface_and_the_tap() {
    let lab = Lab::bridged();
    let netns = lab.pod();
    let attachment = attach(&netns, &log()).unwrap();
    assert_eq!(attachment.cards.len(), 1);
    assert_eq!(attachment.cards[0].mac.0, POD_MAC);
    let tap: OwnedFd = attachment.cards.into_iter().next().unwrap().tap;
    let mut tap = std::fs::File::from(tap);
    // Out: the node's bridge hears the question. In: its answer ends at the tap, not in the pod's namespace.
    tap.write_all(&question()).unwrap();
    let answer = frame(&mut tap, is_arp_answer);
    assert_eq!(answer[28..32], [10, 88, 77, 1]);
    let links = lab.in_pod("ip -o link show cella0");
    assert!(links.contains("mtu 1400") && links.contains("UP"), "{links}");
    let own = lab.in_pod("ip -6 address show dev cella0");
    assert_eq!(own, "", "the namespace's own kernel would talk to the guest");
    drop(tap);
    detach(netns.id()).unwrap();
    lab.assert_untouched();
}

#[test]
fn the_guest_is_told_what_cni_told_the_interface() {
    let lab = Lab::bridged();
    lab.in_pod("ip neighbour add 10.88.77.9 lladdr 02:00:00:00:00:99 dev eth0 nud permanent");
    lab.in_pod("ip route add 10.1.0.0/16 via 10.88.77.7");
    lab.in_pod("ip route add 10.2.0.0/16 dev eth0 scope link");
    let netns = lab.pod();
    let PodNetwork { interfaces, routes } = attach(&netns, &log()).unwrap().network;
    detach(netns.id()).unwrap();
    let eth0 = &interfaces[0];
    assert_eq!((eth0.name.as_str(), eth0.mtu, eth0.mac.0), ("eth0", 1400, POD_MAC));
    let addresses: Vec<String> = eth0.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.88.77.2/24", "fd00:88:77::2/64"]);
    assert_eq!(eth0.neighbours.len(), 1);
    assert_eq!(
        (eth0.neighbours[0].0.to_string(), eth0.neighbours[0].1.to_string()),
        ("10.88.77.9".into(), "02:00:00:00:00:99".into())
    );
    let mut shown: Vec<String> = routes
        .iter()
        .map(|route| {
            let gateway = route.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
            format!("{} {gateway}", route.destination)
        })
        .collect();
    assert_eq!(shown[0], "10.2.0.0/16 ", "on the link, so first");
    shown.sort();
    let expected = [
        "0.0.0.0/0 10.88.77.1",
        "10.1.0.0/16 10.88.77.7",
        "10.2.0.0/16 ",
        "::/0 fd00:88:77::1",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn several_interfaces_keep_their_order() {
    let lab = Lab::bridged();
    lab.add_interface("net1", 3);
    let netns = lab.pod();
    let attachment = attach(&netns, &log()).unwrap();
    let names: Vec<&str> = attachment.network.interfaces.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["eth0", "net1"]);
    let macs: Vec<u8> = attachment.cards.iter().map(|card| card.mac.0[5]).collect();
    assert_eq!(macs, [2, 3]);
    assert!(lab.in_pod("ip -o link show").contains("cella1"));
    drop(attachment);
    detach(netns.id()).unwrap();
    lab.assert_untouched();
}

#[test]
fn what_a_killed_shim_left_is_replaced_but_not_taken_from_a_vm_that_runs() {
    let lab = Lab::bridged();
    let netns = lab.pod();
    let first = attach(&netns, &log()).unwrap();
    // Its QEMU still has the tap: neither a second VM nor a late clean-up may cut it off.
    let second = attach(&netns, &log());
    assert!(
        matches!(&second, Err(NetworkError::InUse { interface, tap }) if interface == "eth0" && tap == "cella0"),
        "{second:?}"
    );
    detach(netns.id()).unwrap();
    assert!(lab.in_pod("tc qdisc show dev eth0").contains("ingress"));
    // QEMU ends, and with it the tap; the qdisc of eth0 stays.
    drop(first);
    let qdiscs = lab.in_pod("tc qdisc show dev eth0");
    assert!(qdiscs.contains("ingress"), "{qdiscs}");
    let third = attach(&netns, &log()).unwrap();
    let mut tap = std::fs::File::from(third.cards.into_iter().next().unwrap().tap);
    tap.write_all(&question()).unwrap();
    frame(&mut tap, is_arp_answer);
    drop(tap);
    detach(netns.id()).unwrap();
    detach(netns.id()).unwrap();
    lab.assert_untouched();
}

#[test]
fn a_tap_that_was_made_to_stay_is_taken_over() {
    let lab = Lab::bridged();
    lab.in_pod("ip tuntap add dev cella0 mode tap vnet_hdr");
    let netns = lab.pod();
    drop(attach(&netns, &log()).unwrap());
    detach(netns.id()).unwrap();
    lab.assert_untouched();
}

#[test]
fn anothers_filter_is_not_removed() {
    let lab = Lab::bridged();
    let netns = lab.pod();
    let refused = || match attach(&netns, &log()) {
        Err(NetworkError::Foreign { interface, what }) => format!("{interface}: {what}"),
        other => panic!("{other:?}"),
    };
    lab.in_pod("tc qdisc add dev eth0 clsact");
    assert_eq!(refused(), "eth0: clsact qdisc");
    detach(netns.id()).unwrap();
    assert!(lab.in_pod("tc qdisc show dev eth0").contains("clsact"));
    lab.in_pod("tc qdisc del dev eth0 clsact");
    lab.in_pod("tc qdisc add dev eth0 ingress");
    lab.in_pod("tc filter add dev eth0 parent ffff: protocol all u32 match u8 0 0 flowid :1");
    assert_eq!(refused(), "eth0: filter on its ingress qdisc");
    detach(netns.id()).unwrap();
    let filters = lab.in_pod("tc filter show dev eth0 parent ffff:");
    assert!(filters.contains("flowid :1"), "{filters}");
}

#[test]
fn a_namespace_without_an_interface_is_refused() {
    let lab = Lab::empty();
    let netns = lab.pod();
    let refused = attach(&netns, &log());
    assert!(
        matches!(&refused, Err(NetworkError::NoInterface { path }) if *path == lab.pod_path()),
        "{refused:?}"
    );
}

#[test]
fn a_namespace_that_is_gone_needs_no_cleaning() {
    let lab = Lab::bridged();
    let id = {
        let netns = lab.pod();
        drop(attach(&netns, &log()).unwrap());
        netns.id().clone()
    };
    drop(lab);
    detach(&id).unwrap();
}
