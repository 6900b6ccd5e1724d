//! TDX: what MRTD, RTMR1 and RTMR2 in a quote must be, from the files that QEMU was given.
//!
//! MRTD is the firmware alone. RTMR0 depends on what QEMU tells the firmware (ACPI tables, memory map, boot order), so on QEMU's version and the
//! machine: it is judged event by event in the log and not computed here. RTMR1 is the kernel as QEMU hands it over, RTMR2 command line and
//! initrd; RTMR3 stays zero, because the agent extends nothing.
//!
//! Computed after the specification of the TDX virtual firmware and QEMU's loader; not compared with hardware yet.

mod authenticode;
mod kernel;
mod tdvf;

use std::path::Path;

use super::{MeasureError, check_command_line, read_file};
use crate::{digest::sha384, hex_bytes::Hex};

pub use tdvf::{PageOrder, TdvfError, mrtd};

/// A firmware that was seen to have the metadata of a TDX virtual firmware and no way to boot what it does not measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownTdxFirmware {
    /// Where it comes from.
    pub name: &'static str,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
}

/// The firmware builds that registers are computed for.
pub const KNOWN_TDX_FIRMWARE: &[KnownTdxFirmware] = &[KnownTdxFirmware {
    name: "Debian ovmf-inteltdx 2026.08+ds-2, OVMF.inteltdx.ms.fd",
    sha256: [
        0xa2, 0x65, 0x07, 0x5b, 0x41, 0x47, 0xa0, 0x96, 0x10, 0x9e, 0x50, 0x1e, 0x76, 0x19, 0x6d, 0xf1, 0xec, 0x8a,
        0x18, 0x65, 0x9c, 0x26, 0xf7, 0x40, 0x14, 0x92, 0xc5, 0x97, 0xec, 0x88, 0xf3, 0x12,
    ],
}];

/// What is launched as a TDX guest.
#[derive(Debug, Clone, Copy)]
pub struct TdxLaunchInputs<'a> {
    /// TDX build of OVMF, one of [`KNOWN_TDX_FIRMWARE`].
    pub firmware: &'a Path,
    /// Kernel, a bzImage.
    pub kernel: &'a Path,
    /// Initramfs.
    pub initrd: &'a Path,
    /// Kernel command line exactly as QEMU's `-append` gets it.
    pub cmdline: &'a str,
    /// Memory of the guest in MiB: QEMU writes the initrd's address into the kernel's header, and that is measured.
    pub memory_mib: u64,
}

/// Registers of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TdxRegisters {
    /// MRTD where the host adds and extends page by page.
    pub mrtd_one_pass: [u8; 48],
    /// MRTD where the host adds all pages of a section and then extends them.
    pub mrtd_two_pass: [u8; 48],
    /// The kernel.
    pub rtmr1: [u8; 48],
    /// Command line and initrd.
    pub rtmr2: [u8; 48],
}

/// Computes the registers. Reads the files whole.
///
/// # Errors
/// [`MeasureError`].
pub fn tdx_registers(inputs: &TdxLaunchInputs<'_>) -> Result<TdxRegisters, MeasureError> {
    check_command_line(inputs.cmdline)?;
    let firmware = read_file("firmware", inputs.firmware, super::MAX_FIRMWARE)?;
    let sha256 = crate::digest::sha256(&firmware);
    if !KNOWN_TDX_FIRMWARE.iter().any(|known| known.sha256 == sha256) {
        return Err(MeasureError::UnknownFirmware {
            path: inputs.firmware.to_owned(),
            sha256: Hex(sha256),
            known: KNOWN_TDX_FIRMWARE.first().map_or("none", |known| known.name),
        });
    }
    let kernel = read_file("kernel", inputs.kernel, MAX_KERNEL)?;
    let initrd = read_file("initrd", inputs.initrd, MAX_INITRD)?;
    let refused = |source| MeasureError::Firmware {
        path: inputs.firmware.to_owned(),
        source,
    };
    Ok(TdxRegisters {
        mrtd_one_pass: mrtd(&firmware, PageOrder::OnePass).map_err(refused)?,
        mrtd_two_pass: mrtd(&firmware, PageOrder::TwoPass).map_err(refused)?,
        rtmr1: rtmr1(kernel, initrd.len(), inputs)?,
        rtmr2: rtmr2(inputs.cmdline, &initrd),
    })
}

/// The kernel, and what the firmware says about starting it.
fn rtmr1(mut kernel: Vec<u8>, initrd_len: usize, inputs: &TdxLaunchInputs<'_>) -> Result<[u8; 48], MeasureError> {
    let refused = |reason| MeasureError::Kernel {
        path: inputs.kernel.to_owned(),
        reason,
    };
    kernel::patch(&mut kernel, initrd_len, inputs.memory_mib).map_err(refused)?;
    let image = authenticode::sha384(&kernel).map_err(refused)?;
    Ok(extend_all(&[
        image,
        sha384(b"Calling EFI Application from Boot Option"),
        sha384(&[0; 4]),
        sha384(b"Exit Boot Services Invocation"),
        sha384(b"Exit Boot Services Returned with Success"),
    ]))
}

/// The command line as the firmware's loader hands it to the kernel's EFI stub, then the initrd that the stub loads.
fn rtmr2(cmdline: &str, initrd: &[u8]) -> [u8; 48] {
    let units = cmdline.encode_utf16().chain(" initrd=initrd\0".encode_utf16());
    let line: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
    extend_all(&[sha384(&line), sha384(initrd)])
}

fn extend_all(digests: &[[u8; 48]]) -> [u8; 48] {
    digests
        .iter()
        .fold([0; 48], |register, digest| sha384(&[register, *digest].concat()))
}

/// Largest kernel that is read.
const MAX_KERNEL: u64 = 256 << 20;
/// Largest initrd that is read.
const MAX_INITRD: u64 = 1 << 30;

#[cfg(test)]
mod tests;
