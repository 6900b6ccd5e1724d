//! Evidence from the guest's kernel.
//!
//! | | the guest's own launch | evidence | beside it |
//! |---|---|---|---|
//! | SEV-SNP | a report, by configfs-tsm or `/dev/sev-guest` | the same | the host's certificate table, or the chain that the shim hands in |
//! | TDX | the module's report, by `/dev/tdx_guest` | a quote, by configfs-tsm | the event log, from the ACPI table CCEL |
//!
//! `/dev/sev-guest` is asked where configfs-tsm offers nothing. A TDX quote comes through the host's quoting service, so the guest does not believe
//! its own.

use std::{path::PathBuf, sync::OnceLock};

use cella_attest::{
    GuestEvidence, Launched, TdEvidence,
    configfs::{self, Provider, QuoteError, RawEvidence},
};

use super::{EvidenceError, EvidenceSource, event_log, sev_guest, tdx_guest};

/// Where the kernel's interfaces are.
#[derive(Debug, Clone)]
pub struct KernelPaths {
    /// Entries for quotes, below configfs.
    pub configfs: PathBuf,
    /// The driver of SNP guests.
    pub sev_guest: PathBuf,
    /// The driver of TDX guests.
    pub tdx_guest: PathBuf,
    /// The event log that the ACPI table CCEL names.
    pub event_log: PathBuf,
}

impl Default for KernelPaths {
    /// Where Linux has them.
    fn default() -> Self {
        Self {
            configfs: configfs::ROOT.into(),
            sev_guest: "/dev/sev-guest".into(),
            tdx_guest: "/dev/tdx_guest".into(),
            event_log: "/sys/firmware/acpi/tables/data/CCEL".into(),
        }
    }
}

/// The kernel of a confidential guest.
#[derive(Debug)]
pub struct KernelSource {
    paths: KernelPaths,
    /// What the host keeps of its processor's certificates.
    cached: OnceLock<Vec<Vec<u8>>>,
}

impl KernelSource {
    /// Asks at these places, which are [`KernelPaths::default`] outside tests.
    pub fn new(paths: KernelPaths) -> Self {
        Self {
            paths,
            cached: OnceLock::new(),
        }
    }

    fn raw(&self, report_data: &[u8; 64]) -> Result<RawEvidence, EvidenceError> {
        match configfs::quote(&self.paths.configfs, report_data) {
            Ok(raw) => Ok(raw),
            Err(QuoteError::Create { .. }) if self.paths.sev_guest.exists() => {
                sev_guest::quote(&self.paths.sev_guest, report_data)
            }
            Err(error) => Err(EvidenceError::Configfs(error)),
        }
    }

    /// What the kernel gave, with what the verifier needs beside it.
    fn evidence(&self, raw: RawEvidence) -> Result<GuestEvidence, EvidenceError> {
        Ok(match raw.provider {
            Provider::SevGuest => {
                let cached = self.cached.get().map(Vec::as_slice).unwrap_or_default();
                GuestEvidence::Snp(raw.into_snp_evidence(cached).map_err(EvidenceError::Certificates)?)
            }
            Provider::TdxGuest => GuestEvidence::Tdx(TdEvidence {
                quote: raw.report,
                event_log: event_log::read(&self.paths.event_log)?,
            }),
        })
    }

    /// The launch in what the kernel gave: only an SNP report has come without the host's help.
    fn launch(&self, raw: RawEvidence) -> Result<Launched, EvidenceError> {
        match raw.provider {
            // Certificates are the verifier's matter.
            Provider::SevGuest => Ok(Launched::of_evidence(
                &self.evidence(RawEvidence { certs: None, ..raw })?,
            )?),
            Provider::TdxGuest => Err(EvidenceError::NoLocalReport {
                path: self.paths.tdx_guest.clone(),
            }),
        }
    }
}

impl EvidenceSource for KernelSource {
    fn launched(&self) -> Result<Launched, EvidenceError> {
        let path = &self.paths.tdx_guest;
        if path.exists() {
            return Ok(Launched::of_local(&tdx_guest::local_report(path, &[0; 64])?));
        }
        self.launch(self.raw(&[0; 64])?)
    }

    fn quote(&self, report_data: &[u8; 64]) -> Result<GuestEvidence, EvidenceError> {
        self.evidence(self.raw(report_data)?)
    }

    fn offer_certificates(&self, chain: Vec<Vec<u8>>) {
        // The pod's network is configured once, and so this is called once.
        let _ = self.cached.set(chain);
    }
}

#[cfg(test)]
mod tests;
