//! The table of kernel hashes that QEMU puts into the memory of an SNP guest, for a simulated machine in which nobody else does.
//!
//! The pinned firmware looks at the table whether or not its memory is protected, and refuses a kernel, initrd or command line that the table
//! does not name (`attestation-snp.md`, 1). With the table in place a simulated machine boots exactly what its launch digest says.

use std::{
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use sev::measurement::{ovmf::OVMF, sev_hashes::SevHashes};

use super::{MeasureError, check_command_line, check_file, pinned_firmware};

/// Length of a table in bytes.
pub const HASH_TABLE_LEN: usize = 176;

/// The table, and where the firmware looks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashTable {
    /// Guest-physical address.
    pub gpa: u64,
    /// Contents.
    pub bytes: [u8; HASH_TABLE_LEN],
}

impl HashTable {
    /// Computes the table of a launch with this firmware (one of [`super::KNOWN_FIRMWARE`]), kernel, initramfs and command line. Reads the
    /// files whole, and blocks.
    ///
    /// # Errors
    /// [`MeasureError`]: among others for a firmware that is not known to enforce the table.
    pub fn of(firmware: &Path, kernel: &Path, initrd: &Path, cmdline: &str) -> Result<Self, MeasureError> {
        check_command_line(cmdline)?;
        check_file("kernel", kernel)?;
        check_file("initrd", initrd)?;
        let firmware = pinned_firmware(firmware)?;
        let firmware = OVMF::new(PathBuf::from(format!("/proc/self/fd/{}", firmware.as_raw_fd())));
        let gpa = firmware
            .map_err(MeasureError::Digest)?
            .sev_hashes_table_gpa()
            .map_err(|error| MeasureError::Digest(error.into()))?;
        let hashes = SevHashes::new(kernel.into(), Some(initrd.into()), Some(cmdline));
        let bytes = hashes.and_then(|hashes| hashes.construct_table());
        Ok(Self {
            gpa,
            bytes: bytes.map_err(MeasureError::Digest)?,
        })
    }
}
