//! What a quote begins with: its header and the TD report. A guest reads its own with it; nothing here looks at a signature.

use super::report::{LEN_10, LEN_15, LEN_15_EX, TdReport};
use crate::{evidence::MAX_QUOTE, reader::Reader};

/// Header of every quote.
const HEADER: usize = 48;
/// ECDSA with P-256, the one key type that Intel's quoting enclave has for TDX.
const KEY_ECDSA_P256: u16 = 2;
/// TDX, in the header's TEE type.
const TEE_TDX: u32 = 0x81;
/// Intel's quoting enclave, in the header.
const INTEL: [u8; 16] = 0x939a_7233_f79c_4ca9_940a_0db3_957f_0607_u128.to_be_bytes();

impl TdReport {
    /// Reads the report out of a quote. Pure; no signature is looked at, so this is for a quote that the caller does not have to believe.
    ///
    /// # Errors
    /// [`QuoteError`]; never a panic.
    pub fn of_quote(quote: &[u8]) -> Result<Self, QuoteError> {
        if quote.len() > MAX_QUOTE {
            return Err(QuoteError::TooLarge { len: quote.len() });
        }
        let mut at = Reader(quote);
        let version = header(&mut at)?;
        body(&mut at, version)
    }
}

/// Reads the header and gives the version.
pub(super) fn header(at: &mut Reader<'_>) -> Result<u16, QuoteError> {
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
pub(super) fn body(at: &mut Reader<'_>, version: u16) -> Result<TdReport, QuoteError> {
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
