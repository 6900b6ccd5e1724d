//! Why evidence of a TDX guest is refused.

use std::time::Duration;

use super::{
    collateral::CollateralError, event_log::EventLogError, head::QuoteError, pck::PckError, signed::SignedError,
    status::TcbStatus,
};
use crate::{
    hex_bytes::Hex,
    x509::{ChainError, CrlError},
};

/// Why evidence is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TdxError {
    /// The quote cannot be read.
    #[error("the quote is malformed")]
    Quote(#[from] QuoteError),
    /// The collateral cannot be read.
    #[error("the collateral is malformed")]
    Collateral(#[from] CollateralError),
    /// Neither quote nor collateral brings the certificate of the platform's key.
    #[error("no PCK certificate chain, neither in the quote nor in the collateral")]
    NoPckChain,
    /// Certificates do not lead to a root of this verifier, are not valid now, or are revoked.
    #[error("a certificate chain is refused")]
    Chain(#[from] ChainError),
    /// A revocation list cannot be believed.
    #[error("a revocation list is refused")]
    Crl(#[from] CrlError),
    /// The chains of one evidence end in different roots.
    #[error("the collateral's chains end in another root than the quote's")]
    OtherRoot,
    /// Intel's signed documents cannot be believed.
    #[error("a signed document of the collateral is refused")]
    Signed(#[from] SignedError),
    /// The platform's certificate says nothing usable about it.
    #[error("the PCK certificate does not describe a platform")]
    Pck(#[from] PckError),
    /// The report of the quoting enclave is not signed by the platform's key.
    #[error("the report of the quoting enclave is not signed by the PCK")]
    EnclaveSignature,
    /// The attestation key is not the one that the quoting enclave made.
    #[error("the attestation key is not the one that the quoting enclave vouches for")]
    AttestationKey,
    /// The quote is not signed by the attestation key: it was changed.
    #[error("the quote is not signed by its attestation key")]
    Signature,
    /// Not Intel's quoting enclave for TDX.
    #[error("the quoting enclave is not the one that Intel identifies")]
    QuotingEnclave,
    /// The collateral is of another family of platforms.
    #[error("the TCB info is not of this platform, FMSPC {fmspc}")]
    OtherPlatform {
        /// The platform's.
        fmspc: Hex<6>,
    },
    /// The TDX module is of a version that the collateral does not know.
    #[error("the TCB info knows no TDX module of version {version}")]
    UnknownModule {
        /// Major version.
        version: u8,
    },
    /// The TDX module is not Intel's.
    #[error("the TDX module is not signed by the signer in the TCB info")]
    ModuleSigner,
    /// The TDX module runs with attributes that are not allowed, such as debugging.
    #[error("the TDX module does not have the attributes in the TCB info")]
    ModuleAttributes,
    /// Below every level that Intel lists.
    #[error("the {what} is below every TCB level that Intel lists")]
    NoTcbLevel {
        /// Platform, TDX module or quoting enclave.
        what: &'static str,
    },
    /// The event log cannot be read.
    #[error("the event log is malformed")]
    EventLog(#[from] EventLogError),
    /// The event log does not lead to a register's value.
    #[error("the event log does not replay to RTMR{index}")]
    Replay {
        /// Which register.
        index: usize,
    },
    /// The quote does not answer the challenge: it is old, or another session's.
    #[error("report_data is not the challenge of this session")]
    ReportData,
    /// The guest was launched with other initdata.
    #[error("MRCONFIGID is not the digest of the given initdata")]
    MrConfigId,
    /// The host gave the guest an owner, which Cella does not.
    #[error("MROWNER or MROWNERCONFIG is not zero")]
    Owner,
    /// A service TD may act upon the guest.
    #[error("a service TD is bound to the guest")]
    ServiceTd,
    /// The host may read the guest's memory.
    #[error("the guest's attributes {attributes:#x} allow debugging by the host")]
    DebugAllowed {
        /// Attributes.
        attributes: u64,
    },
    /// Attributes that are not on the list of allowed ones.
    #[error("the guest's attributes {attributes:#x} have bits {bits:#x}, which are not allowed here")]
    AttributesForbidden {
        /// Attributes.
        attributes: u64,
        /// Which bits.
        bits: u64,
    },
    /// Attributes that must be set are not.
    #[error("the guest's attributes {attributes:#x} lack bits {bits:#x}, which are required here")]
    AttributesRequired {
        /// Attributes.
        attributes: u64,
        /// Which bits.
        bits: u64,
    },
    /// The platform's status, or an advisory that it is subject to, is none that policy accepts now.
    #[error("the platform's TCB status is {status} with advisories {advisories:?}, which is not accepted here")]
    TcbStatus {
        /// Intel's judgement.
        status: TcbStatus,
        /// Advisories that the platform is subject to.
        advisories: Vec<String>,
    },
    /// The collateral is from before a judgement that policy demands.
    #[error("the collateral has TCB evaluation data number {found}, at least {minimum} is required")]
    EvaluationNumber {
        /// Of the collateral.
        found: u32,
        /// Lowest number.
        minimum: u32,
    },
    /// The collateral was issued too long ago, though Intel still lets it be used.
    #[error("the collateral was issued {} s ago, at most {} s are accepted here", age.as_secs(), max.as_secs())]
    CollateralAge {
        /// Since the older of its documents was issued.
        age: Duration,
        /// Highest age.
        max: Duration,
    },
    /// The platform's security versions are below those that policy demands.
    #[error("the TDX module's security versions {found} are below the required {minimum}")]
    TcbTooOld {
        /// Of the platform.
        found: Hex<16>,
        /// Lowest ones.
        minimum: Hex<16>,
    },
    /// Not a platform of the list.
    #[error("the platform is not on the list")]
    PlatformNotAllowed,
    /// The platform is configured in a way that policy does not accept.
    #[error("the platform's {what} setting is not accepted here")]
    Configuration {
        /// Which setting.
        what: &'static str,
    },
}

impl TdxError {
    /// The class of the cause: constant text without facts, fit for the other side of a trust boundary.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Quote(_) => "quote malformed",
            Self::Collateral(_) | Self::NoPckChain => "collateral malformed",
            Self::Chain(ChainError::NotAnAnchor { .. }) | Self::OtherRoot => "root not trusted",
            Self::Chain(ChainError::Expired { .. } | ChainError::NotYetValid { .. }) => "certificate not valid now",
            Self::Chain(ChainError::Revoked { .. }) => "certificate revoked",
            Self::Chain(_) | Self::Pck(_) => "certificate chain refused",
            Self::Crl(_) => "revocation list refused",
            Self::Signed(SignedError::Expired { .. } | SignedError::NotYetValid { .. }) => "collateral not valid now",
            Self::Signed(_) => "collateral refused",
            Self::EnclaveSignature | Self::AttestationKey | Self::QuotingEnclave => "quoting enclave refused",
            Self::Signature => "quote signature refused",
            Self::OtherPlatform { .. } | Self::UnknownModule { .. } => "collateral of another platform",
            Self::ModuleSigner | Self::ModuleAttributes => "TDX module refused",
            Self::NoTcbLevel { .. } | Self::TcbTooOld { .. } => "platform TCB too old",
            Self::EventLog(_) => "event log malformed",
            Self::Replay { .. } => "event log does not replay",
            Self::ReportData => "report data mismatch",
            Self::MrConfigId => "MRCONFIGID mismatch",
            Self::Owner | Self::ServiceTd => "guest has another owner",
            Self::DebugAllowed { .. } => "guest attributes allow debugging",
            Self::AttributesForbidden { .. } | Self::AttributesRequired { .. } => "guest attributes refused",
            Self::TcbStatus { .. } => "platform TCB status not accepted",
            Self::EvaluationNumber { .. } | Self::CollateralAge { .. } => "collateral too old",
            Self::PlatformNotAllowed => "platform not allowed",
            Self::Configuration { .. } => "platform configuration refused",
        }
    }
}
