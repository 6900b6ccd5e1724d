//! Where the guest's own evidence comes from: the kernel's configfs-tsm, or in `sim` builds the simulated platform.
//!
//! Both sources are read with bounded lengths. What they return is the host's in so far as the host carries the bytes: it
//! is checked by whoever uses it, and counts only through its signature at the key broker.

use std::{path::PathBuf, sync::Arc};

use cella_attest::Evidence;

/// Gives evidence over 64 bytes of the caller's choice. Calls block for up to some seconds: use a blocking thread.
pub trait EvidenceSource: Send + Sync {
    /// A report over `report_data` with the certificates that the platform has for it.
    fn quote(&self, report_data: &[u8; 64]) -> Result<Evidence, EvidenceError>;

    /// What the source is, for the log: `configfs-tsm` or `simulated`.
    fn name(&self) -> &'static str;
}

/// Why no evidence was to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The kernel's interface failed.
    #[error("reading a report from configfs-tsm failed")]
    Configfs(#[source] cella_attest::configfs::QuoteError),
    /// The certificates that came with the report are unreadable.
    #[error("the certificates that came with the report are unreadable")]
    Certificates(#[source] cella_attest::cert_table::CertTableError),
    /// The simulated platform could not be reached or stopped talking.
    #[error("talking to the simulated platform failed while {what}")]
    Platform {
        /// What was being done.
        what: &'static str,
        /// What the socket said.
        #[source]
        source: std::io::Error,
    },
    /// The simulated platform answered with a length that is none.
    #[error("the simulated platform answered with {length} bytes; 1 to {limit} are allowed")]
    Length {
        /// The length that it announced.
        length: u32,
        /// The largest length that is taken.
        limit: u32,
    },
    /// The simulated platform refused: it could not tell what was launched.
    #[error("the simulated platform has no report for this guest: see its log on the host")]
    Refused,
    /// What came is not evidence.
    #[error("the simulated platform's answer is not evidence")]
    Malformed(#[source] cella_attest::EvidenceError),
}

/// The kernel's own interface, `/sys/kernel/config/tsm/report`.
#[derive(Debug)]
pub struct ConfigfsTsm {
    root: PathBuf,
}

impl ConfigfsTsm {
    /// Reads under `root`, which is [`cella_attest::configfs::ROOT`] outside tests.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

impl EvidenceSource for ConfigfsTsm {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Evidence, EvidenceError> {
        cella_attest::configfs::quote(&self.root, report_data)
            .map_err(EvidenceError::Configfs)?
            .into_snp_evidence()
            .map_err(EvidenceError::Certificates)
    }

    fn name(&self) -> &'static str {
        "configfs-tsm"
    }
}

/// The source of this build: the simulated platform with feature `sim`, configfs-tsm without.
pub fn source() -> Arc<dyn EvidenceSource> {
    #[cfg(feature = "sim")]
    return Arc::new(sim::SimPlatform);
    #[cfg(not(feature = "sim"))]
    return Arc::new(ConfigfsTsm::new(cella_attest::configfs::ROOT));
}

#[cfg(feature = "sim")]
pub mod sim;
