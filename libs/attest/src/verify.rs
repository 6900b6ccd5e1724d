//! From bytes that somebody sent to facts about a guest.
//!
//! Order: the report is parsed, its chain verified up to an anchor, its signature verified over the raw bytes, the endorsement key's
//! extensions compared; only then is anything that it says compared with what is wanted.

use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use crate::{
    anchors::Anchors,
    chain::{ChainError, verify_chain},
    evidence::Evidence,
    snp::{POLICY_DEBUG, POLICY_MIGRATE_MA, Product, Report, ReportError, SigningKey, TcbVersion},
    vek::{self, VekError},
};

/// What a report must say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The challenge, all 64 bytes: it makes the evidence fresh and binds keys to it.
    pub report_data: &'a [u8; 64],
    /// Digest of initdata, where it is known beforehand. With `None` the caller compares [`Verified::host_data`].
    pub host_data: Option<&'a [u8; 32]>,
    /// Privilege level that the guest's kernel runs at: 0 for Cella.
    pub vmpl: u32,
}

/// What a verifier tolerates. The default is what a broker wants: no Milan, version 3, no TCB floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Accept Milan, whose VCEK secrets have been extracted by software (threat T20).
    pub allow_milan: bool,
    /// Lowest report version. Version 2 names no processor.
    pub min_version: u32,
    /// Lowest TCB, component by component.
    pub minimum_tcb: Option<TcbVersion>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            allow_milan: false,
            min_version: 3,
            minimum_tcb: None,
        }
    }
}

impl VerifyOptions {
    /// Accepts Milan, or does not.
    #[must_use]
    pub fn allow_milan(mut self, allow: bool) -> Self {
        self.allow_milan = allow;
        self
    }

    /// Sets the lowest report version.
    #[must_use]
    pub fn min_version(mut self, version: u32) -> Self {
        self.min_version = version;
        self
    }

    /// Sets the lowest TCB.
    #[must_use]
    pub fn minimum_tcb(mut self, minimum: TcbVersion) -> Self {
        self.minimum_tcb = Some(minimum);
        self
    }
}

/// What is known about a guest whose evidence was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// True under the root of a simulated platform: then the rest is what that platform's host says.
    pub simulated: bool,
    /// Line of processors.
    pub product: Product,
    /// Launch digest: firmware, kernel, initrd, command line, vCPUs.
    pub measurement: [u8; 48],
    /// What the host bound to the guest at launch: the digest of initdata.
    pub host_data: [u8; 32],
    /// The challenge.
    pub report_data: [u8; 64],
    /// Reported TCB, certified by the endorsement key.
    pub tcb: TcbVersion,
    /// Chip's identity; zero with a VLEK.
    pub chip_id: [u8; 64],
    /// Guest policy.
    pub policy: u64,
    /// Report version.
    pub version: u32,
    /// Kind of key that signed.
    pub signing_key: SigningKey,
}

/// Why evidence is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The report cannot be read.
    #[error("the report is malformed")]
    Report(#[from] ReportError),
    /// The certificates do not lead to a root of this verifier.
    #[error("the certificate chain is refused")]
    Chain(#[from] ChainError),
    /// The report is not signed by the endorsement key: it was changed, or it is another chip's.
    #[error("the report is not signed by the VCEK of its chain")]
    ReportSignature,
    /// The endorsement key's certificate does not vouch for the report.
    #[error("the VCEK certificate does not vouch for the report")]
    Vek(#[from] VekError),
    /// The report names a processor that no product here has.
    #[error("the report names an unknown processor, family {family:#x} model {model:#x}")]
    UnknownProcessor {
        /// CPUID family.
        family: u8,
        /// CPUID model.
        model: u8,
    },
    /// The report's processor is not of the product whose root verified it.
    #[error("the report names a {reported} processor under a {anchor} root")]
    ProductMismatch {
        /// Product by the report's CPUID.
        reported: Product,
        /// Product of the root.
        anchor: Product,
    },
    /// The report's version is too low.
    #[error("the report has version {found}, at least {minimum} is required")]
    Version {
        /// Version of the report.
        found: u32,
        /// Lowest version.
        minimum: u32,
    },
    /// Milan is refused unless allowed.
    #[error("the report comes from a Milan processor, which is not allowed here")]
    MilanRefused,
    /// The host may read the guest's memory.
    #[error("the guest policy {policy:#x} allows debugging by the host")]
    DebugAllowed {
        /// Guest policy.
        policy: u64,
    },
    /// A migration agent may take the guest elsewhere.
    #[error("the guest policy {policy:#x} allows a migration agent")]
    MigrationAllowed {
        /// Guest policy.
        policy: u64,
    },
    /// The report was asked for at another privilege level.
    #[error("the report is from VMPL {found}, expected {expected}")]
    Vmpl {
        /// Level of the report.
        found: u32,
        /// Level that is wanted.
        expected: u32,
    },
    /// The report does not answer the challenge: it is old, or another session's.
    #[error("report_data is not the challenge of this session")]
    ReportData,
    /// The guest was launched with other initdata.
    #[error("host_data is not the digest of the given initdata")]
    HostData,
    /// The platform's firmware is too old.
    #[error("the platform's TCB [{reported}] is below the required [{minimum}]")]
    TcbTooOld {
        /// TCB of the platform.
        reported: TcbVersion,
        /// Lowest TCB.
        minimum: TcbVersion,
    },
}

impl VerifyError {
    /// The class of the cause: constant text without facts, fit for the other side of a trust boundary.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Report(_) => "report malformed",
            Self::Chain(ChainError::NotAnAnchor { .. }) => "root not trusted",
            Self::Chain(_) => "certificate chain refused",
            Self::ReportSignature => "report signature refused",
            Self::Vek(_) => "endorsement key does not vouch for the report",
            Self::UnknownProcessor { .. } | Self::ProductMismatch { .. } => "processor unknown",
            Self::Version { .. } => "report version too low",
            Self::MilanRefused => "processor not allowed",
            Self::DebugAllowed { .. } => "guest policy allows debugging",
            Self::MigrationAllowed { .. } => "guest policy allows migration",
            Self::Vmpl { .. } => "privilege level refused",
            Self::ReportData => "report data mismatch",
            Self::HostData => "host data mismatch",
            Self::TcbTooOld { .. } => "platform TCB too old",
        }
    }
}

/// Verifies evidence with the default [`VerifyOptions`].
///
/// # Errors
/// [`VerifyError`]; never a panic.
pub fn verify(evidence: &Evidence, anchors: &Anchors, expected: &Expected<'_>) -> Result<Verified, VerifyError> {
    verify_with(evidence, anchors, expected, &VerifyOptions::default())
}

/// Verifies evidence. Cost: three RSA and one ECDSA verification, about a millisecond, and nothing before the root is known.
///
/// # Errors
/// [`VerifyError`]; never a panic.
pub fn verify_with(
    evidence: &Evidence,
    anchors: &Anchors,
    expected: &Expected<'_>,
    options: &VerifyOptions,
) -> Result<Verified, VerifyError> {
    let verified = authenticate(evidence, anchors)?;
    judge(&verified.0, &verified.1, expected, options)?;
    Ok(verified.1)
}

/// Everything that makes the report AMD's, or the simulated platform's, word.
fn authenticate(evidence: &Evidence, anchors: &Anchors) -> Result<(Report, Verified), VerifyError> {
    let report = Report::parse(&evidence.report)?;
    let (certificate, anchor) = verify_chain(&evidence.chain, anchors)?;
    let key = certificate
        .tbs_certificate
        .subject_public_key_info
        .subject_public_key
        .as_bytes();
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key.ok_or(VerifyError::ReportSignature)?)
        .verify(report.signed(), &report.signature())
        .map_err(|_| VerifyError::ReportSignature)?;
    let product = product_of(&report, anchor.product)?;
    vek::check(&certificate, &report, product)?;
    let verified = Verified {
        simulated: anchor.simulated,
        product,
        measurement: report.measurement,
        host_data: report.host_data,
        report_data: report.report_data,
        tcb: report.reported_tcb(product),
        chip_id: report.chip_id,
        policy: report.policy,
        version: report.version,
        signing_key: report.signing_key,
    };
    Ok((report, verified))
}

/// The product by the report's CPUID, which must be that of the root; by the root alone for version 2.
fn product_of(report: &Report, anchor: Product) -> Result<Product, VerifyError> {
    let Some(cpuid) = report.cpuid else { return Ok(anchor) };
    let reported = Product::from_cpuid(cpuid.family, cpuid.model).ok_or(VerifyError::UnknownProcessor {
        family: cpuid.family,
        model: cpuid.model,
    })?;
    if reported == anchor {
        Ok(reported)
    } else {
        Err(VerifyError::ProductMismatch { reported, anchor })
    }
}

/// Everything that the verifier wants of an authentic report.
fn judge(
    report: &Report,
    verified: &Verified,
    expected: &Expected<'_>,
    options: &VerifyOptions,
) -> Result<(), VerifyError> {
    if report.version < options.min_version {
        return Err(VerifyError::Version {
            found: report.version,
            minimum: options.min_version,
        });
    }
    if verified.product == Product::Milan && !options.allow_milan {
        return Err(VerifyError::MilanRefused);
    }
    if report.policy & POLICY_DEBUG != 0 {
        return Err(VerifyError::DebugAllowed { policy: report.policy });
    }
    if report.policy & POLICY_MIGRATE_MA != 0 {
        return Err(VerifyError::MigrationAllowed { policy: report.policy });
    }
    if report.vmpl != expected.vmpl {
        return Err(VerifyError::Vmpl {
            found: report.vmpl,
            expected: expected.vmpl,
        });
    }
    if report.report_data != *expected.report_data {
        return Err(VerifyError::ReportData);
    }
    if expected
        .host_data
        .is_some_and(|host_data| report.host_data != *host_data)
    {
        return Err(VerifyError::HostData);
    }
    match options.minimum_tcb {
        Some(minimum) if !verified.tcb.meets(&minimum) => Err(VerifyError::TcbTooOld {
            reported: verified.tcb,
            minimum,
        }),
        _ => Ok(()),
    }
}
