//! Launch digests: what the measurement in a report must be, from the files that were launched.
//!
//! Whose bytes: files that the caller chose. The firmware is known by its SHA-256 before it is parsed, because a firmware can carry the
//! table of kernel hashes and yet boot any kernel: a digest over such a build says nothing.

mod hashes;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use rustix::fs::{MemfdFlags, memfd_create};
use sev::{
    error::MeasurementError,
    measurement::{
        snp::{SnpMeasurementArgs, snp_calc_launch_digest},
        vcpu_types::CpuType,
        vmsa::{GuestFeatures, VMMType},
    },
};

pub use hashes::{HASH_TABLE_LEN, HashTable};

use crate::hex_bytes::Hex;

mod tdx;

pub use tdx::{
    KNOWN_TDX_FIRMWARE, KnownTdxFirmware, PageOrder, TdvfError, TdxBoot, TdxLaunchInputs, TdxRegisters, mrtd, tdx_boot,
    tdx_registers,
};

/// Largest firmware that is read, in bytes.
const MAX_FIRMWARE: u64 = 16 * 1024 * 1024;
/// Most vCPUs: what QEMU's q35 allows without an IOMMU, and more than any guest here has.
const MAX_VCPUS: u32 = 255;
/// SNP is active, and nothing else: what KVM sets today (attestation of a real host will show).
const GUEST_FEATURES: GuestFeatures = GuestFeatures(1);

/// A firmware that was seen to refuse a kernel, initrd or command line that its table of hashes does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFirmware {
    /// Where it comes from.
    pub name: &'static str,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
}

/// The firmware builds that a digest is computed for.
pub const KNOWN_FIRMWARE: &[KnownFirmware] = &[KnownFirmware {
    name: "Debian ovmf-amdsev 2026.08+ds-2, OVMF.amdsev.fd",
    sha256: [
        0x3e, 0x4f, 0xd0, 0xb3, 0xfe, 0x3b, 0x2d, 0xbe, 0x48, 0x1c, 0x3d, 0x9e, 0x99, 0x41, 0x8a, 0x03, 0x41, 0x74,
        0xf2, 0x6c, 0xbe, 0x1f, 0x55, 0xaa, 0x21, 0x2b, 0x0f, 0x18, 0xc1, 0x2d, 0x2d, 0x6f,
    ],
}];

/// What is launched. Memory size and devices are not measured.
#[derive(Debug, Clone, Copy)]
pub struct LaunchInputs<'a> {
    /// AmdSev build of OVMF, one of [`KNOWN_FIRMWARE`].
    pub firmware: &'a Path,
    /// Kernel, a bzImage.
    pub kernel: &'a Path,
    /// Initramfs.
    pub initrd: &'a Path,
    /// Kernel command line exactly as QEMU's `-append` gets it.
    pub cmdline: &'a str,
    /// Number of vCPUs: each one's initial state is measured.
    pub vcpus: u32,
    /// QEMU's name of the CPU model, such as `EPYC-v4`.
    pub cpu: &'a str,
}

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// A file could not be read.
    #[error("reading the {what} {}", path.display())]
    Read {
        /// Firmware, kernel or initrd.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The firmware is none that is known to enforce the hashes.
    #[error(
        "the firmware {} has sha256 {sha256}, which is no build that is known to refuse an unmeasured kernel; use {known}",
        path.display()
    )]
    UnknownFirmware {
        /// Which file.
        path: PathBuf,
        /// What it is.
        sha256: Hex<32>,
        /// One that is known.
        known: &'static str,
    },
    /// The firmware is not one for TDX.
    #[error("the firmware {} cannot be measured for TDX", path.display())]
    Firmware {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TdvfError,
    },
    /// The kernel cannot be measured as the firmware would.
    #[error("the kernel {} {reason}", path.display())]
    Kernel {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The digest would be of another command line than the launch's.
    #[error("the kernel command line {reason}")]
    CommandLine {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No such number of vCPUs.
    #[error("{found} vCPUs; 1 to {MAX_VCPUS} can be measured")]
    Vcpus {
        /// What was asked for.
        found: u32,
    },
    /// Not a CPU model whose signature is known.
    #[error("the CPU model {cpu:?} is unknown; EPYC-v4 is one that is known")]
    Cpu {
        /// What was asked for.
        cpu: String,
    },
    /// The computation failed.
    #[error("computing the launch digest")]
    Digest(#[source] MeasurementError),
}

/// Computes the SNP launch digest, QEMU's way. About 0.1 s with an initrd of 15 MB; it reads the files whole.
///
/// # Errors
/// [`MeasureError`].
pub fn snp_launch_digest(inputs: &LaunchInputs<'_>) -> Result<[u8; 48], MeasureError> {
    let LaunchInputs {
        firmware,
        kernel,
        initrd,
        cmdline,
        vcpus,
        cpu,
    } = *inputs;
    launch_digest(
        firmware,
        Some(Kernel {
            kernel,
            initrd: Some(initrd),
            cmdline,
        }),
        vcpus,
        cpu,
    )
}

/// The part of a launch that the firmware is given hashes of.
#[derive(Clone, Copy)]
struct Kernel<'a> {
    kernel: &'a Path,
    initrd: Option<&'a Path>,
    cmdline: &'a str,
}

fn launch_digest(firmware: &Path, kernel: Option<Kernel<'_>>, vcpus: u32, cpu: &str) -> Result<[u8; 48], MeasureError> {
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        return Err(MeasureError::Vcpus { found: vcpus });
    }
    let vcpu_type = CpuType::try_from(cpu)
        .ok()
        .filter(|known| known.to_string() == cpu)
        .ok_or_else(|| MeasureError::Cpu { cpu: cpu.to_owned() })?;
    if let Some(kernel) = kernel {
        check_command_line(kernel.cmdline)?;
        check_file("kernel", kernel.kernel)?;
        kernel.initrd.map_or(Ok(()), |initrd| check_file("initrd", initrd))?;
    }
    let firmware = pinned_firmware(firmware)?;
    let digest = snp_calc_launch_digest(SnpMeasurementArgs {
        vcpus,
        vcpu_type,
        ovmf_file: PathBuf::from(format!("/proc/self/fd/{}", firmware.as_raw_fd())),
        guest_features: GUEST_FEATURES,
        kernel_file: kernel.map(|kernel| kernel.kernel.to_owned()),
        initrd_file: kernel.and_then(|kernel| kernel.initrd).map(Path::to_owned),
        append: kernel.map(|kernel| kernel.cmdline),
        ovmf_hash_str: None,
        vmm_type: Some(VMMType::QEMU),
    })
    .map_err(MeasureError::Digest)?;
    let bytes: Vec<u8> = digest.try_into().map_err(MeasureError::Digest)?;
    let wrong_length = |_| MeasureError::Digest(MeasurementError::FileError(io::ErrorKind::InvalidData.into()));
    bytes.try_into().map_err(wrong_length)
}

/// The digest's library trims the command line and hashes it with one NUL behind; QEMU does not trim.
fn check_command_line(cmdline: &str) -> Result<(), MeasureError> {
    let reason = if cmdline.trim() != cmdline {
        "begins or ends with a blank, which QEMU measures and the digest here would not"
    } else if cmdline.contains('\0') {
        "contains a NUL"
    } else {
        return Ok(());
    };
    Err(MeasureError::CommandLine { reason })
}

/// The computation reads the files itself; an error of its own would not say which.
fn check_file(what: &'static str, path: &Path) -> Result<(), MeasureError> {
    let failed = |source| MeasureError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    let metadata = File::open(path).and_then(|file| file.metadata()).map_err(failed)?;
    if metadata.is_file() {
        Ok(())
    } else {
        Err(failed(io::Error::other("not a regular file")))
    }
}

/// Copies the firmware to memory if it is a known one, so that what is measured is what was checked.
fn pinned_firmware(path: &Path) -> Result<File, MeasureError> {
    let failed = |source| MeasureError::Read {
        what: "firmware",
        path: path.to_owned(),
        source,
    };
    let image = read_file("firmware", path, MAX_FIRMWARE)?;
    let sha256 = crate::digest::sha256(&image);
    if !KNOWN_FIRMWARE.iter().any(|known| known.sha256 == sha256) {
        return Err(MeasureError::UnknownFirmware {
            path: path.to_owned(),
            sha256: Hex(sha256),
            known: KNOWN_FIRMWARE.first().map_or("none", |known| known.name),
        });
    }
    let mut copy = File::from(memfd_create("firmware", MemfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?);
    copy.write_all(&image).map_err(failed)?;
    Ok(copy)
}

/// Reads a regular file whole.
fn read_file(what: &'static str, path: &Path, max: u64) -> Result<Vec<u8>, MeasureError> {
    check_file(what, path)?;
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut content));
    let failed = |source| MeasureError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    match read.map(u64::try_from) {
        Ok(Ok(len)) if len <= max => Ok(content),
        Ok(_) => Err(failed(io::Error::other("larger than is read"))),
        Err(source) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests;
