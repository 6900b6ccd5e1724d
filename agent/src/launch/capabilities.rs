//! Linux capabilities: sets, and giving a process exactly one set.
//!
//! A policy's list is what the process gets: bounding, permitted, effective, inheritable and ambient sets are all equal
//! to it, so that it survives `exec` for every user id and nothing else does. What a policy leaves to the host follows the
//! host's customs: only root keeps it.
#![allow(unsafe_code)] // capset and prctl have no safe wrapper in nix

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::StepError;

/// A set of capabilities, bit n = capability n of `linux/capability.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// From numbers below 64; larger ones are no capabilities and are left out.
    pub fn from_numbers(numbers: impl IntoIterator<Item = u8>) -> Self {
        Self(
            numbers
                .into_iter()
                .filter_map(|number| 1_u64.checked_shl(number.into()))
                .fold(0, |set, bit| set | bit),
        )
    }

    fn contains(self, number: u8) -> bool {
        self.0.checked_shr(number.into()).is_some_and(|bits| bits & 1 == 1)
    }

    /// Low and high word, as capset takes them.
    fn words(self) -> [u32; 2] {
        let bytes = self.0.to_le_bytes();
        let [a, b, c, d, e, f, g, h] = bytes;
        [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
    }
}

/// Takes everything outside `set` out of the bounding set. Before the user id changes.
pub(super) fn limit_bounding(set: CapabilitySet) -> Result<(), StepError> {
    for number in (0..64).filter(|number| !set.contains(*number)) {
        match prctl(libc::PR_CAPBSET_DROP, number.into(), 0) {
            // A kernel that does not know the capability cannot grant it.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(StepError::at("drop capability", number.to_string())(errno)),
        }
    }
    Ok(())
}

/// Makes permitted and effective sets equal to `set`; inheritable and ambient ones, too, if it shall survive `exec` for every
/// user, and else empty. After the user id changed.
pub(super) fn apply(set: CapabilitySet, ambient: bool) -> Result<(), StepError> {
    let step = |errno| StepError::at("set capabilities", "of the process")(errno);
    prctl(libc::PR_CAP_AMBIENT, AMBIENT_CLEAR, 0).map_err(step)?;
    let kept = if ambient { set } else { CapabilitySet::default() };
    capset(set, kept).map_err(step)?;
    for number in (0..64).filter(|number| kept.contains(*number)) {
        prctl(libc::PR_CAP_AMBIENT, AMBIENT_RAISE, number.into())
            .map_err(StepError::at("raise capability", number.to_string()))?;
    }
    Ok(())
}

/// Makes `set` effective, and what installing a filter takes without no_new_privs, until [`apply`].
pub(super) fn raise_for_filter(set: CapabilitySet) -> Result<(), StepError> {
    let set = CapabilitySet(set.0 | 1 << SYS_ADMIN);
    capset(set, CapabilitySet::default()).map_err(StepError::at("raise capability", "SYS_ADMIN"))
}

fn capset(set: CapabilitySet, inheritable: CapabilitySet) -> Result<(), Errno> {
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let [low, high] = set.words();
    let [low_kept, high_kept] = inheritable.words();
    let data = [(low, low_kept), (high, high_kept)].map(|(word, kept)| Data {
        effective: word,
        permitted: word,
        inheritable: kept,
    });
    // SAFETY: both point to live values of the layout that _LINUX_CAPABILITY_VERSION_3 demands (one header, two data
    // elements); the kernel only reads them.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(result).map(drop)
}

fn prctl(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> Result<(), Errno> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take plain integers; no memory is passed.
    let result = unsafe { libc::prctl(option, first, second, zero, zero) };
    Errno::result(result).map(drop)
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// `CAP_SYS_ADMIN`.
const SYS_ADMIN: u8 = 21;

/// `PR_CAP_AMBIENT_RAISE` and `PR_CAP_AMBIENT_CLEAR_ALL`, as wide as prctl's arguments.
const AMBIENT_RAISE: libc::c_ulong = 2;
const AMBIENT_CLEAR: libc::c_ulong = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bits() {
        let set = CapabilitySet::from_numbers([0, 10, 40]);
        assert_eq!(set.words(), [1 | 1 << 10, 1 << (40 - 32)]);
        assert!(set.contains(40) && !set.contains(1) && !set.contains(64));
        assert_eq!(CapabilitySet::from_numbers([64, 255]), CapabilitySet::default());
    }
}
