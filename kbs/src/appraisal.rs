//! From the body of `/attest` to facts about a guest.
//!
//! Whose bytes: anybody's. [`parse_attestation`] and [`appraise`] are pure and take bytes; they never panic. The order
//! is that of threat T9: lengths, then signatures, then comparisons; the initdata document is digested and compared,
//! and never parsed here.

use cella_attest::{Anchors, Evidence, Expected, VerifyError, VerifyOptions, trustee, verify_with};
use cella_kbs_client::wire::{self, TeePubKey};
use cella_policy::initdata;

use crate::facts::Facts;

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
    /// Report and certificates.
    pub evidence: Evidence,
}

/// Reads the body of `/attest` for `tee` `snp`. Pure; its cost is linear in the length, which is bounded first.
///
/// Evidence comes in the protocol's own form ([`trustee`]), as agents and Trustee's clients send it, or as raw report with
/// its chain, `{"report","cert_chain"}`. Beyond the protocol it demands initdata, because every rule names one; and it refuses evidence of further devices, which it could not verify.
pub fn parse_attestation(body: &[u8]) -> Result<Submission, BodyError> {
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
    let evidence = if trustee::is_trustee(&primary_evidence) {
        trustee::from_json(primary_evidence).map_err(|_| BodyError::Evidence)?
    } else {
        serde_json::from_value(primary_evidence).map_err(|_| BodyError::Evidence)?
    };
    let wire::RuntimeData { nonce, tee_pubkey } = attestation.runtime_data;
    Ok(Submission {
        initdata: init_data.body,
        nonce,
        tee_key: tee_pubkey,
        evidence,
    })
}

/// Verifies a submission against the nonce of its session.
pub fn appraise(
    submission: &Submission,
    nonce: &str,
    anchors: &Anchors,
    options: &VerifyOptions,
) -> Result<Facts, AppraisalError> {
    if submission.nonce != nonce {
        return Err(AppraisalError::Nonce);
    }
    let report_data = wire::report_data(nonce, &submission.tee_key, "");
    // Which digest of the document HOST_DATA holds is not known yet: compared below.
    let expected = Expected {
        report_data: &report_data,
        host_data: None,
        vmpl: 0,
    };
    let verified = verify_with(&submission.evidence, anchors, &expected, options)?;
    let digests = initdata::digests(submission.initdata.as_bytes());
    digests
        .matches_host_data(&verified.host_data)
        .ok_or(AppraisalError::Initdata)?;
    Ok(Facts::new(&verified, digests.sha256, submission.tee_key.clone()))
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
    /// Not `{"report","cert_chain"}`.
    #[error("primary evidence is not a report with its chain")]
    Evidence,
}

/// The evidence does not prove what it should. The texts go to the peer: classes of causes, no facts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppraisalError {
    /// Another session's nonce.
    #[error("nonce mismatch")]
    Nonce,
    /// Not the word of a platform that this broker believes, or not an answer to the challenge.
    #[error("{}", .0.class())]
    Evidence(#[from] VerifyError),
    /// Not the document that the guest was launched with.
    #[error("initdata digest mismatch")]
    Initdata,
}
