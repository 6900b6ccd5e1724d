//! The one request to the kernel's random device that is no read or write.
#![allow(unsafe_code)] // an ioctl that nix has not

use std::{fs::File, io, os::fd::AsRawFd};

/// Has the generator take what was mixed in as its seed now, and not within the minute. One that has no seed yet is no error
/// here: reading from it is.
pub(super) fn reseed(device: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call, and this ioctl reads and writes no memory of ours.
    if unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENODATA) {
        Ok(())
    } else {
        Err(error)
    }
}

/// random(4): `_IO('R', 7)`.
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
