//! From a running QEMU to what a report says of it.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use cella_attest::{
    GuestEvidence, Hex, TdEvidence,
    measure::{HASH_TABLE_LEN, HashTable, LaunchInputs, MeasureError, TdxLaunchInputs, snp_launch_digest, tdx_boot},
    sim::{Chip, Claims, SimError, TdAuthority},
    tdx::{EventLog, EventLogError},
};
use slog::{Logger, info};

use crate::{
    cmdline::{CmdlineError, GuestObject, Launch},
    process::{Process, ProcessError},
};

/// What signs.
pub(crate) struct Keys {
    /// Stands for a security processor.
    pub(crate) chip: Chip,
    /// Stands for a TDX platform.
    pub(crate) td: TdAuthority,
}

/// The guest as the security processor, or the TDX module, would know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guest {
    /// Of SEV-SNP.
    Snp {
        measurement: [u8; 48],
        host_data: [u8; 32],
        policy: u64,
    },
    /// Of TDX.
    Tdx(Box<TdGuest>),
}

/// A TDX guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TdGuest {
    attributes: u64,
    mr_config_id: [u8; 48],
    mrtd: [u8; 48],
    rtmr: [[u8; 48]; 4],
    event_log: Vec<u8>,
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
    #[error(
        "QEMU's command line does not say with -m how much memory there ever is, on which TDX's measurement of the kernel depends"
    )]
    NoMemory,
    #[error("the event log of the boot cannot be read back")]
    EventLog(#[from] EventLogError),
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
        let files = Files { kernel, initrd };
        match launch.guest {
            GuestObject::Snp { policy, host_data } => {
                let measurement = snp(process, &launch, &files, firmware, cpu)?;
                info!(log, "guest measured"; "pid" => process.pid(), "tee" => "snp", "measurement" => %Hex(measurement),
                    "host_data" => %Hex(host_data), "policy" => format!("{policy:#x}"), "vcpus" => launch.vcpus,
                    "kernel" => %launch.kernel.display(), "initrd" => %launch.initrd.display());
                Ok(Self::Snp {
                    measurement,
                    host_data,
                    policy,
                })
            }
            GuestObject::Tdx {
                attributes,
                mr_config_id,
            } => {
                let (mrtd, event_log) = tdx(&launch, &files, firmware)?;
                let guest = TdGuest {
                    attributes,
                    mr_config_id,
                    mrtd,
                    rtmr: EventLog::parse(&event_log)?.replay(),
                    event_log,
                };
                info!(log, "guest measured"; "pid" => process.pid(), "tee" => "tdx", "mrtd" => %Hex(mrtd),
                    "rtmr" => format!("{:?}", guest.rtmr.map(Hex)), "mr_config_id" => %Hex(mr_config_id),
                    "attributes" => format!("{attributes:#x}"), "memory_mib" => launch.memory_mib,
                    "kernel" => %launch.kernel.display(), "initrd" => %launch.initrd.display());
                Ok(Self::Tdx(Box::new(guest)))
            }
        }
    }

    /// Signs a report or a quote of this guest over its challenge.
    pub(crate) fn attest(&self, keys: &Keys, report_data: [u8; 64]) -> Result<GuestEvidence, SimError> {
        match self {
            Self::Snp {
                measurement,
                host_data,
                policy,
            } => {
                let claims = Claims {
                    policy: *policy,
                    ..Claims::new(report_data, *measurement, *host_data)
                };
                keys.chip.issue(&claims).map(GuestEvidence::Snp)
            }
            Self::Tdx(guest) => {
                let mut report = TdAuthority::report(report_data, guest.mrtd, guest.rtmr, guest.mr_config_id);
                report.attributes = guest.attributes;
                Ok(GuestEvidence::Tdx(TdEvidence {
                    quote: keys.td.quote(&report)?,
                    event_log: Some(guest.event_log.clone()),
                }))
            }
        }
    }
}

/// What QEMU loads, open.
struct Files {
    kernel: File,
    initrd: File,
}

fn snp(process: &Process, launch: &Launch, files: &Files, firmware: &Path, cpu: &str) -> Result<[u8; 48], LaunchError> {
    let (kernel, initrd) = (path_of(&files.kernel), path_of(&files.initrd));
    // What boots is measured: QEMU's own file, of which only a known build has a digest.
    let booted = launch.firmware_boot.as_ref();
    let booted = booted.map(|boot| process.open_file(&boot.firmware)).transpose()?;
    let booted = booted.as_ref().map(path_of);
    let firmware = booted.as_deref().unwrap_or(firmware);
    if let Some(boot) = &launch.firmware_boot {
        let table = read_table(process.open_file(&boot.table.file)?).map_err(LaunchError::ReadTable)?;
        let expected = HashTable::of(firmware, &kernel, &initrd, &launch.append)?;
        if table != expected.bytes || boot.table.gpa != expected.gpa {
            return Err(LaunchError::OtherTable);
        }
    }
    Ok(snp_launch_digest(&LaunchInputs {
        firmware,
        kernel: &kernel,
        initrd: &initrd,
        cmdline: &launch.append,
        vcpus: launch.vcpus,
        cpu,
    })?)
}

/// MRTD, and the event log that replays to the other registers. Of RTMR0 it has what the firmware image decides, and nothing of what a real host would
/// tell the firmware; nothing extends RTMR3.
fn tdx(launch: &Launch, files: &Files, firmware: &Path) -> Result<([u8; 48], Vec<u8>), LaunchError> {
    let boot = tdx_boot(&TdxLaunchInputs {
        firmware,
        kernel: &path_of(&files.kernel),
        initrd: &path_of(&files.initrd),
        cmdline: &launch.append,
        memory_mib: launch.memory_mib.ok_or(LaunchError::NoMemory)?,
    })?;
    Ok((boot.registers.mrtd_one_pass, TdAuthority::event_log(&boot.events)))
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
