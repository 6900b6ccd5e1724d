//! From the body of `/attest` to facts about a guest.
//!
//! Whose bytes: anybody's. [`parse_attestation`] and [`appraise`] are pure and take bytes; they never panic. The order
//! is that of threat T9: lengths, then signatures, then comparisons; the initdata document is digested and compared,
//! and never parsed here.

use std::time::Duration;

use cella_attest::tdx::{self, Quote, TdxError, TdxExpected, VerifiedTd};
use cella_attest::{Evidence, Expected, Hex, TdEvidence, Tee, Verified, VerifyError, trustee, verify_with};
use cella_kbs_client::wire::{self, TeePubKey};
use cella_policy::initdata;
use serde_json::Value;

use crate::facts::{Facts, Guest};
use crate::trust::Trust;

/// Longest body of `/attest`, in bytes.
pub const MAX_ATTESTATION: usize = 2 << 20;

/// The body of `/attest`, well-formed, nothing in it believed yet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Submission {
    /// The initdata document's exact text.
    pub initdata: String,
    /// The nonce that the guest says it was given.
    pub nonce: String,
    /// The key that resources are to be encrypted for.
    pub tee_key: TeePubKey,
    /// Report and certificates, or quote and event log.
    pub evidence: Submitted,
}

/// Evidence as it came.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Submitted {
    /// AMD SEV-SNP.
    Snp(Evidence),
    /// Intel TDX.
    Tdx(TdEvidence),
}

/// Reads the body of `/attest` in a session of `tee`. Pure; its cost is linear in the length, which is bounded first.
///
/// Evidence comes in the protocol's own forms ([`trustee`]), as agents and Trustee's clients send it; of SEV-SNP also as raw report with
/// its chain, `{"report","cert_chain"}`. Beyond the protocol it demands initdata, because every rule names one; and it refuses evidence of further devices, which it could not verify.
pub fn parse_attestation(body: &[u8], tee: Tee) -> Result<Submission, BodyError> {
    if body.len() > MAX_ATTESTATION {
        return Err(BodyError::TooLarge);
    }
    let attestation: wire::Attestation = serde_json::from_slice(body).map_err(|e| BodyError::Json {
        line: e.line(),
        column: e.column(),
    })?;
    let init_data = attestation.init_data.ok_or(BodyError::NoInitdata)?;
    if init_data.format != "toml" {
        return Err(BodyError::InitdataFormat);
    }
    if init_data.body.len() > initdata::MAX_DOCUMENT {
        return Err(BodyError::InitdataTooLarge);
    }
    let wire::TeeEvidence {
        primary_evidence,
        additional_evidence,
    } = attestation.tee_evidence;
    if !additional_evidence.is_empty() {
        return Err(BodyError::AdditionalEvidence);
    }
    let evidence = match tee {
        Tee::Snp => Submitted::Snp(parse_snp(primary_evidence).ok_or(BodyError::Evidence)?),
        Tee::Tdx => Submitted::Tdx(trustee::td_from_json(primary_evidence).map_err(|_| BodyError::Quote)?),
    };
    let wire::RuntimeData { nonce, tee_pubkey } = attestation.runtime_data;
    Ok(Submission {
        initdata: init_data.body,
        nonce,
        tee_key: tee_pubkey,
        evidence,
    })
}

fn parse_snp(primary_evidence: Value) -> Option<Evidence> {
    if trustee::is_trustee(&primary_evidence) {
        trustee::from_json(primary_evidence).ok()
    } else {
        serde_json::from_value(primary_evidence).ok()
    }
}

/// Verifies a submission against the nonce of its session, by `now`, the time since the Unix epoch: the owner's clock, not the guest's.
pub fn appraise(submission: &Submission, nonce: &str, trust: &Trust, now: Duration) -> Result<Facts, AppraisalError> {
    if submission.nonce != nonce {
        return Err(AppraisalError::Nonce);
    }
    let report_data = wire::report_data(nonce, &submission.tee_key, "");
    // Which digest of the document the platform was given is not known yet: compared below.
    let guest = match &submission.evidence {
        Submitted::Snp(evidence) => Guest::Snp(verify_snp(evidence, &report_data, trust, now)?),
        Submitted::Tdx(evidence) => Guest::Tdx(verify_tdx(evidence, &report_data, trust, now)?),
    };
    let digests = initdata::digests(submission.initdata.as_bytes());
    let bound = match &guest {
        Guest::Snp(snp) => digests.matches_host_data(&snp.host_data),
        Guest::Tdx(td) => digests.matches_mr_config_id(&td.mr_config_id),
    };
    bound.ok_or(AppraisalError::Initdata)?;
    Ok(Facts::new(guest, digests.sha256, submission.tee_key.clone()))
}

fn verify_snp(
    evidence: &Evidence,
    report_data: &[u8; 64],
    trust: &Trust,
    now: Duration,
) -> Result<Verified, VerifyError> {
    let expected = Expected {
        report_data,
        host_data: None,
        vmpl: 0,
    };
    verify_with(evidence, &trust.anchors, &expected, &trust.snp.clone().at(now))
}

/// Verifies with the collateral of the quote's platform. Where there is more than one, because families have platforms of two authorities, the
/// first that fits counts.
fn verify_tdx(
    evidence: &TdEvidence,
    report_data: &[u8; 64],
    trust: &Trust,
    now: Duration,
) -> Result<VerifiedTd, AppraisalError> {
    let expected = TdxExpected {
        report_data,
        mr_config_id: None,
    };
    let fmspc = Quote::parse(&evidence.quote).map_err(TdxError::from)?.fmspc();
    let mut refused = AppraisalError::NoCollateral {
        fmspc: fmspc.map(Hex::from),
    };
    for collateral in trust.collateral.of(fmspc) {
        match tdx::verify(&evidence.into(), collateral, &trust.roots, &expected, &trust.tdx, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => refused = error.into(),
        }
    }
    Err(refused)
}

/// The body of `/attest` is not acceptable. The texts go to the peer and repeat nothing of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// More bytes than are read.
    #[error("the attestation is larger than {MAX_ATTESTATION} bytes")]
    TooLarge,
    /// Not JSON of the protocol's form. A key that is no point on P-256 is found here too.
    #[error("the attestation is not valid at line {line}, column {column}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// No initdata.
    #[error("initdata missing: this broker demands it")]
    NoInitdata,
    /// Initdata in another form.
    #[error("initdata format is not toml")]
    InitdataFormat,
    /// More initdata than a guest accepts.
    #[error("initdata is larger than {} bytes", initdata::MAX_DOCUMENT)]
    InitdataTooLarge,
    /// Evidence of devices.
    #[error("additional evidence is not supported")]
    AdditionalEvidence,
    /// Not `{"report","cert_chain"}` nor Trustee's form.
    #[error("primary evidence is not a report with its chain")]
    Evidence,
    /// Not `{"cc_eventlog","quote"}`.
    #[error("primary evidence is not a quote with its event log")]
    Quote,
}

/// The evidence does not prove what it should. The texts go to the peer: classes of causes, no facts but the peer's own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppraisalError {
    /// Another session's nonce.
    #[error("nonce mismatch")]
    Nonce,
    /// Not the word of an SEV-SNP platform that this broker believes, or not an answer to the challenge.
    #[error("{}", .0.class())]
    Evidence(#[from] VerifyError),
    /// The same of a TDX platform.
    #[error("{}", .0.class())]
    Quote(#[from] TdxError),
    /// The quote may be good, but nobody can tell.
    #[error("no collateral for platforms of FMSPC {}", Named(.fmspc))]
    NoCollateral {
        /// The platform's family, where the quote says.
        fmspc: Option<Hex<6>>,
    },
    /// Not the document that the guest was launched with.
    #[error("initdata digest mismatch")]
    Initdata,
}

struct Named<'a>(&'a Option<Hex<6>>);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(fmspc) => fmspc.fmt(f),
            None => f.write_str("that the quote does not name"),
        }
    }
}
