//! Evidence as it stands in a record: the raw bytes, and what leads to their signature as far as the guest had it.

use cella_attest::{Evidence, GuestEvidence, TdEvidence};
use serde::{Deserialize, Serialize};

use crate::bytes::Base64;

/// Evidence of one kind of TEE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvidenceText {
    /// SEV-SNP.
    Snp(SnpText),
    /// TDX.
    Tdx(TdxText),
}

/// An SNP report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SnpText {
    /// The report.
    pub report: Base64,
    /// DER certificates: VCEK or VLEK, then ASK or ASVK, then ARK. Empty where the host gave none.
    pub certificates: Vec<Base64>,
}

/// A TDX quote. Intel's collateral is not in it: whoever checks the record has it from Intel. Nor is the event log: the registers
/// that it leads to are in the quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TdxText {
    /// The quote.
    pub quote: Base64,
}

impl From<&GuestEvidence> for EvidenceText {
    fn from(evidence: &GuestEvidence) -> Self {
        match evidence {
            GuestEvidence::Snp(Evidence { report, chain }) => Self::Snp(SnpText {
                report: Base64(report.clone()),
                certificates: chain.iter().cloned().map(Base64).collect(),
            }),
            GuestEvidence::Tdx(TdEvidence { quote, .. }) => Self::Tdx(TdxText {
                quote: Base64(quote.clone()),
            }),
        }
    }
}

impl From<&EvidenceText> for GuestEvidence {
    fn from(text: &EvidenceText) -> Self {
        match text {
            EvidenceText::Snp(SnpText { report, certificates }) => Self::Snp(Evidence {
                report: report.0.clone(),
                chain: certificates.iter().map(|der| der.0.clone()).collect(),
            }),
            EvidenceText::Tdx(TdxText { quote }) => Self::Tdx(TdEvidence {
                quote: quote.0.clone(),
                event_log: None,
            }),
        }
    }
}
