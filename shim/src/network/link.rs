//! Interfaces of the namespace that the calling thread is in.

use super::netlink::{Attributes, Netlink, NetlinkError, Request, attribute, text, u16_at, u32_at};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// Bytes of `struct ifinfomsg`.
const FIXED: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Its hardware address, where it is Ethernet.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: u32,
    /// Made by the tun driver.
    pub(super) is_tap: bool,
    flags: u32,
}

impl Link {
    /// Can be handed to a guest: Ethernet, up, not the loopback.
    pub(super) fn is_for_guest(&self) -> bool {
        self.mac.is_some() && self.flags & (IFF_UP | IFF_LOOPBACK) == IFF_UP
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.flags & IFF_LOOPBACK != 0
    }

    pub(super) fn is_up(&self) -> bool {
        self.flags & IFF_UP != 0
    }

    /// From an RTM_NEWLINK without its header.
    fn parse(payload: &[u8]) -> Option<Self> {
        let address = attribute(payload, FIXED, IFLA_ADDRESS).and_then(|bytes| bytes.try_into().ok());
        Some(Self {
            index: u32_at(payload, 4)?,
            name: text(attribute(payload, FIXED, IFLA_IFNAME)?)?.to_owned(),
            mac: address.filter(|_| u16_at(payload, 2) == Some(ETHERNET)),
            mtu: u32_at(attribute(payload, FIXED, IFLA_MTU)?, 0)?,
            is_tap: attribute(payload, FIXED, IFLA_LINKINFO)
                .and_then(|info| attribute(info, 0, IFLA_INFO_KIND))
                .and_then(text)
                .is_some_and(|kind| kind == "tun"),
            flags: u32_at(payload, 8)?,
        })
    }

    /// An interface that a guest may have.
    #[cfg(test)]
    pub(super) fn sample(index: u8, name: &str, mtu: u32) -> Self {
        Self {
            index: index.into(),
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, index]),
            mtu,
            is_tap: false,
            flags: IFF_UP,
        }
    }
}

/// Every interface, by index: the order in which CNI made them.
pub(super) fn links(netlink: &mut Netlink) -> Result<Vec<Link>, NetlinkError> {
    let request = Request {
        action: "list interfaces",
        kind: RTM_GETLINK,
        flags: 0,
        fixed: &[0; FIXED],
        attributes: Attributes::new(),
    };
    let mut links = netlink.list(&request, Link::parse)?;
    links.sort_by_key(|link| link.index);
    Ok(links)
}

/// Brings an interface up, with this MTU if one is given.
pub(super) fn set_up(netlink: &mut Netlink, index: u32, mtu: Option<u32>) -> Result<(), NetlinkError> {
    let attributes = mtu.into_iter().fold(Attributes::new(), |a, mtu| a.u32(IFLA_MTU, mtu));
    netlink.done(Request {
        action: "bring an interface up",
        kind: RTM_NEWLINK,
        flags: 0,
        fixed: &fixed(index, IFF_UP),
        attributes,
    })
}

/// Keeps an interface that is still down from giving itself an IPv6 address, so that the namespace's own kernel says nothing
/// on it. A kernel without IPv6 refuses, and needs it not.
pub(super) fn silence(netlink: &mut Netlink, index: u32) -> Result<(), NetlinkError> {
    // IFLA_AF_SPEC, of AF_INET6: IFLA_INET6_ADDR_GEN_MODE = IN6_ADDR_GEN_MODE_NONE.
    let none = Attributes::new().bytes(8, &[1]);
    netlink.done(Request {
        action: "keep an interface from having an IPv6 address",
        kind: RTM_NEWLINK,
        flags: 0,
        fixed: &fixed(index, 0),
        attributes: Attributes::new().nested(26, Attributes::new().nested(10, none)),
    })
}

/// `struct ifinfomsg` that sets the flags which are 1.
fn fixed(index: u32, flags: u32) -> [u8; FIXED] {
    let mut bytes = [0; FIXED];
    for (at, value) in [(4, index), (8, flags), (12, flags)] {
        if let Some(field) = bytes.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u32, mac: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[2..4].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&7u32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
        let attributes = Attributes::new()
            .text(IFLA_IFNAME, "eth0")
            .u32(IFLA_MTU, 1400)
            .bytes(IFLA_ADDRESS, mac);
        bytes.extend(attributes.as_bytes());
        bytes
    }

    #[test]
    fn an_interface_is_for_the_guest_if_it_is_ethernet_and_up() {
        let mac = [2, 0, 0, 0, 0, 9];
        let link = Link::parse(&message(ETHERNET, IFF_UP, &mac)).unwrap();
        assert_eq!(
            (link.index, link.name.as_str(), link.mac, link.mtu),
            (7, "eth0", Some(mac), 1400)
        );
        assert!(link.is_for_guest());
        // sit0, tunl0: not Ethernet. A link that is down. The loopback.
        for (kind, flags) in [(776, IFF_UP), (ETHERNET, 0), (772, IFF_UP | IFF_LOOPBACK)] {
            assert!(!Link::parse(&message(kind, flags, &mac)).unwrap().is_for_guest());
        }
        assert_eq!(Link::parse(&message(ETHERNET, IFF_UP, &[1; 20])).unwrap().mac, None);
    }

    #[test]
    fn a_message_that_is_cut_short_is_no_interface() {
        let bytes = message(ETHERNET, IFF_UP, &[2; 6]);
        for end in 0..FIXED + 12 {
            assert_eq!(Link::parse(&bytes[..end]), None, "{end}");
        }
    }
}
