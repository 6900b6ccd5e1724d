//! The quote, byte by byte (Intel TDX DCAP quoting library API, "Version 4" and "Version 5" quote format).
//!
//! ```text
//! header 48 │ v5: body type u16, length u32 │ TD report │ u32 length │ signature 64, key 64, u16 6, u32 length ┐
//!           └ all of this is signed ────────────────────┘            ┌─────────────────────────────────────────┘
//!             enclave report 384, signature 64, u16 length + authentication data, u16 type, u32 length + certificates
//! ```

use x509_cert::{Certificate, der::Decode};

use super::{
    enclave,
    pck::Platform,
    report::{LEN_10, LEN_15, LEN_15_EX, TdReport},
};
pub use crate::evidence::MAX_QUOTE;
use crate::{reader::Reader, x509::pem_chain};

/// Header of every quote.
const HEADER: usize = 48;
/// ECDSA with P-256, the one key type that Intel's quoting enclave has for TDX.
const KEY_ECDSA_P256: u16 = 2;
/// TDX, in the header's TEE type.
const TEE_TDX: u32 = 0x81;
/// Intel's quoting enclave, in the header.
const INTEL: [u8; 16] = 0x939a_7233_f79c_4ca9_940a_0db3_957f_0607_u128.to_be_bytes();
/// Certification data: the report of the quoting enclave with what leads to its signature.
const DATA_QE_REPORT: u16 = 6;
/// Certification data: the encrypted identity of the platform, whose certificate must then come from elsewhere.
const DATA_PPID: [u16; 2] = [2, 3];
/// Certification data: certificates in PEM.
const DATA_PCK_CHAIN: u16 = 5;

/// Certificates that lead to the platform's key: PCK, PCK CA and root.
pub(super) const PCK_CHAIN: usize = 3;

/// A parsed quote. It keeps the bytes that came, and only those are ever verified.
///
/// Parsing says nothing about who made the quote: that is [`super::verify()`].
#[derive(Clone)]
pub struct Quote<'a> {
    /// Version of the format: 4 or 5.
    pub version: u16,
    /// What the TDX module says.
    pub report: TdReport,
    /// What the attestation key signed.
    pub(super) signed: &'a [u8],
    /// `r || s`, each 32 bytes big endian.
    pub(super) signature: [u8; 64],
    /// `x || y`.
    pub(super) attestation_key: [u8; 64],
    pub(super) qe_report: &'a [u8; enclave::LEN],
    pub(super) qe_signature: [u8; 64],
    pub(super) qe_authentication: &'a [u8],
    /// PEM, where the quote brings its certificates.
    pub(super) pck_chain: Option<&'a str>,
}

impl<'a> Quote<'a> {
    /// Reads a quote. Pure; no signature is looked at.
    ///
    /// # Errors
    /// [`QuoteError`]; never a panic.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, QuoteError> {
        if bytes.len() > MAX_QUOTE {
            return Err(QuoteError::TooLarge { len: bytes.len() });
        }
        let mut at = Reader(bytes);
        let version = header(&mut at)?;
        let report = body(&mut at, version)?;
        let signed = bytes.get(..bytes.len() - at.0.len()).ok_or(QuoteError::Truncated)?;
        let authentication = at.with_u32_len().ok_or(QuoteError::Truncated)?;
        // The kernel hands out a buffer that is longer than the quote.
        if at.0.iter().any(|byte| *byte != 0) {
            return Err(QuoteError::Trailing);
        }
        let mut at = Reader(authentication);
        let signature = at.array().ok_or(QuoteError::Truncated)?;
        let attestation_key = at.array().ok_or(QuoteError::Truncated)?;
        let certification = data(&mut at, &[DATA_QE_REPORT])?.1;
        if !at.is_empty() {
            return Err(QuoteError::Trailing);
        }
        let mut at = Reader(certification);
        let qe_report = at
            .bytes(enclave::LEN)
            .and_then(|report| report.try_into().ok())
            .ok_or(QuoteError::Truncated)?;
        let qe_signature = at.array().ok_or(QuoteError::Truncated)?;
        let qe_authentication = at.with_u16_len().ok_or(QuoteError::Truncated)?;
        let (kind, certificates) = data(&mut at, &[DATA_PPID.as_slice(), &[DATA_PCK_CHAIN]].concat())?;
        if !at.is_empty() {
            return Err(QuoteError::Trailing);
        }
        let pck_chain = match kind {
            DATA_PCK_CHAIN => Some(std::str::from_utf8(certificates).map_err(|_| QuoteError::Certificates)?),
            _ => None,
        };
        Ok(Self {
            version,
            report,
            signed,
            signature,
            attestation_key,
            qe_report,
            qe_signature,
            qe_authentication,
            pck_chain,
        })
    }

    /// The family of the platform that the quote's certificate names, where it brings one. Not verified: to choose collateral by.
    pub fn fmspc(&self) -> Option<[u8; 6]> {
        let chain = pem_chain(self.pck_chain?, PCK_CHAIN)?;
        let pck = Certificate::from_der(chain.first()?).ok()?;
        Platform::of(&pck).ok().map(|platform| platform.fmspc)
    }

    /// Length of the part at the start that the signature covers.
    pub fn signed_len(&self) -> usize {
        self.signed.len()
    }
}

/// Reads the header and gives the version.
fn header(at: &mut Reader<'_>) -> Result<u16, QuoteError> {
    let mut header = Reader(at.bytes(HEADER).ok_or(QuoteError::Truncated)?);
    let version = header.u16().ok_or(QuoteError::Truncated)?;
    if !matches!(version, 4 | 5) {
        return Err(QuoteError::Version { found: version });
    }
    let key_type = header.u16().ok_or(QuoteError::Truncated)?;
    if key_type != KEY_ECDSA_P256 {
        return Err(QuoteError::KeyType { found: key_type });
    }
    let tee = header.u32().ok_or(QuoteError::Truncated)?;
    if tee != TEE_TDX {
        return Err(QuoteError::NotTdx { tee });
    }
    let _security_versions: [u8; 4] = header.array().ok_or(QuoteError::Truncated)?;
    if header.array() != Some(INTEL) {
        return Err(QuoteError::Vendor);
    }
    Ok(version)
}

/// Reads the TD report in the form that version and body type say.
fn body(at: &mut Reader<'_>, version: u16) -> Result<TdReport, QuoteError> {
    let len = if version == 4 {
        LEN_10
    } else {
        let kind = at.u16().ok_or(QuoteError::Truncated)?;
        let said = at.u32().ok_or(QuoteError::Truncated)?;
        let len = match kind {
            2 => LEN_10,
            3 => LEN_15,
            4 => LEN_15_EX,
            _ => return Err(QuoteError::Body { kind, len: said }),
        };
        if usize::try_from(said) != Ok(len) {
            return Err(QuoteError::Body { kind, len: said });
        }
        len
    };
    let bytes = at.bytes(len).ok_or(QuoteError::Truncated)?;
    TdReport::parse(bytes).ok_or(QuoteError::Truncated)
}

/// Reads certification data of one of these types.
fn data<'a>(at: &mut Reader<'a>, types: &[u16]) -> Result<(u16, &'a [u8]), QuoteError> {
    let kind = at.u16().ok_or(QuoteError::Truncated)?;
    if !types.contains(&kind) {
        return Err(QuoteError::CertificationData { found: kind });
    }
    Ok((kind, at.with_u32_len().ok_or(QuoteError::Truncated)?))
}

impl std::fmt::Debug for Quote<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quote")
            .field("version", &self.version)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// Why bytes are not a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuoteError {
    /// Longer than any quote.
    #[error("a quote of {len} bytes; at most {MAX_QUOTE} are read")]
    TooLarge {
        /// Bytes that came.
        len: usize,
    },
    /// A field or a length goes beyond the bytes that came.
    #[error("the quote is cut off")]
    Truncated,
    /// Bytes where nothing is.
    #[error("the quote has bytes behind its parts")]
    Trailing,
    /// A version of the format that is not known here.
    #[error("quote version {found}; 4 and 5 are known")]
    Version {
        /// Version in the quote.
        found: u16,
    },
    /// Not ECDSA with P-256.
    #[error("quote attestation key type {found}; only 2, ECDSA with P-256, is known")]
    KeyType {
        /// Type in the quote.
        found: u16,
    },
    /// A quote of something else, such as an SGX enclave.
    #[error("the quote is of TEE {tee:#x}, not of a TDX guest")]
    NotTdx {
        /// TEE type in the quote.
        tee: u32,
    },
    /// Not by Intel's quoting enclave.
    #[error("the quote is not by Intel's quoting enclave")]
    Vendor,
    /// A body that is no TD report, or not of its length.
    #[error("quote body of type {kind} and {len} bytes is no TD report")]
    Body {
        /// Type in the quote.
        kind: u16,
        /// Length in the quote.
        len: u32,
    },
    /// Certification data of a type that does not belong there.
    #[error("certification data of type {found} in the quote is not known here")]
    CertificationData {
        /// Type in the quote.
        found: u16,
    },
    /// The certificates are no text.
    #[error("the certificates in the quote are not PEM")]
    Certificates,
}
