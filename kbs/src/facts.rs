//! What the broker knows about a guest whose evidence it has verified: the input of every rule.

use cella_attest::tdx::VerifiedTd;
use cella_attest::{Tee, Verified};
use cella_kbs_client::wire::TeePubKey;

use crate::workload::Workload;

/// Proven facts about one guest.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Facts {
    /// What its platform proved. The challenge is not among it: it was compared, and is all zeros here.
    pub guest: Guest,
    /// SHA-256 of the initdata document, which the platform bound to the guest at its launch.
    pub initdata: [u8; 32],
    /// Versions in the guest's measured policy.
    pub workload: Workload,
    /// The guest's public key, to which resources are encrypted.
    pub tee_key: TeePubKey,
}

/// A guest by the technology that it runs on.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one for each session, behind an Arc")]
pub enum Guest {
    /// AMD SEV-SNP.
    Snp(Verified),
    /// Intel TDX.
    Tdx(VerifiedTd),
}

impl Facts {
    /// Puts together what the verifier found and what the guest bound to it.
    pub(crate) fn new(mut guest: Guest, initdata: [u8; 32], tee_key: TeePubKey) -> Self {
        match &mut guest {
            Guest::Snp(snp) => snp.report_data = [0; 64],
            Guest::Tdx(td) => td.report_data = [0; 64],
        }
        Self {
            guest,
            initdata,
            workload: Workload::default(),
            tee_key,
        }
    }

    /// The technology.
    pub fn tee(&self) -> Tee {
        match self.guest {
            Guest::Snp(_) => Tee::Snp,
            Guest::Tdx(_) => Tee::Tdx,
        }
    }

    /// Whether the evidence came from a development root, so proves nothing about hardware.
    pub fn simulated(&self) -> bool {
        match &self.guest {
            Guest::Snp(snp) => snp.simulated,
            Guest::Tdx(td) => td.simulated,
        }
    }

    /// What was launched, in one value: SEV-SNP's launch digest, or the one that is made of a TDX guest's registers.
    pub fn launch_digest(&self) -> [u8; 48] {
        match &self.guest {
            Guest::Snp(snp) => snp.measurement,
            Guest::Tdx(td) => td.launch_digest(),
        }
    }

    /// What the platform was launched with on behalf of initdata: HOST_DATA, MRCONFIGID.
    pub fn bound(&self) -> &[u8] {
        match &self.guest {
            Guest::Snp(snp) => &snp.host_data,
            Guest::Tdx(td) => &td.mr_config_id,
        }
    }

    /// The platform's security version, for people: SEV-SNP's TCB, or Intel's judgement of a TDX platform.
    pub fn tcb(&self) -> String {
        match &self.guest {
            Guest::Snp(snp) => snp.tcb.to_string(),
            Guest::Tdx(td) if td.advisories.is_empty() => td.status.to_string(),
            Guest::Tdx(td) => format!("{} ({})", td.status, td.advisories.join(", ")),
        }
    }

    /// The line of processors, for people.
    pub fn product(&self) -> String {
        match &self.guest {
            Guest::Snp(snp) => snp.product.to_string(),
            Guest::Tdx(td) => format!("FMSPC {}", hex::encode(td.platform.fmspc)),
        }
    }
}
