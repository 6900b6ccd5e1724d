//! A record against its evidence, and against what the checker expects.
//!
//! Order: the TEE key commits to the record's key; evidence over that TEE key verifies up to a root; what the record says is what
//! the evidence says; what is expected is there. Each step has its own refusals.

use std::time::Duration;

use cella_attest::tdx::{self, Collateral, Roots, TdxEvidence, TdxExpected, TdxOptions};
use cella_attest::{Anchors, Bound, Expected, GuestEvidence, Launched, VerifyOptions};
use cella_kbs_client::Opening;
use cella_kbs_client::wire::report_data;
use cella_policy::initdata;

use crate::record::{BootRecord, Tee};
use crate::signed::SignedRecord;

mod contents;
mod expected;
mod refusal;
mod run;

pub use expected::Expectations;
pub use refusal::Refusal;
pub use run::check_run;

/// Whom the checker believes about platforms.
#[derive(Debug)]
pub struct Trust<'t> {
    /// Roots of AMD, and of simulated platforms.
    pub roots: &'t Anchors,
    /// What is tolerated of SEV-SNP.
    pub snp: &'t VerifyOptions,
    /// The same for TDX; without it such evidence is refused.
    pub tdx: Option<TdxTrust<'t>>,
}

/// Whom the checker believes about TDX platforms.
#[derive(Debug)]
pub struct TdxTrust<'t> {
    /// Intel's documents on the platform.
    pub collateral: &'t Collateral,
    /// Roots of Intel, and of simulated platforms.
    pub roots: &'t Roots,
    /// What is tolerated.
    pub options: &'t TdxOptions,
    /// When documents and certificates must be valid, since the Unix epoch.
    pub now: Duration,
}

/// What is true of a record that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// What protects the guest.
    pub tee: Tee,
    /// True under the root of a simulated platform: then nothing protects it.
    pub simulated: bool,
    /// SNP: the launch digest. TDX: see [`cella_attest::td_launch_digest`].
    pub measurement: [u8; 48],
    /// The platform's firmware.
    pub tcb: String,
}

/// Checks a record that [`SignedRecord::parse`] has given.
///
/// # Errors
/// [`Refusal`]; never a panic.
pub fn check(signed: &SignedRecord, trust: &Trust<'_>, expected: &Expectations<'_>) -> Result<Checked, Refusal> {
    let (launched, simulated) = authenticate(signed, trust)?;
    compare(&signed.record, &launched, simulated)?;
    if simulated && !expected.allow_simulated {
        return Err(Refusal::Simulated);
    }
    expected.check(&signed.record, &launched.measurement)?;
    match expected.document {
        Some(document) => contents::check(&signed.record, document, &launched.bound)?,
        None if is_plain(&signed.record, &launched.bound) => {}
        None => return Err(Refusal::NeedsDocument),
    }
    Ok(Checked {
        tee: launched.tee().into(),
        simulated,
        measurement: launched.measurement,
        tcb: launched.tcb,
    })
}

/// From the record's key to a root: what the evidence says of the launch, and whether a simulated platform says it.
fn authenticate(signed: &SignedRecord, trust: &Trust<'_>) -> Result<(Launched, bool), Refusal> {
    let binding = &signed.binding;
    if !Opening::from_bytes(binding.opening.0).proves(&binding.tee_key, &signed.record.key.0) {
        return Err(Refusal::KeyNotBound);
    }
    let report_data = &report_data(&binding.nonce, &binding.tee_key, "");
    let evidence = GuestEvidence::from(&signed.evidence);
    let simulated = match &evidence {
        GuestEvidence::Snp(evidence) => {
            let expected = Expected {
                report_data,
                host_data: None,
                vmpl: 0,
            };
            cella_attest::verify_with(evidence, trust.roots, &expected, trust.snp)?.simulated
        }
        GuestEvidence::Tdx(evidence) => {
            let trust = trust.tdx.as_ref().ok_or(Refusal::NoCollateral)?;
            let evidence = TdxEvidence {
                quote: &evidence.quote,
                event_log: None,
            };
            let expected = TdxExpected {
                report_data,
                mr_config_id: None,
            };
            let (collateral, roots) = (trust.collateral, trust.roots);
            tdx::verify(&evidence, collateral, roots, &expected, trust.options, trust.now)?.simulated
        }
    };
    let launched = Launched::of_evidence(&evidence).map_err(Refusal::Unreadable)?;
    Ok((launched, simulated))
}

/// Whether the record says of itself what its evidence says.
fn compare(record: &BootRecord, launched: &Launched, simulated: bool) -> Result<(), Refusal> {
    for (what, same) in [
        ("tee", record.tee == launched.tee().into()),
        ("simulated", record.simulated == simulated),
        ("measurement", record.measurement.0 == launched.measurement),
        ("tcb", record.tcb == launched.tcb),
        (
            "initdata.bound",
            record.initdata.bound == hex::encode(launched.bound.as_bytes()),
        ),
    ] {
        if !same {
            return Err(Refusal::NotTheEvidences { what });
        }
    }
    Ok(())
}

/// Whether what is bound is the document's SHA-256 itself. For one that is bound by another algorithm the document must be at hand.
fn is_plain(record: &BootRecord, bound: &Bound) -> bool {
    let (digest, padding) = bound.as_bytes().split_at(record.initdata.sha256.0.len());
    digest == record.initdata.sha256.0 && padding.iter().all(|byte| *byte == 0)
}

/// Which of a document's digests is the one that is bound.
fn algorithm(document: &[u8], bound: &Bound) -> Option<initdata::Algorithm> {
    let digests = initdata::digests(document);
    match bound {
        Bound::HostData(host_data) => digests.matches_host_data(host_data),
        Bound::MrConfigId(mr_config_id) => digests.matches_mr_config_id(mr_config_id),
    }
}
