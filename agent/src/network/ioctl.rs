//! The handful of ioctls that set up an interface. Netlink would need a crate for as many messages.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::errno::Errno;

use super::plan::RoutePlan;

/// Sockets to ask by.
pub(super) struct Control {
    ipv4: OwnedFd,
    /// `None` where the kernel has no IPv6.
    ipv6: Option<OwnedFd>,
}

impl Control {
    pub(super) fn open() -> Result<Self, Errno> {
        Ok(Self {
            ipv4: socket(libc::AF_INET)?,
            ipv6: socket(libc::AF_INET6).ok(),
        })
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        let mut request = request(from)?;
        request.ifr_ifru.ifru_newname = interface_name(to)?;
        self.interface(libc::SIOCSIFNAME, &mut request)
    }

    pub(super) fn set_mtu(&self, name: &str, mtu: u16) -> Result<(), Errno> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_mtu = mtu.into();
        self.interface(libc::SIOCSIFMTU, &mut request)
    }

    pub(super) fn up(&self, name: &str) -> Result<(), Errno> {
        let mut request = request(name)?;
        self.interface(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: SIOCGIFFLAGS has just written this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let up = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(|_| Errno::EINVAL)?;
        request.ifr_ifru.ifru_flags = flags | up;
        self.interface(libc::SIOCSIFFLAGS, &mut request)
    }

    pub(super) fn add_ipv4(&self, name: &str, address: Ipv4Addr, prefix: u8) -> Result<(), Errno> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_addr = ipv4(address);
        self.interface(libc::SIOCSIFADDR, &mut request)?;
        request.ifr_ifru.ifru_netmask = ipv4(netmask(prefix));
        self.interface(libc::SIOCSIFNETMASK, &mut request)
    }

    pub(super) fn add_ipv6(&self, name: &str, address: Ipv6Addr, prefix: u8) -> Result<(), Errno> {
        let mut request = libc::in6_ifreq {
            ifr6_addr: ipv6(address),
            ifr6_prefixlen: prefix.into(),
            ifr6_ifindex: self.index(name)?,
        };
        self.ioctl_ipv6(libc::SIOCSIFADDR, &raw mut request)
    }

    pub(super) fn add_route(&self, route: &RoutePlan) -> Result<(), Errno> {
        match (route.destination.address, route.gateway) {
            (IpAddr::V4(destination), gateway) => {
                let gateway = match gateway {
                    Some(IpAddr::V4(gateway)) => Some(gateway),
                    Some(IpAddr::V6(_)) => return Err(Errno::EAFNOSUPPORT),
                    None => None,
                };
                self.add_ipv4_route(route, destination, gateway)
            }
            (IpAddr::V6(destination), gateway) => {
                let gateway = match gateway {
                    Some(IpAddr::V6(gateway)) => Some(gateway),
                    Some(IpAddr::V4(_)) => return Err(Errno::EAFNOSUPPORT),
                    None => None,
                };
                self.add_ipv6_route(route, destination, gateway)
            }
        }
    }

    fn add_ipv4_route(&self, route: &RoutePlan, to: Ipv4Addr, gateway: Option<Ipv4Addr>) -> Result<(), Errno> {
        let mut device = CString::new(route.interface.as_str())
            .map_err(|_| Errno::EINVAL)?
            .into_bytes_with_nul();
        // SAFETY: rtentry is plain data; all zeroes are a valid value.
        let mut entry: libc::rtentry = unsafe { mem::zeroed() };
        let mask = netmask(route.destination.prefix);
        entry.rt_dst = ipv4(to & mask);
        entry.rt_genmask = ipv4(mask);
        entry.rt_flags = libc::RTF_UP;
        if let Some(gateway) = gateway {
            entry.rt_gateway = ipv4(gateway);
            entry.rt_flags |= libc::RTF_GATEWAY;
        }
        if route.destination.prefix == 32 {
            entry.rt_flags |= libc::RTF_HOST;
        }
        entry.rt_dev = device.as_mut_ptr().cast();
        // SAFETY: the kernel reads one rtentry and the NUL-terminated name it points to; both outlive the call.
        let result = unsafe { libc::ioctl(self.ipv4.as_raw_fd(), libc::SIOCADDRT, &raw mut entry) };
        Errno::result(result).map(drop)
    }

    fn add_ipv6_route(&self, route: &RoutePlan, to: Ipv6Addr, gateway: Option<Ipv6Addr>) -> Result<(), Errno> {
        let via_gateway = if gateway.is_some() { libc::RTF_GATEWAY } else { 0 };
        let mut message = Ipv6RouteMessage {
            destination: to.octets(),
            source: [0; 16],
            gateway: gateway.unwrap_or(Ipv6Addr::UNSPECIFIED).octets(),
            kind: 0,
            destination_len: route.destination.prefix.into(),
            source_len: 0,
            metric: 1,
            info: 0,
            flags: u32::from(libc::RTF_UP | via_gateway),
            index: self.index(&route.interface)?,
        };
        self.ioctl_ipv6(libc::SIOCADDRT, &raw mut message)
    }

    fn index(&self, name: &str) -> Result<libc::c_int, Errno> {
        let mut request = request(name)?;
        self.interface(libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: SIOCGIFINDEX has just written this member of the union.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex })
    }

    fn interface(&self, number: libc::c_ulong, request: &mut libc::ifreq) -> Result<(), Errno> {
        // SAFETY: every number used here reads and writes one ifreq, which is borrowed for the call.
        Errno::result(unsafe { libc::ioctl(self.ipv4.as_raw_fd(), number, &raw mut *request) }).map(drop)
    }

    /// `argument` points to what `number` reads: an `in6_ifreq` or [`Ipv6RouteMessage`] of the caller's.
    fn ioctl_ipv6<T>(&self, number: libc::c_ulong, argument: *mut T) -> Result<(), Errno> {
        let socket = self.ipv6.as_ref().ok_or(Errno::EAFNOSUPPORT)?;
        // SAFETY: both callers pass the address of a live local of the type that the number wants.
        Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), number, argument) }).map(drop)
    }
}

/// `struct in6_rtmsg` of `linux/ipv6_route.h`, whose fields libc keeps to itself.
#[repr(C)]
struct Ipv6RouteMessage {
    destination: [u8; 16],
    source: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    destination_len: u16,
    source_len: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    index: libc::c_int,
}

fn socket(family: libc::c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: takes integers only.
    let fd = Errno::result(unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn request(name: &str) -> Result<libc::ifreq, Errno> {
    // SAFETY: ifreq is plain data; all zeroes are a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_name = interface_name(name)?;
    Ok(request)
}

/// A name in the kernel's form: NUL-terminated within 16 bytes.
fn interface_name(name: &str) -> Result<[libc::c_char; libc::IFNAMSIZ], Errno> {
    let mut field = [0; libc::IFNAMSIZ];
    if name.is_empty() || name.len() >= field.len() || name.contains('\0') {
        return Err(Errno::EINVAL);
    }
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(field)
}

fn ipv4(address: Ipv4Addr) -> libc::sockaddr {
    let [a, b, c, d] = address.octets().map(|byte| libc::c_char::from_ne_bytes([byte]));
    // A sockaddr_in: family, port 0, address, padding.
    libc::sockaddr {
        sa_family: 2,
        sa_data: [0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0],
    }
}

fn ipv6(address: Ipv6Addr) -> libc::in6_addr {
    libc::in6_addr {
        s6_addr: address.octets(),
    }
}

fn netmask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netmasks() {
        assert_eq!(netmask(0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(netmask(24), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(netmask(32), Ipv4Addr::BROADCAST);
    }

    #[test]
    fn the_route_message_is_as_large_as_the_kernels() {
        assert_eq!(size_of::<Ipv6RouteMessage>(), size_of::<libc::in6_rtmsg>());
    }

    #[test]
    fn names_fit_the_kernels_field() {
        assert!(interface_name("eth0").is_ok());
        assert_eq!(interface_name(""), Err(Errno::EINVAL));
        assert_eq!(interface_name("0123456789abcdef"), Err(Errno::EINVAL));
    }

    #[test]
    fn the_loopback_has_an_index() {
        assert_eq!(Control::open().unwrap().index("lo"), Ok(1));
    }
}
