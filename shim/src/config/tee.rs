//! What protects the guest, and how its instructions are executed: settled from the file and the host.

use std::path::PathBuf;

use super::file::{AccelChoice, ConfigFile, DEFAULT_FIRMWARE_SNP, DEFAULT_FIRMWARE_TDX, TeeChoice};
use super::host::{HostFacts, Lack};
use super::{Accel, Certificates, ConfigError, Kind, file, present};

/// What protects the guest, with what only that kind needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tee {
    /// AMD SEV-SNP, with what is kept of this host's certificates; vsock through `/dev/vhost-vsock`.
    Snp(Certificates),
    /// Intel TDX; vsock through `/dev/vhost-vsock`.
    Tdx(QuoteService),
    /// Nothing: the simulated platform of a development host (`design.md`, 5).
    Sim(SimPrograms),
}

impl Tee {
    /// As the configuration calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Snp(_) => "snp",
            Self::Tdx(_) => "tdx",
            Self::Sim(SimPrograms {
                imitated: Imitated::Snp,
                ..
            }) => "sim",
            Self::Sim(SimPrograms {
                imitated: Imitated::Tdx,
                ..
            }) => "sim-tdx",
        }
    }

    /// What the guest adds to evidence that comes without certificates.
    pub fn certificates(&self) -> &[Vec<u8>] {
        match self {
            Self::Snp(Certificates(chain)) => chain,
            Self::Tdx(_) | Self::Sim(_) => &[],
        }
    }

    /// The firmware that the file names, or this kind's own.
    pub(super) fn firmware(&self, file: &ConfigFile) -> PathBuf {
        let default = if self.is_tdx() {
            DEFAULT_FIRMWARE_TDX
        } else {
            DEFAULT_FIRMWARE_SNP
        };
        file.firmware.clone().unwrap_or_else(|| default.into())
    }

    pub(super) fn firmware_remedy(&self) -> &'static str {
        if self.is_tdx() {
            "install the IntelTdx build of OVMF, or set the key to its path"
        } else {
            "install the AmdSev build of OVMF, or set the key to its path"
        }
    }

    /// Whether evidence has the form of TDX.
    fn is_tdx(&self) -> bool {
        match self {
            Self::Snp(_) => false,
            Self::Tdx(_) => true,
            Self::Sim(programs) => programs.imitated == Imitated::Tdx,
        }
    }
}

/// The host's quote generation service, which QEMU asks for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuoteService {
    /// A Unix socket, by its path.
    Unix(String),
    /// A vsock address.
    Vsock {
        /// Whose.
        cid: u32,
        /// Which port.
        port: u32,
    },
}

impl QuoteService {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = ConfigError::Value {
            key: "tdx-quote-service",
            value: crate::untrusted::printable(text, 64),
            reason: "not an absolute path of at most 107 bytes, and not vsock:CID:PORT",
        };
        if let Some(address) = text.strip_prefix("vsock:") {
            let (cid, port) = address.split_once(':').unwrap_or_default();
            let number = |text: &str| {
                text.parse()
                    .ok()
                    .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
            };
            return match (number(cid), number(port)) {
                (Some(cid), Some(port)) => Ok(Self::Vsock { cid, port }),
                _ => Err(wrong),
            };
        }
        if text.starts_with('/') && text.len() <= MAX_SOCKET_PATH && !text.contains('\0') {
            Ok(Self::Unix(text.to_owned()))
        } else {
            Err(wrong)
        }
    }
}

/// Longest path of a Unix socket.
const MAX_SOCKET_PATH: usize = 107;

/// The programs that stand where hardware is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimPrograms {
    /// What is imitated.
    pub imitated: Imitated,
    /// `cella-sim-platform`.
    pub platform: PathBuf,
    /// Its keys and certificates.
    pub state: PathBuf,
    /// `vhost-device-vsock`.
    pub vsock: PathBuf,
    /// Whether the configured firmware boots the guest, with the table of kernel hashes in place.
    pub firmware_boot: bool,
}

/// The form of a simulated platform's evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imitated {
    /// SEV-SNP.
    Snp,
    /// TDX.
    Tdx,
}

/// Settles what protects the guest, and refuses keys that mean nothing then.
pub(super) fn settle(file: &ConfigFile, host: &HostFacts) -> Result<Tee, ConfigError> {
    let lack = |reason| ConfigError::Host { key: "tee", reason };
    let choice = match file.tee {
        TeeChoice::Auto if host.snp_enabled => TeeChoice::Snp,
        TeeChoice::Auto if host.tdx_enabled => TeeChoice::Tdx,
        TeeChoice::Auto => return Err(lack(Lack::NoTee)),
        choice => choice,
    };
    match choice {
        TeeChoice::Snp => host.snp().map_err(lack)?,
        TeeChoice::Tdx => host.tdx().map_err(lack)?,
        TeeChoice::Auto | TeeChoice::Sim | TeeChoice::SimTdx => {}
    }
    for (key, tees, set) in file.keys_of_tees() {
        if set && !tees.contains(&choice) {
            let tees: Vec<_> = tees.iter().map(|tee| format!("{:?}", tee.name())).collect();
            let tees = tees.join(" or ");
            return Err(ConfigError::Unused { key, tees });
        }
    }
    match choice {
        TeeChoice::Auto | TeeChoice::Snp => certificates(file).map(Tee::Snp),
        TeeChoice::Tdx => {
            let service = file.tdx_quote_service.as_deref();
            QuoteService::parse(service.unwrap_or(file::DEFAULT_QUOTE_SERVICE)).map(Tee::Tdx)
        }
        TeeChoice::Sim => programs(file, Imitated::Snp).map(Tee::Sim),
        TeeChoice::SimTdx => programs(file, Imitated::Tdx).map(Tee::Sim),
    }
}

fn certificates(file: &ConfigFile) -> Result<Certificates, ConfigError> {
    let Some(path) = &file.snp_certificates else {
        return Ok(Certificates::default());
    };
    let remedy = "fetch them from AMD's key distribution service (docs/operator-guide.md), or remove the key";
    present("snp-certificates", path, Kind::File, remedy)?;
    Ok(Certificates::load(path)?)
}

fn programs(file: &ConfigFile, imitated: Imitated) -> Result<SimPrograms, ConfigError> {
    let program = |key, value: &Option<PathBuf>, default: &str, remedy| {
        let path = value.clone().unwrap_or_else(|| default.into());
        present(key, &path, Kind::File, remedy).map(|()| path)
    };
    let state = file.sim_state.clone().unwrap_or_else(|| file::DEFAULT_SIM_STATE.into());
    let remedy = "make it with `cella-sim-platform init --state <dir>`";
    present("sim-state", &state, Kind::Directory, remedy)?;
    Ok(SimPrograms {
        imitated,
        platform: program(
            "sim-platform",
            &file.sim_platform,
            file::DEFAULT_SIM_PLATFORM,
            "build cella-sim-platform, or set the key to its path",
        )?,
        vsock: program(
            "vhost-device-vsock",
            &file.vhost_device_vsock,
            file::DEFAULT_VHOST_DEVICE_VSOCK,
            "install vhost-device-vsock 0.3, or set the key to its path",
        )?,
        state,
        firmware_boot: file.sim_firmware_boot.unwrap_or_default(),
    })
}

/// Settles how instructions are executed.
pub(super) fn settle_accel(file: &ConfigFile, tee: &Tee, host: &HostFacts) -> Result<Accel, ConfigError> {
    let lack = |reason| ConfigError::Host { key: "accel", reason };
    match (file.accel, tee) {
        (AccelChoice::Tcg, Tee::Snp(_) | Tee::Tdx(_)) => Err(lack(Lack::TcgWithTee)),
        (AccelChoice::Kvm, Tee::Sim(programs)) if programs.firmware_boot => Err(lack(Lack::FirmwareBootWithKvm)),
        (AccelChoice::Auto, Tee::Sim(programs)) if programs.firmware_boot => Ok(Accel::Tcg),
        (AccelChoice::Tcg, Tee::Sim(_)) => Ok(Accel::Tcg),
        (AccelChoice::Auto, Tee::Sim(_)) if host.kvm().is_err() => Ok(Accel::Tcg),
        (AccelChoice::Kvm | AccelChoice::Auto, _) => host.kvm().map(|()| Accel::Kvm).map_err(lack),
    }
}
