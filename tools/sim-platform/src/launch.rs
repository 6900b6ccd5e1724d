//! From a running QEMU to what a report says of it.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use cella_attest::{
    Evidence, Hex,
    measure::{HASH_TABLE_LEN, HashTable, LaunchInputs, MeasureError, snp_launch_digest},
    sim::{Chip, Claims, SimError},
};
use slog::{Logger, info};

use crate::{
    cmdline::{CmdlineError, Launch},
    process::{Process, ProcessError},
};

/// The guest as the security processor would know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guest {
    measurement: [u8; 48],
    host_data: [u8; 32],
    policy: u64,
}

/// Why a guest cannot be attested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LaunchError {
    #[error("looking at QEMU")]
    Process(#[from] ProcessError),
    #[error("reading what QEMU launches")]
    Cmdline(#[from] CmdlineError),
    #[error("measuring what QEMU launches")]
    Measure(#[from] MeasureError),
    #[error("reading QEMU's table of kernel hashes")]
    ReadTable(#[source] io::Error),
    #[error(
        "QEMU's table of kernel hashes is not the one of its kernel, initrd and command line, at the address where the firmware looks"
    )]
    OtherTable,
}

impl Guest {
    /// Measures what the process launches, from its own command line and files. Reads them whole, and blocks.
    ///
    /// QEMU read the files when it started; they are read again here, as soon as its process id is known.
    pub(crate) fn measure(process: &Process, firmware: &Path, cpu: &str, log: &Logger) -> Result<Self, LaunchError> {
        let launch = Launch::parse(&process.cmdline()?)?;
        let kernel = process.open_file(&launch.kernel)?;
        let initrd = process.open_file(&launch.initrd)?;
        // What boots is measured: QEMU's own file, of which only a known build has a digest.
        let booted = launch.firmware_boot.as_ref();
        let booted = booted.map(|boot| process.open_file(&boot.firmware)).transpose()?;
        let booted = booted.as_ref().map(path_of);
        let firmware = booted.as_deref().unwrap_or(firmware);
        if let Some(boot) = &launch.firmware_boot {
            let table = read_table(process.open_file(&boot.table.file)?).map_err(LaunchError::ReadTable)?;
            let expected = HashTable::of(firmware, &path_of(&kernel), &path_of(&initrd), &launch.append)?;
            if table != expected.bytes || boot.table.gpa != expected.gpa {
                return Err(LaunchError::OtherTable);
            }
        }
        let measurement = snp_launch_digest(&LaunchInputs {
            firmware,
            kernel: &path_of(&kernel),
            initrd: &path_of(&initrd),
            cmdline: &launch.append,
            vcpus: launch.vcpus,
            cpu,
        })?;
        info!(log, "guest measured"; "pid" => process.pid(), "measurement" => %Hex(measurement),
            "host_data" => %Hex(launch.host_data), "policy" => format!("{:#x}", launch.policy), "vcpus" => launch.vcpus,
            "kernel" => %launch.kernel.display(), "initrd" => %launch.initrd.display());
        Ok(Self {
            measurement,
            host_data: launch.host_data,
            policy: launch.policy,
        })
    }

    /// Signs a report of this guest over its challenge.
    pub(crate) fn attest(&self, chip: &Chip, report_data: [u8; 64]) -> Result<Evidence, SimError> {
        chip.issue(&Claims {
            policy: self.policy,
            ..Claims::new(report_data, self.measurement, self.host_data)
        })
    }
}

/// Reads a table and one byte more, so that a longer file is seen.
fn read_table(file: File) -> io::Result<Vec<u8>> {
    let mut table = Vec::with_capacity(HASH_TABLE_LEN);
    let limit = u64::try_from(HASH_TABLE_LEN).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1)).read_to_end(&mut table)?;
    Ok(table)
}

/// A name for an open file, valid while it is open.
fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
