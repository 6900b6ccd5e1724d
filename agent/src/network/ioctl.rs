//! The ioctls that name an interface and bring it up; [`super::netlink`] does the rest.
#![allow(unsafe_code)]

use std::{
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::errno::Errno;

/// A socket to ask by.
pub(super) struct Control(OwnedFd);

impl Control {
    pub(super) fn open() -> Result<Self, Errno> {
        // SAFETY: takes integers only.
        let fd = Errno::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
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

    /// The number by which netlink knows the interface.
    pub(super) fn index(&self, name: &str) -> Result<u32, Errno> {
        let mut request = request(name)?;
        self.interface(libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: SIOCGIFINDEX has just written this member of the union.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        u32::try_from(index).map_err(|_| Errno::ENODEV)
    }

    fn interface(&self, number: libc::c_ulong, request: &mut libc::ifreq) -> Result<(), Errno> {
        // SAFETY: every number used here reads and writes one ifreq, which is borrowed for the call.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), number, &raw mut *request) }).map(drop)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
