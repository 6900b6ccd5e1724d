//! Addresses, routes and neighbours by rtnetlink: the three messages that ioctls cannot say (a second IPv4 address, a
//! gateway outside every subnet, an IPv6 neighbour).
#![allow(unsafe_code)] // a netlink socket

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use nix::errno::Errno;

use super::plan::{AddressPlan, Neighbour, RoutePlan};

/// A socket to the kernel's network configuration.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> Result<Self, Errno> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: takes integers only.
        let fd = Errno::result(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) })?;
        // SAFETY: the kernel has just made this descriptor for us alone.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { socket, sequence: 0 })
    }

    /// Gives the interface of number `index` an address, usable at once: nobody is asked whether it is taken.
    pub(super) fn add_address(&mut self, index: u32, plan: &AddressPlan) -> Result<(), Errno> {
        self.ask(address(index, plan))
    }

    /// Adds a route by the interface of number `index`. A gateway is on the link whatever the addresses say.
    pub(super) fn add_route(&mut self, index: u32, plan: &RoutePlan) -> Result<(), Errno> {
        self.ask(route(index, plan))
    }

    /// Sets a neighbour that need not answer.
    pub(super) fn add_neighbour(&mut self, index: u32, plan: &Neighbour) -> Result<(), Errno> {
        self.ask(neighbour(index, plan))
    }

    /// Sends one request and waits for its acknowledgement. What is there already is there.
    fn ask(&mut self, message: Message) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.finish(self.sequence);
        let fd = self.socket.as_raw_fd();
        // SAFETY: the kernel reads the buffer, whose length goes with it.
        Errno::result(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), 0) })?;
        let mut answer = [0_u8; 1024];
        loop {
            let room = answer.len();
            let flags = libc::MSG_TRUNC;
            // SAFETY: the kernel writes at most `room` bytes into a live buffer of that size; no address is asked for.
            let received = unsafe {
                libc::recvfrom(
                    fd,
                    answer.as_mut_ptr().cast(),
                    room,
                    flags,
                    ptr::null_mut(),
                    ptr::null_mut(),
                )
            };
            let count = usize::try_from(Errno::result(received)?).map_err(|_| Errno::EBADMSG)?;
            match acknowledgement(answer.get(..count).ok_or(Errno::EMSGSIZE)?, self.sequence) {
                Some(0) | Some(libc::EEXIST) => return Ok(()),
                Some(number) => return Err(Errno::from_raw(number)),
                // An answer to something else.
                None => {}
            }
        }
    }
}

/// The error number of the acknowledgement of `sequence`, 0 = done.
fn acknowledgement(bytes: &[u8], sequence: u32) -> Option<i32> {
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    if i32::from(kind) != libc::NLMSG_ERROR || word(8)? != sequence {
        return None;
    }
    let negative = i32::from_ne_bytes(*bytes.get(16..)?.first_chunk()?);
    Some(negative.checked_neg().unwrap_or(libc::EBADMSG))
}

fn address(index: u32, plan: &AddressPlan) -> Message {
    // struct ifaddrmsg: family, prefix, flags, scope, index.
    let flags = if plan.address.is_ipv6() {
        NO_DUPLICATE_DETECTION
    } else {
        0
    };
    let mut message = Message::new(libc::RTM_NEWADDR, NEW);
    message.bytes(&[family(plan.address), plan.prefix, flags, libc::RT_SCOPE_UNIVERSE]);
    message.bytes(&index.to_ne_bytes());
    message.attribute(libc::IFA_LOCAL, &octets(plan.address));
    message.attribute(libc::IFA_ADDRESS, &octets(plan.address));
    if let (IpAddr::V4(v4), 0..=30) = (plan.address, plan.prefix) {
        let broadcast = v4.to_bits() | u32::MAX.checked_shr(plan.prefix.into()).unwrap_or(0);
        message.attribute(libc::IFA_BROADCAST, &broadcast.to_be_bytes());
    }
    message
}

fn route(index: u32, plan: &RoutePlan) -> Message {
    let AddressPlan { address: to, prefix } = plan.destination;
    let (scope, flags) = match plan.gateway {
        Some(_) => (libc::RT_SCOPE_UNIVERSE, ON_LINK),
        None if to.is_ipv4() => (libc::RT_SCOPE_LINK, 0),
        None => (libc::RT_SCOPE_UNIVERSE, 0),
    };
    // struct rtmsg: family, destination's and source's prefix, service, table, who made it, scope, type, flags.
    let mut message = Message::new(libc::RTM_NEWROUTE, NEW);
    message.bytes(&[family(to), prefix, 0, 0]);
    message.bytes(&[libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST]);
    message.bytes(&flags.to_ne_bytes());
    if prefix > 0 {
        message.attribute(libc::RTA_DST, &octets(masked(to, prefix)));
    }
    if let Some(gateway) = plan.gateway {
        message.attribute(libc::RTA_GATEWAY, &octets(gateway));
    }
    message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
    message
}

fn neighbour(index: u32, plan: &Neighbour) -> Message {
    // struct ndmsg: family, padding, index, state, flags, type.
    let mut message = Message::new(libc::RTM_NEWNEIGH, NEW_OR_OTHER);
    message.bytes(&[family(plan.address), 0, 0, 0]);
    message.bytes(&index.to_ne_bytes());
    message.bytes(&libc::NUD_PERMANENT.to_ne_bytes());
    message.bytes(&[0, 0]);
    message.attribute(libc::NDA_DST, &octets(plan.address));
    message.attribute(libc::NDA_LLADDR, &plan.hardware_address);
    message
}

/// A request under construction.
struct Message {
    kind: u16,
    flags: libc::c_int,
    body: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: libc::c_int) -> Self {
        Self {
            kind,
            flags,
            body: Vec::with_capacity(64),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    /// A length, a type, the value, and padding to four bytes.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX).saturating_add(4);
        self.bytes(&length.to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    /// With its header: length, type, flags, sequence number, sender.
    fn finish(self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.body.len()).unwrap_or(u32::MAX).saturating_add(16);
        let flags = u16::try_from(self.flags).unwrap_or(0);
        let mut bytes = Vec::with_capacity(self.body.len().saturating_add(16));
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    u8::try_from(family).unwrap_or(0)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The first address of the network: the kernel refuses a destination with further bits.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128_u32.saturating_sub(prefix.into()))
                .unwrap_or(0);
            std::net::Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

const NEW: libc::c_int = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const NEW_OR_OTHER: libc::c_int = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;

/// `IFA_F_NODAD`.
const NO_DUPLICATE_DETECTION: u8 = 2;

/// `RTNH_F_ONLINK`.
const ON_LINK: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> AddressPlan {
        let (address, prefix) = text.split_once('/').unwrap();
        AddressPlan {
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        }
    }

    #[test]
    fn messages_have_the_kernels_form() {
        let bytes = address(3, &plan("10.0.2.15/24")).finish(7);
        let expected = [
            48, 0, 0, 0, 20, 0, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, // header
            2, 24, 0, 0, 3, 0, 0, 0, // ifaddrmsg
            8, 0, 2, 0, 10, 0, 2, 15, // local
            8, 0, 1, 0, 10, 0, 2, 15, // address
            8, 0, 4, 0, 10, 0, 2, 255, // broadcast
        ];
        assert_eq!(bytes, expected);
        let neighbour = Neighbour {
            address: "fd00::1".parse().unwrap(),
            hardware_address: [2, 0, 0, 0, 0, 1],
        };
        // The hardware address is padded, and its length does not count the padding.
        let bytes = super::neighbour(3, &neighbour).finish(1);
        assert_eq!((bytes.len(), &bytes[48..52]), (60, &[10, 0, 2, 0][..]));
    }

    #[test]
    fn destinations_lose_the_bits_behind_their_prefix() {
        assert_eq!(masked("10.1.2.3".parse().unwrap(), 8).to_string(), "10.0.0.0");
        assert_eq!(masked("fd00:1::3".parse().unwrap(), 16).to_string(), "fd00::");
        assert_eq!(masked("10.1.2.3".parse().unwrap(), 0).to_string(), "0.0.0.0");
        assert_eq!(masked("10.1.2.3".parse().unwrap(), 32).to_string(), "10.1.2.3");
    }

    #[test]
    fn acknowledgements_are_told_from_other_answers() {
        let mut answer = Message::new(2, 0);
        answer.bytes(&(-17_i32).to_ne_bytes());
        let answer = answer.finish(9);
        assert_eq!(acknowledgement(&answer, 9), Some(17));
        assert_eq!(acknowledgement(&answer, 8), None);
        for cut in 0..20 {
            assert_eq!(acknowledgement(&answer[..cut], 9), None, "{cut}");
        }
    }

    #[test]
    fn the_kernel_takes_them() {
        // In a network namespace of this thread's own.
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            eprintln!("skipped: needs root to make a network namespace");
            return;
        }
        let made = std::process::Command::new("ip")
            .args(["link", "add", "v0", "type", "veth", "peer", "name", "v1"])
            .status();
        assert!(made.unwrap().success());
        let control = super::super::ioctl::Control::open().unwrap();
        for name in ["lo", "v0", "v1"] {
            control.up(name).unwrap();
        }
        let index = control.index("v0").unwrap();
        let mut netlink = Netlink::open().unwrap();
        for address in [
            "10.0.2.15/24",
            "10.0.2.16/24",
            "10.1.0.1/32",
            "fd00::15/64",
            "fd00::16/128",
        ] {
            netlink.add_address(index, &plan(address)).unwrap();
            netlink.add_address(index, &plan(address)).unwrap();
        }
        for (to, gateway) in [
            ("192.168.7.0/24", None),
            ("0.0.0.0/0", Some("169.254.1.1")),
            ("fd01::/64", None),
            ("::/0", Some("fe80::1")),
        ] {
            let route = RoutePlan {
                destination: plan(to),
                gateway: gateway.map(|text| text.parse().unwrap()),
                interface: "v0".into(),
            };
            netlink.add_route(index, &route).unwrap();
        }
        let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap();
        assert!(routes.contains("v0\t00000000\t0101FEA9\t"), "{routes}");
        let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
        assert!(routes.contains("fe800000000000000000000000000001"), "{routes}");
        let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        // Flags 0x82: permanent, no detection of duplicates; not tentative.
        assert!(addresses.contains(" 40 00 82       v0"), "{addresses}");
        let refused = netlink.add_address(4711, &plan("10.9.9.9/24")).unwrap_err();
        assert_eq!(refused, Errno::ENODEV);
    }
}
