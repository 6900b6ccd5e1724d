//! Whether this guest has randomness that the host does not choose.
//!
//! Keys are made seconds after boot. The kernel seeds itself from RDRAND at once (`random.trust_cpu=y`, part of the
//! measured command line); without the instruction it would wait for jitter that the host can watch, and a seed from the
//! boot loader is not trusted. So both must hold, or the guest powers off (threat T10).

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Checks `proc_root`/cpuinfo and the random device below `dev_root`.
pub fn check(proc_root: &Path, dev_root: &Path) -> Result<(), EntropyError> {
    let cpuinfo = fs::read_to_string(proc_root.join("cpuinfo")).map_err(EntropyError::Cpuinfo)?;
    if !has_rdrand(&cpuinfo) {
        return Err(EntropyError::NoRdrand);
    }
    // /dev/random gives nothing before the kernel's generator is seeded, and O_NONBLOCK turns waiting into an error.
    let mut device = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(dev_root.join("random"))
        .map_err(EntropyError::Device)?;
    device.read_exact(&mut [0; 16]).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => EntropyError::NotSeeded,
        _ => EntropyError::Device(error),
    })
}

/// Why no key may be made here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntropyError {
    /// The processor does not say that it has RDRAND.
    #[error("the processor has no RDRAND: there is no entropy that the host does not choose")]
    NoRdrand,
    /// The kernel's generator has no seed yet.
    #[error("the kernel's random generator is not seeded")]
    NotSeeded,
    /// The processor's features could not be read.
    #[error("reading the processor's features failed")]
    Cpuinfo(#[source] io::Error),
    /// The random device failed.
    #[error("reading the random device failed")]
    Device(#[source] io::Error),
}

/// Every processor must have it: the kernel runs on all of them.
fn has_rdrand(cpuinfo: &str) -> bool {
    let mut lines = cpuinfo.lines().filter_map(|line| line.strip_prefix("flags")).peekable();
    lines.peek().is_some() && lines.all(|flags| flags.split_ascii_whitespace().any(|flag| flag == "rdrand"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH: &str = "processor\t: 0\nflags\t\t: fpu rdrand sse\n";
    const WITHOUT: &str = "processor\t: 1\nflags\t\t: fpu rdrandx sse\n";

    #[test]
    fn the_flag_is_wanted_on_every_processor() {
        assert!(has_rdrand(WITH));
        assert!(has_rdrand(&format!("{WITH}{WITH}")));
        assert!(!has_rdrand(WITHOUT));
        assert!(!has_rdrand(&format!("{WITH}{WITHOUT}")));
        assert!(!has_rdrand(""));
    }

    #[test]
    fn a_short_or_missing_device_fails_closed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cpuinfo"), WITH).unwrap();
        assert!(matches!(check(dir.path(), dir.path()), Err(EntropyError::Device(_))));
        fs::write(dir.path().join("random"), "short").unwrap();
        assert!(matches!(check(dir.path(), dir.path()), Err(EntropyError::Device(_))));
        fs::write(dir.path().join("random"), [7; 16]).unwrap();
        assert!(check(dir.path(), dir.path()).is_ok());
        fs::write(dir.path().join("cpuinfo"), WITHOUT).unwrap();
        assert!(matches!(check(dir.path(), dir.path()), Err(EntropyError::NoRdrand)));
    }
}
