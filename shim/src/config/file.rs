//! What the configuration file says. Keys are kebab-case; an unknown key is an error that names it.

use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;

/// The AmdSev build, where Debian has it.
pub const DEFAULT_FIRMWARE_SNP: &str = "/usr/share/ovmf/OVMF.amdsev.fd";
/// The IntelTdx build, where Debian has it.
pub const DEFAULT_FIRMWARE_TDX: &str = "/usr/share/ovmf/OVMF.inteltdx.ms.fd";
/// Where Intel's packages put the socket of the quote generation service.
pub const DEFAULT_QUOTE_SERVICE: &str = "/var/run/tdx-qgs/qgs.socket";
pub(super) const DEFAULT_SIM_PLATFORM: &str = "/usr/libexec/cella/cella-sim-platform";
pub(super) const DEFAULT_SIM_STATE: &str = "/var/lib/cella/sim";
pub(super) const DEFAULT_VHOST_DEVICE_VSOCK: &str = "/usr/bin/vhost-device-vsock";

/// The file type of `/etc/cella/config.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConfigFile {
    /// What protects the guest: `"snp"`, `"tdx"`, `"sim"` or `"sim-tdx"` (development hosts: no protection at all, evidence in the form of
    /// SNP or of TDX), or `"auto"`, which is the real hardware of this host and never the simulation. Mandatory. Measured: the
    /// simulation runs another initrd.
    pub tee: TeeChoice,
    /// How instructions are executed: `"kvm"`, `"tcg"` or `"auto"` (KVM where the CPU has vmx or svm and `/dev/kvm` opens, else
    /// TCG with a warning). Default `"auto"`; `snp` and `tdx` always need KVM. Not measured.
    #[serde(default)]
    pub accel: AccelChoice,
    /// Path of `qemu-system-x86_64`, 9.1 or newer, with `tdx` 10.1 or newer. Default `/usr/bin/qemu-system-x86_64`. Not measured.
    #[serde(default = "default_qemu")]
    pub qemu: PathBuf,
    /// Directories with QEMU's firmware files, each passed as `-L`. Default none: QEMU's own. Not measured.
    #[serde(default)]
    pub qemu_data_dirs: Vec<PathBuf>,
    /// Directory with the files `vmlinuz`, `initrd` and `cmdline` (one line). Default `/usr/share/cella/guest`. Measured, all three.
    #[serde(default = "default_guest_image")]
    pub guest_image: PathBuf,
    /// The AmdSev build of OVMF, with `tdx` and `sim-tdx` the IntelTdx build: booted with `snp` and `tdx`, only measured with `sim` and `sim-tdx`
    /// unless `sim-firmware-boot` is set. Default `/usr/share/ovmf/OVMF.amdsev.fd`, for TDX `/usr/share/ovmf/OVMF.inteltdx.ms.fd`. Measured.
    pub firmware: Option<PathBuf>,
    /// An initdata document (TOML, not encoded) for pods that bring none in their annotation. Default none: such a pod is
    /// refused. Read at each launch, at most 1 MiB. Measured: HOST_DATA or MRCONFIGID holds its digest.
    pub default_initdata: Option<PathBuf>,
    /// Virtual CPUs at least, 1 to 64, default 1. Fixed for the VM's life. Measured: each count has its own launch digest.
    #[serde(default = "default_vcpus")]
    pub vcpus: u32,
    /// Guest memory in MiB at least, 128 to 16777216, default 1024; a pod with larger limits gets more. Fixed for the VM's life. Models live in it. Not measured.
    #[serde(default = "default_memory_mib")]
    pub memory_mib: u32,
    /// MiB that are added to a pod's memory limit for the guest itself: kernel, agent, images. 0 to 65536, default 256. Not measured.
    #[serde(default = "default_memory_overhead_mib")]
    pub memory_overhead_mib: u32,
    /// Largest VM in MiB, `memory-mib` to 16777216: a pod whose limits ask for more is refused. Default none: this host's
    /// memory. Not measured.
    pub max_memory_mib: Option<u32>,
    /// Whether a pod's CPU limit (or request, where it has no limit) raises `vcpus`. Default false: each count is measured
    /// and must be allowed by the owner.
    #[serde(default)]
    pub size_vcpus_from_pod: bool,
    /// Most virtual CPUs of a pod that raises them, `vcpus` to 64, default 64. Not measured, what comes of it is.
    #[serde(default = "default_max_vcpus")]
    pub max_vcpus: u32,
    /// `snp` only: a PEM file with the certificates of this host's processor, for hosts whose QEMU hands none to the guest: VCEK or VLEK
    /// first, then ASK or ASVK, then ARK. At most 3 of 4096 bytes. Read at each launch. Default none. Not measured: the broker judges them.
    pub snp_certificates: Option<PathBuf>,
    /// `tdx` only: the quote generation service, as the path of its Unix socket or as `vsock:CID:PORT`. Default
    /// `/var/run/tdx-qgs/qgs.socket`. Not measured.
    pub tdx_quote_service: Option<String>,
    /// Simulation only: path of `vhost-device-vsock` 0.3. Default `/usr/bin/vhost-device-vsock`. Not measured.
    pub vhost_device_vsock: Option<PathBuf>,
    /// Simulation only: path of `cella-sim-platform`. Default `/usr/libexec/cella/cella-sim-platform`. Not measured.
    pub sim_platform: Option<PathBuf>,
    /// Simulation only: the directory that `cella-sim-platform init` made. Default `/var/lib/cella/sim`. Not measured.
    pub sim_state: Option<PathBuf>,
    /// `sim` only: boot `firmware` with the table of kernel hashes in place, as an SNP machine does: it then refuses a kernel, initrd
    /// or command line that the launch digest does not name. Needs TCG. Default false: QEMU's own firmware, which enforces
    /// nothing. Not measured.
    pub sim_firmware_boot: Option<bool>,
    /// Parent of one directory (mode 0700) for each pod, with sockets, console log and state file; removed with the pod.
    /// Absolute, at most 64 bytes, no comma. Default `/run/cella`. Not measured.
    #[serde(default = "default_run_dir")]
    pub run_dir: PathBuf,
    /// Bound on the guest's console log in KiB, 8 to 65536, default 256: two files of half the size, the older one is
    /// overwritten. Not measured.
    #[serde(default = "default_console_log_kib")]
    pub console_log_kib: u32,
    /// Seconds from QEMU's start to the agent's first answer, 1 to 3600, default 60; three times as long under TCG. A VM that is
    /// later than that is killed and `Create` fails. Not measured.
    #[serde(default = "default_boot_timeout_s")]
    pub boot_timeout_s: u32,
    /// Seconds that the agent may leave a sign of life unanswered, 1 to 3600, default 120. A guest that is silent for longer counts
    /// as hung: its VM is killed and its containers end with status 137. Not measured.
    #[serde(default = "default_guest_timeout_s")]
    pub guest_timeout_s: u32,
    /// Least severe level in containerd's log: `"error"`, `"warn"`, `"info"` or `"debug"`. Default `"info"`; containerd's own debug
    /// switch lowers it too. Not measured.
    #[serde(default)]
    pub log_level: LogLevel,
    /// Replaces the profile's CPU model (`EPYC-v4` for `snp`, `host,pmu=off` for `tdx`, in the simulation `host` under KVM, `max,-erms,-fsrm,-avx2,-vaes` under TCG). Letters,
    /// digits and `-_.,+=` only. Default none. Measured with `snp`.
    pub cpu_model: Option<String>,
}

/// Values of `tee`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeeChoice {
    /// The hardware of this host; never `sim`.
    Auto,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// The simulated platform, as SNP.
    Sim,
    /// The simulated platform, as TDX.
    SimTdx,
}

/// Values of `accel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccelChoice {
    /// KVM if it works, else TCG.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// TCG.
    Tcg,
}

/// Values of `log-level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// A request failed.
    Error,
    /// The shim coped.
    Warn,
    /// State changes that an operator wants.
    #[default]
    Info,
    /// Everything.
    Debug,
}

impl TeeChoice {
    /// As the file has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Sim => "sim",
            Self::SimTdx => "sim-tdx",
        }
    }
}

impl ConfigFile {
    /// Parses TOML; `origin` is named in errors.
    ///
    /// # Errors
    /// Bad TOML, unknown keys, values of the wrong type.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error: toml::de::Error| ConfigError::Parse {
            origin: origin.to_owned(),
            line: error.span().map_or(0, |span| {
                text.bytes().take(span.start).filter(|b| *b == b'\n').count() + 1
            }),
            message: error.message().to_owned(),
        })
    }

    /// The keys that have a meaning with some values of `tee` only: each with these values, and whether it was set.
    pub(super) fn keys_of_tees(&self) -> [(&'static str, &'static [TeeChoice], bool); 6] {
        const SIM: &[TeeChoice] = &[TeeChoice::Sim, TeeChoice::SimTdx];
        [
            ("snp-certificates", &[TeeChoice::Snp], self.snp_certificates.is_some()),
            ("tdx-quote-service", &[TeeChoice::Tdx], self.tdx_quote_service.is_some()),
            ("vhost-device-vsock", SIM, self.vhost_device_vsock.is_some()),
            ("sim-platform", SIM, self.sim_platform.is_some()),
            ("sim-state", SIM, self.sim_state.is_some()),
            ("sim-firmware-boot", &[TeeChoice::Sim], self.sim_firmware_boot.is_some()),
        ]
    }
}

fn default_qemu() -> PathBuf {
    "/usr/bin/qemu-system-x86_64".into()
}

fn default_guest_image() -> PathBuf {
    "/usr/share/cella/guest".into()
}

fn default_vcpus() -> u32 {
    1
}

fn default_memory_mib() -> u32 {
    1024
}

fn default_memory_overhead_mib() -> u32 {
    256
}

fn default_max_vcpus() -> u32 {
    64
}

fn default_run_dir() -> PathBuf {
    "/run/cella".into()
}

fn default_console_log_kib() -> u32 {
    256
}

fn default_boot_timeout_s() -> u32 {
    60
}

fn default_guest_timeout_s() -> u32 {
    120
}
