//! From bytes that somebody sent to facts about a guest.
//!
//! Order: the report is parsed, its chain verified up to an anchor, its signature verified over the raw bytes, the endorsement key's
//! extensions compared; only then is anything that it says compared with what is wanted.

use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use crate::{
    anchors::Anchors,
    chain::{ChainChecks, verify_chain},
    evidence::Evidence,
    snp::{Mitigations, Product, Report, ReportError, SigningKey, TcbVersion, VerifyOptions},
    vek::{self, VekError},
    x509::{ChainError, CrlError},
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
    /// TCB at launch. It is not certified by itself: it stands in the signed report.
    pub launch_tcb: TcbVersion,
    /// How the platform is configured, the bits `PLATFORM_*` of [`crate::snp`].
    pub platform_info: u64,
    /// Firmware mitigations, version 5.
    pub mitigations: Option<Mitigations>,
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
    /// The revocation list that goes with the chain cannot be believed, or there is none.
    #[error("the revocation list is refused")]
    Crl(#[from] CrlError),
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
    /// The guest policy has a bit that is forbidden here.
    #[error("the guest policy {policy:#x} has bits {bits:#x}, which are forbidden here")]
    PolicyForbidden {
        /// Guest policy.
        policy: u64,
        /// Which bits.
        bits: u64,
    },
    /// The guest policy lacks a bit that is required here.
    #[error("the guest policy {policy:#x} lacks bits {bits:#x}, which are required here")]
    PolicyRequired {
        /// Guest policy.
        policy: u64,
        /// Which bits.
        bits: u64,
    },
    /// The guest policy lets older firmware run the guest.
    #[error("the guest policy allows ABI {major}.{minor}, below the required one")]
    PolicyAbi {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// The platform lacks a setting that is required here.
    #[error("the platform information {platform_info:#x} lacks bits {bits:#x}, which are required here")]
    Platform {
        /// Platform information.
        platform_info: u64,
        /// Which bits.
        bits: u64,
    },
    /// The firmware lacks a mitigation that is required here, or the report does not tell.
    #[error("the firmware's mitigations lack bits {bits:#x}, which are required here")]
    Mitigations {
        /// Which bits.
        bits: u64,
    },
    /// Signed with a provider's key where only a chip's is accepted.
    #[error("the report is signed with a VLEK, which is not allowed here")]
    VlekRefused,
    /// Not a chip of the list.
    #[error("the report's chip is not on the list")]
    ChipNotAllowed,
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
    /// The platform's firmware is too old, or was when the guest was launched.
    #[error("the platform's {which} TCB [{reported}] is below the required [{minimum}]")]
    TcbTooOld {
        /// `reported` or `launch`.
        which: &'static str,
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
            Self::Chain(ChainError::Expired { .. } | ChainError::NotYetValid { .. }) => "certificate not valid now",
            Self::Chain(ChainError::Revoked { .. }) => "certificate revoked",
            Self::Chain(_) => "certificate chain refused",
            Self::Crl(_) => "revocation list refused",
            Self::ReportSignature => "report signature refused",
            Self::Vek(_) => "endorsement key does not vouch for the report",
            Self::UnknownProcessor { .. } | Self::ProductMismatch { .. } => "processor unknown",
            Self::Version { .. } => "report version too low",
            Self::MilanRefused => "processor not allowed",
            Self::DebugAllowed { .. } => "guest policy allows debugging",
            Self::MigrationAllowed { .. } => "guest policy allows migration",
            Self::PolicyForbidden { .. } | Self::PolicyRequired { .. } | Self::PolicyAbi { .. } => {
                "guest policy refused"
            }
            Self::Platform { .. } => "platform configuration refused",
            Self::Mitigations { .. } => "firmware mitigations missing",
            Self::VlekRefused => "signing key not allowed",
            Self::ChipNotAllowed => "chip not allowed",
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

/// Verifies evidence. Cost: three RSA and one ECDSA verification, about half a millisecond, and one RSA more for each revocation list;
/// nothing of it before the root is known.
///
/// # Errors
/// [`VerifyError`]; never a panic.
pub fn verify_with(
    evidence: &Evidence,
    anchors: &Anchors,
    expected: &Expected<'_>,
    options: &VerifyOptions,
) -> Result<Verified, VerifyError> {
    let (report, verified) = authenticate(evidence, anchors, options.chain_checks())?;
    compare(&report, expected)?;
    options.judge(&verified)?;
    Ok(verified)
}

/// Everything that makes the report AMD's, or the simulated platform's, word.
fn authenticate(
    evidence: &Evidence,
    anchors: &Anchors,
    checks: ChainChecks<'_>,
) -> Result<(Report, Verified), VerifyError> {
    let report = Report::parse(&evidence.report)?;
    let (certificate, anchor) = verify_chain(&evidence.chain, anchors, checks)?;
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
        launch_tcb: report.launch_tcb(product),
        platform_info: report.platform_info,
        mitigations: report.mitigations,
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

/// What the report must say, whatever the verifier tolerates.
fn compare(report: &Report, expected: &Expected<'_>) -> Result<(), VerifyError> {
    if report.vmpl != expected.vmpl {
        return Err(VerifyError::Vmpl {
            found: report.vmpl,
            expected: expected.vmpl,
        });
    }
    if report.report_data != *expected.report_data {
        return Err(VerifyError::ReportData);
    }
    match expected.host_data {
        Some(host_data) if report.host_data != *host_data => Err(VerifyError::HostData),
        _ => Ok(()),
    }
}
