//! The shim's configuration: `/etc/cella/config.toml`, or the file that containerd's runtime options name.
//!
//! [`file::ConfigFile`] is what the text says, field by field with unit, default, range and effect; [`Config`] is what was
//! settled from it on this host. Once a `Config` exists, every file that it names was there, TEE and acceleration are
//! decided and no key was ignored. The configuration is host input: nothing in it can make the guest trust anything, since
//! what matters (kernel, initrd, command line, firmware, vCPUs) is measured.

mod certificates;
mod error;
pub mod file;
pub mod host;
mod qemu_version;
mod sizing;
mod tee;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use certificates::{Certificates, CertificatesError};
pub use error::ConfigError;
use file::{ConfigFile, LogLevel};
use host::HostFacts;
pub use qemu_version::QemuVersionError;
pub use sizing::Sizing;
pub use tee::{Imitated, QuoteService, SimPrograms, Tee};

use crate::options::ConfigSource;

/// Longest configuration that is read, in bytes.
const MAX_CONFIG: u64 = 64 * 1024;
/// Longest kernel command line, in bytes: x86 takes 2047 and a terminator.
const MAX_CMDLINE: usize = 2047;
/// Under TCG everything takes longer by about this factor (measured boot 0.5 s to 2.2 s, `guest-boot.md` 5).
const TCG_TIMEOUT_FACTOR: u32 = 3;
/// Longest run directory that leaves room for `/<24 characters>/console.sock` in the 107 bytes of a socket path.
const MAX_RUN_DIR: usize = 64;

/// A configuration that was checked against this host.
#[derive(Clone, Debug)]
pub struct Config {
    /// What protects the guest.
    pub tee: Tee,
    /// How its instructions are executed.
    pub accel: Accel,
    /// QEMU's program.
    pub qemu: PathBuf,
    /// Directories with QEMU's firmware files, for `-L`.
    pub qemu_data_dirs: Vec<String>,
    /// Kernel, initrd and command line, all measured.
    pub guest: GuestImage,
    /// OVMF, measured: the AmdSev build for SNP, the IntelTdx build for TDX.
    pub firmware: String,
    /// The initdata document of pods that bring none.
    pub default_initdata: Option<PathBuf>,
    /// Virtual CPUs, measured.
    pub vcpus: u32,
    /// Guest memory.
    pub memory_mib: u32,
    /// How a pod's resources change these two.
    pub sizing: Sizing,
    /// Parent of the run directories.
    pub run_dir: PathBuf,
    /// Bound on the console log, both files together.
    pub console_log_bytes: u64,
    /// From QEMU's start to the agent's first answer; already scaled for TCG.
    pub boot_timeout: Duration,
    /// How long the agent may leave a sign of life unanswered.
    pub guest_timeout: Duration,
    /// Least severe level that is logged.
    pub log_level: slog::Level,
    /// Replaces the profile's CPU model.
    pub cpu_model: Option<String>,
}

/// How guest instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// By the CPU.
    Kvm,
    /// By QEMU's translator.
    Tcg,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// What boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestImage {
    /// `vmlinuz`.
    pub kernel: String,
    /// `initrd`.
    pub initrd: String,
    /// Contents of `cmdline` without its newline.
    pub cmdline: String,
}

impl Config {
    /// Reads, parses and checks the configuration against this host.
    ///
    /// # Errors
    /// See [`ConfigError`]. Blocking file reads of at most 64 KiB, and with `tdx` QEMU is asked for its version; call it off the async threads.
    pub fn load(source: &ConfigSource) -> Result<Self, ConfigError> {
        let (text, origin) = match source {
            ConfigSource::Inline(text) => (text.clone(), "in containerd's runtime options".to_owned()),
            ConfigSource::File(path) => (read_bounded(path)?, path.display().to_string()),
        };
        let file = ConfigFile::parse(&text, &origin)?;
        let config = Self::settle(&file, &HostFacts::probe())?;
        if let Tee::Tdx(_) = config.tee {
            qemu_version::runs_tdx(&config.qemu)?;
        }
        Ok(config)
    }

    /// Makes the validated type, with `host` saying what this machine can do.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn settle(file: &ConfigFile, host: &HostFacts) -> Result<Self, ConfigError> {
        let sizing = Sizing::settle(file, host)?;
        in_range("console-log-kib", file.console_log_kib, 8, 65536, "8 to 65536")?;
        in_range("boot-timeout-s", file.boot_timeout_s, 1, 3600, "1 to 3600")?;
        in_range("guest-timeout-s", file.guest_timeout_s, 1, 3600, "1 to 3600")?;
        let tee = tee::settle(file, host)?;
        let accel = tee::settle_accel(file, &tee, host)?;
        present(
            "qemu",
            &file.qemu,
            Kind::File,
            "install QEMU 9.1 or newer, or set the key to its path",
        )?;
        for dir in &file.qemu_data_dirs {
            present(
                "qemu-data-dirs",
                dir,
                Kind::Directory,
                "name the directories with QEMU's firmware files",
            )?;
        }
        let firmware = tee.firmware(file);
        present("firmware", &firmware, Kind::File, tee.firmware_remedy())?;
        if let Some(path) = &file.default_initdata {
            let remedy = "make it with `cellactl policy`, or remove the key";
            present("default-initdata", path, Kind::File, remedy)?;
        }
        let boot_timeout = Duration::from_secs(u64::from(file.boot_timeout_s));
        Ok(Self {
            guest: guest_image(&file.guest_image)?,
            qemu: file.qemu.clone(),
            qemu_data_dirs: file
                .qemu_data_dirs
                .iter()
                .map(|d| utf8("qemu-data-dirs", d))
                .collect::<Result<_, _>>()?,
            firmware: utf8("firmware", &firmware)?,
            default_initdata: file.default_initdata.clone(),
            vcpus: file.vcpus,
            memory_mib: file.memory_mib,
            sizing,
            run_dir: run_dir(&file.run_dir)?,
            console_log_bytes: u64::from(file.console_log_kib) * 1024,
            boot_timeout: if accel == Accel::Tcg {
                boot_timeout * TCG_TIMEOUT_FACTOR
            } else {
                boot_timeout
            },
            guest_timeout: Duration::from_secs(u64::from(file.guest_timeout_s)),
            log_level: file.log_level.into(),
            cpu_model: file.cpu_model.as_deref().map(cpu_model).transpose()?,
            tee,
            accel,
        })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            accel,
            vcpus,
            memory_mib,
            sizing,
            ..
        } = self;
        let (tee, max) = (self.tee.name(), sizing.max_memory_mib);
        write!(f, "tee {tee}, {accel}, {vcpus} vCPUs, {memory_mib} to {max} MiB")
    }
}

impl From<LogLevel> for slog::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warning,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

fn read_bounded(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read;
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(path)?
            .take(MAX_CONFIG + 1)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    if u64::try_from(text.len()).is_ok_and(|len| len <= MAX_CONFIG) {
        Ok(text)
    } else {
        Err(ConfigError::TooLong {
            origin: path.display().to_string(),
        })
    }
}

fn guest_image(dir: &Path) -> Result<GuestImage, ConfigError> {
    const REMEDY: &str = "build it with `make guest-image`, or set the key to its directory";
    present("guest-image", dir, Kind::Directory, REMEDY)?;
    let part = |name: &str| {
        let path = dir.join(name);
        present("guest-image", &path, Kind::File, REMEDY)?;
        utf8("guest-image", &path)
    };
    let cmdline_path = part("cmdline")?;
    let cmdline = read_bounded(Path::new(&cmdline_path))?;
    let cmdline = cmdline.strip_suffix('\n').unwrap_or(&cmdline);
    let value = |reason| ConfigError::Value {
        key: "guest-image",
        value: cmdline_path.clone(),
        reason,
    };
    if cmdline.is_empty() || cmdline.len() > MAX_CMDLINE {
        return Err(value("the command line must have 1 to 2047 bytes"));
    }
    if cmdline.trim() != cmdline || !cmdline.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        // QEMU, the firmware and the digest's computation must see the same bytes.
        return Err(value(
            "the command line must be one line of printable ASCII without outer blanks",
        ));
    }
    Ok(GuestImage {
        kernel: part("vmlinuz")?,
        initrd: part("initrd")?,
        cmdline: cmdline.to_owned(),
    })
}

fn run_dir(path: &Path) -> Result<PathBuf, ConfigError> {
    let text = utf8("run-dir", path)?;
    let value = |reason| ConfigError::Value {
        key: "run-dir",
        value: text.clone(),
        reason,
    };
    if text.len() > MAX_RUN_DIR {
        return Err(value("at most 64 bytes, since Unix socket paths end at 107"));
    }
    if !path.is_absolute() || text.contains(',') {
        // vhost-device-vsock has no way to escape a comma.
        return Err(value("must be an absolute path without a comma"));
    }
    Ok(path.to_owned())
}

fn cpu_model(model: &str) -> Result<String, ConfigError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.,+=".contains(&b);
    if model.is_empty() || model.len() > 256 || !model.bytes().all(allowed) {
        let value = crate::untrusted::printable(model, 64);
        return Err(ConfigError::Value {
            key: "cpu-model",
            value,
            reason: "not a QEMU CPU model",
        });
    }
    Ok(model.to_owned())
}

fn utf8(key: &'static str, path: &Path) -> Result<String, ConfigError> {
    path.to_str().map(str::to_owned).ok_or_else(|| ConfigError::Value {
        key,
        value: path.display().to_string(),
        reason: "paths must be UTF-8",
    })
}

fn in_range(key: &'static str, value: u32, min: u32, max: u32, allowed: &'static str) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::Range {
            key,
            value: value.into(),
            allowed,
        })
    }
}

enum Kind {
    File,
    Directory,
}

fn present(key: &'static str, path: &Path, kind: Kind, remedy: &'static str) -> Result<(), ConfigError> {
    let missing = |problem| ConfigError::Missing {
        key,
        path: path.to_owned(),
        problem,
        remedy,
    };
    if !path.is_absolute() {
        return Err(missing("is not an absolute path"));
    }
    let metadata = std::fs::metadata(path).map_err(|e| {
        missing(if e.kind() == std::io::ErrorKind::NotFound {
            "does not exist"
        } else {
            "cannot be read"
        })
    })?;
    match kind {
        Kind::File if !metadata.is_file() => Err(missing("is not a file")),
        Kind::Directory if !metadata.is_dir() => Err(missing("is not a directory")),
        Kind::File | Kind::Directory => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
