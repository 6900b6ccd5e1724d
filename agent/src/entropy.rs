//! Whether this guest has randomness that the host does not choose, and some of it put where keys come from.
//!
//! Keys are made seconds after boot. The kernel seeds itself from RDRAND at once (`random.trust_cpu=y`, part of the
//! measured command line), and a seed from the boot loader is not trusted. But where the instruction fails it would wait for
//! jitter, which the host can watch, and say no word about it. So the agent draws from the processor itself, mixes that
//! into the kernel's generator and has it take a new seed at once; where the processor gives nothing, or the same again and
//! again, the guest powers off (threat T10).
//!
//! Evidence adds nothing to this: a report leaves the guest, so it is no secret, and the key that SNP derives for a guest is the
//! same at each boot.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

mod device;
mod processor;

/// Checks `proc_root`/cpuinfo and the processor's generator, and feeds the random device below `dev_root`.
pub fn check(proc_root: &Path, dev_root: &Path) -> Result<(), EntropyError> {
    let cpuinfo = fs::read_to_string(proc_root.join("cpuinfo")).map_err(EntropyError::Cpuinfo)?;
    if !has_rdrand(&cpuinfo) {
        return Err(EntropyError::NoRdrand);
    }
    feed(dev_root, &numbers(processor::number)?, device::reseed)
}

/// Why no key may be made here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntropyError {
    /// The processor does not say that it has RDRAND.
    #[error("the processor has no RDRAND: there is no entropy that the host does not choose")]
    NoRdrand,
    /// It says so, and gives nothing.
    #[error("the processor's random generator gives no number")]
    Silent,
    /// It gives the same number twice in a row, which a working one does once in 2^64 times.
    #[error("the processor's random generator repeats itself")]
    Stuck,
    /// The kernel's generator has no seed yet.
    #[error("the kernel's random generator is not seeded")]
    NotSeeded,
    /// The processor's features could not be read.
    #[error("reading the processor's features failed")]
    Cpuinfo(#[source] io::Error),
    /// The random device failed.
    #[error("using the random device failed")]
    Device(#[source] io::Error),
}

/// Every processor must have it: the kernel runs on all of them.
fn has_rdrand(cpuinfo: &str) -> bool {
    let mut lines = cpuinfo.lines().filter_map(|line| line.strip_prefix("flags")).peekable();
    lines.peek().is_some() && lines.all(|flags| flags.split_ascii_whitespace().any(|flag| flag == "rdrand"))
}

/// What goes into the kernel's generator: twice what it can hold.
fn numbers(mut source: impl FnMut() -> Option<u64>) -> Result<[u8; 64], EntropyError> {
    let mut bytes = [0; 64];
    let mut last = None;
    for place in bytes.chunks_exact_mut(8) {
        let number = source().ok_or(EntropyError::Silent)?;
        if last.replace(number) == Some(number) {
            return Err(EntropyError::Stuck);
        }
        place.copy_from_slice(&number.to_le_bytes());
    }
    Ok(bytes)
}

fn feed(dev_root: &Path, seed: &[u8; 64], reseed: fn(&File) -> io::Result<()>) -> Result<(), EntropyError> {
    // /dev/random gives nothing before the kernel's generator is seeded, and O_NONBLOCK turns waiting into an error.
    let mut device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(dev_root.join("random"))
        .map_err(EntropyError::Device)?;
    device.write_all(seed).map_err(EntropyError::Device)?;
    reseed(&device).map_err(EntropyError::Device)?;
    device.read_exact(&mut [0; 16]).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => EntropyError::NotSeeded,
        _ => EntropyError::Device(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH: &str = "processor\t: 0\nflags\t\t: fpu rdrand sse\n";
    const WITHOUT: &str = "processor\t: 1\nflags\t\t: fpu rdrandx sse\n";

    #[test]
    fn t10_the_flag_is_wanted_on_every_processor() {
        assert!(has_rdrand(WITH));
        assert!(has_rdrand(&format!("{WITH}{WITH}")));
        assert!(!has_rdrand(WITHOUT));
        assert!(!has_rdrand(&format!("{WITH}{WITHOUT}")));
        assert!(!has_rdrand(""));
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(check(dir.path(), dir.path()), Err(EntropyError::Cpuinfo(_))));
        fs::write(dir.path().join("cpuinfo"), WITHOUT).unwrap();
        assert!(matches!(check(dir.path(), dir.path()), Err(EntropyError::NoRdrand)));
    }

    #[test]
    fn t10_a_generator_that_is_silent_or_stuck_fails_closed() {
        for working in 0..8 {
            let mut left = working;
            let source = || {
                (left > 0).then(|| {
                    left -= 1;
                    left
                })
            };
            assert!(matches!(numbers(source), Err(EntropyError::Silent)), "{working}");
        }
        assert!(matches!(numbers(|| Some(u64::MAX)), Err(EntropyError::Stuck)));
        let mut count = 0;
        let late = || {
            count += 1;
            Some(count.min(7))
        };
        assert!(matches!(numbers(late), Err(EntropyError::Stuck)));
        let mut count = 0;
        let bytes = numbers(|| {
            count += 1;
            Some(count)
        })
        .unwrap();
        assert_eq!((bytes[0], bytes[56]), (1, 8));
    }

    #[test]
    fn the_processor_gives_numbers() {
        assert_ne!(numbers(processor::number).unwrap(), numbers(processor::number).unwrap());
    }

    #[test]
    fn t10_a_short_missing_or_failing_device_fails_closed() {
        let dir = tempfile::tempdir().unwrap();
        let fine = |_: &File| Ok(());
        assert!(matches!(feed(dir.path(), &[1; 64], fine), Err(EntropyError::Device(_))));
        // A file stands in for the device: what is written comes first, what is read after it.
        let random = dir.path().join("random");
        fs::write(&random, [7; 64 + 15]).unwrap();
        assert!(matches!(feed(dir.path(), &[1; 64], fine), Err(EntropyError::Device(_))));
        fs::write(&random, [7; 64 + 16]).unwrap();
        let failing = |_: &File| Err(io::ErrorKind::PermissionDenied.into());
        assert!(matches!(
            feed(dir.path(), &[1; 64], failing),
            Err(EntropyError::Device(_))
        ));
        assert!(
            matches!(feed(dir.path(), &[1; 64], device::reseed), Err(EntropyError::Device(_))),
            "not a device"
        );
        feed(dir.path(), &[1; 64], fine).unwrap();
        assert_eq!(fs::read(&random).unwrap().get(..64), Some([1; 64].as_slice()));
    }
}
