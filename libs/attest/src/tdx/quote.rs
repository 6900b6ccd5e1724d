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
    head::{QuoteError, body, header},
    pck::Platform,
    report::TdReport,
};
use crate::{evidence::MAX_QUOTE, reader::Reader, x509::pem_chain};

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
