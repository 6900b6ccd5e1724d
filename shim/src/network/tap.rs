//! Taps: Ethernet interfaces whose other end is a descriptor, which QEMU gets.
#![allow(unsafe_code, reason = "ioctl: the tun driver has no other interface for it")]

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::ioctl::{IntegerSetter, Updater, ioctl};

const TUNSETIFF: u32 = 0x4004_54ca;
const TUNSETPERSIST: u32 = 0x4004_54cb;
/// `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`: Ethernet frames, each behind a virtio-net header, which carries what is left to do of
/// checksums and segmentation across the two interfaces.
const FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;
/// Longest name of an interface, in bytes.
const NAME: usize = 15;

/// `struct ifreq` as TUNSETIFF takes it.
type InterfaceRequest = [u8; 40];

/// Opens the driver in the network namespace of the calling thread.
///
/// # Errors
/// No such device, or no permission.
pub(super) fn open() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(openat(CWD, "/dev/net/tun", flags, Mode::empty())?)
}

/// Makes the tap `name` behind `driver`, or takes over one of that name that nobody holds; it goes with its last descriptor.
///
/// # Errors
/// EBUSY: somebody holds it. EINVAL: another kind of interface has the name.
pub(super) fn make(driver: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request: InterfaceRequest = [0; 40];
    match request.get_mut(..name.len()) {
        Some(field) if name.len() <= NAME => field.copy_from_slice(name.as_bytes()),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    if let Some(field) = request.get_mut(16..18) {
        field.copy_from_slice(&FLAGS.to_ne_bytes());
    }
    // SAFETY: TUNSETIFF reads and writes one struct ifreq, which has 40 bytes on 64-bit Linux; the array outlives the call.
    unsafe { ioctl(driver, Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request)) }?;
    // One that was made to stay is made to go. SAFETY: TUNSETPERSIST takes an integer, 0 or 1.
    unsafe { ioctl(driver, IntegerSetter::<TUNSETPERSIST>::new_usize(0)) }?;
    Ok(())
}
