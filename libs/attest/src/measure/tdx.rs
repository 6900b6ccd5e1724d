//! TDX: what MRTD, RTMR1 and RTMR2 in a quote must be, from the files that QEMU was given.
//!
//! MRTD is the firmware alone. RTMR0 depends on what QEMU tells the firmware (ACPI tables, memory map, boot order), so on QEMU's version and the
//! machine: it is judged event by event in the log and not computed here, but for what of it the firmware image itself decides, which the simulated
//! platform uses. RTMR1 is the kernel as QEMU hands it over, RTMR2 command line and
//! initrd; RTMR3 stays zero, because the agent extends nothing.
//!
//! Computed after the specification of the TDX virtual firmware and QEMU's loader; not compared with hardware yet.

mod authenticode;
mod kernel;
mod tdvf;

use std::path::Path;

use super::{MeasureError, check_command_line, read_file};
use crate::{
    digest::sha384,
    hex_bytes::Hex,
    tdx::{Event, extend},
};

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

/// A boot as its event log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxBoot {
    /// Registers that do not depend on the host.
    pub registers: TdxRegisters,
    /// Events in the order of their registers: all of RTMR1 and RTMR2, and of RTMR0 those that the firmware image decides.
    pub events: Vec<Event<'static>>,
}

/// Computes the registers. Reads the files whole.
///
/// # Errors
/// [`MeasureError`].
pub fn tdx_registers(inputs: &TdxLaunchInputs<'_>) -> Result<TdxRegisters, MeasureError> {
    Ok(tdx_boot(inputs)?.registers)
}

/// Computes the registers and what extends them. Reads the files whole.
///
/// # Errors
/// [`MeasureError`].
pub fn tdx_boot(inputs: &TdxLaunchInputs<'_>) -> Result<TdxBoot, MeasureError> {
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
    let configuration = tdvf::configuration(&firmware).map_err(refused)?;
    let rtmr1 = rtmr1(kernel, initrd.len(), inputs)?;
    let rtmr2 = rtmr2(inputs.cmdline, &initrd);
    Ok(TdxBoot {
        registers: TdxRegisters {
            mrtd_one_pass: mrtd(&firmware, PageOrder::OnePass).map_err(refused)?,
            mrtd_two_pass: mrtd(&firmware, PageOrder::TwoPass).map_err(refused)?,
            rtmr1: extend_all(&rtmr1),
            rtmr2: extend_all(&rtmr2),
        },
        events: [rtmr0(configuration).as_slice(), &rtmr1, &rtmr2].concat(),
    })
}

/// The firmware's variables as they are in its image, and the end of what is there before a boot.
fn rtmr0(configuration: &[u8]) -> [Event<'static>; 2] {
    [
        event(0, EV_EFI_PLATFORM_FIRMWARE_BLOB2, sha384(configuration), b"CFV"),
        separator(0),
    ]
}

/// The kernel, and what the firmware says about starting it.
fn rtmr1(
    mut kernel: Vec<u8>,
    initrd_len: usize,
    inputs: &TdxLaunchInputs<'_>,
) -> Result<[Event<'static>; 5], MeasureError> {
    let refused = |reason| MeasureError::Kernel {
        path: inputs.kernel.to_owned(),
        reason,
    };
    kernel::patch(&mut kernel, initrd_len, inputs.memory_mib).map_err(refused)?;
    let image = authenticode::sha384(&kernel).map_err(refused)?;
    let action = |text: &'static str| event(1, EV_EFI_ACTION, sha384(text.as_bytes()), text.as_bytes());
    Ok([
        event(1, EV_EFI_BOOT_SERVICES_APPLICATION, image, b"kernel"),
        action("Calling EFI Application from Boot Option"),
        separator(1),
        action("Exit Boot Services Invocation"),
        action("Exit Boot Services Returned with Success"),
    ])
}

/// The command line as the firmware's loader hands it to the kernel's EFI stub, then the initrd that the stub loads.
fn rtmr2(cmdline: &str, initrd: &[u8]) -> [Event<'static>; 2] {
    let units = cmdline.encode_utf16().chain(" initrd=initrd\0".encode_utf16());
    let line: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
    [
        event(2, EV_EVENT_TAG, sha384(&line), b"LOADED_IMAGE::LoadOptions"),
        event(2, EV_EVENT_TAG, sha384(initrd), b"Linux initrd"),
    ]
}

fn separator(rtmr: usize) -> Event<'static> {
    event(rtmr, EV_SEPARATOR, sha384(&[0; 4]), &[0; 4])
}

fn event(rtmr: usize, kind: u32, digest: [u8; 48], data: &'static [u8]) -> Event<'static> {
    Event {
        rtmr,
        kind,
        digest,
        data,
    }
}

fn extend_all(events: &[Event<'_>]) -> [u8; 48] {
    let mut register = [0; 48];
    events.iter().for_each(|event| extend(&mut register, &event.digest));
    register
}

// Types of events (TCG PC Client Platform Firmware Profile, section 10.4.1).
const EV_SEPARATOR: u32 = 4;
const EV_EVENT_TAG: u32 = 6;
const EV_EFI_BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
const EV_EFI_ACTION: u32 = 0x8000_0007;
const EV_EFI_PLATFORM_FIRMWARE_BLOB2: u32 = 0x8000_000a;
/// Largest kernel that is read.
const MAX_KERNEL: u64 = 256 << 20;
/// Largest initrd that is read.
const MAX_INITRD: u64 = 1 << 30;

#[cfg(test)]
mod tests;
