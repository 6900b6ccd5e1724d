//! Where the guest's own evidence comes from: the kernel, or in `sim` builds the simulated platform.
//!
//! Every source is read with bounded lengths. What they return is the host's in so far as the host carries the bytes (a TDX quote, certificates, the
//! event log): it is checked by whoever uses it, and counts only through its signature at the key broker. What the guest itself relies on,
//! [`EvidenceSource::launched`], comes from the processor without the host in between: an SNP report, which travels encrypted from the security
//! processor, or a report of the TDX module.

mod error;
mod event_log;
mod ioctl;
mod kernel;
mod sev_guest;
#[cfg(feature = "sim")]
pub mod sim;
mod tdx_guest;

use std::sync::Arc;

use cella_attest::{GuestEvidence, Launched};

pub use error::EvidenceError;
pub use kernel::{KernelPaths, KernelSource};

/// Gives evidence over 64 bytes of the caller's choice. Calls block for up to some seconds: use a blocking thread.
pub trait EvidenceSource: Send + Sync {
    /// What the guest was launched with, on real hardware by the processor's word and nobody else's.
    fn launched(&self) -> Result<Launched, EvidenceError>;

    /// Evidence over `report_data`, with what the platform has for its verifier: certificates, event log.
    fn quote(&self, report_data: &[u8; 64]) -> Result<GuestEvidence, EvidenceError>;

    /// Takes the certificates that the host keeps for its processor, once: at most [`cella_attest::cert_table::MAX_CERTS`]. Sources that
    /// need none leave them.
    fn offer_certificates(&self, chain: Vec<Vec<u8>>) {
        drop(chain);
    }

    /// Whether the evidence is from the simulated platform.
    fn is_simulated(&self) -> bool {
        false
    }
}

/// The source of this build: the simulated platform with feature `sim`, the kernel without.
pub fn source() -> Arc<dyn EvidenceSource> {
    #[cfg(feature = "sim")]
    return Arc::new(sim::SimPlatform);
    #[cfg(not(feature = "sim"))]
    return Arc::new(KernelSource::new(KernelPaths::default()));
}
