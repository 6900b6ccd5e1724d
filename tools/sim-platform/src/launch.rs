//! From a running QEMU to what a report says of it.

use std::{
    fs::File,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use cella_attest::{
    Evidence, Hex,
    measure::{LaunchInputs, MeasureError, snp_launch_digest},
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
}

impl Guest {
    /// Measures what the process launches, from its own command line and files. Reads them whole, and blocks.
    ///
    /// QEMU read the files when it started; they are read again here, as soon as its process id is known.
    pub(crate) fn measure(process: &Process, firmware: &Path, cpu: &str, log: &Logger) -> Result<Self, LaunchError> {
        let launch = Launch::parse(&process.cmdline()?)?;
        let kernel = process.open_file(&launch.kernel)?;
        let initrd = process.open_file(&launch.initrd)?;
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

/// A name for an open file, valid while it is open.
fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
