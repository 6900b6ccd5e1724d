//! Intel's signed JSON documents: the text that was signed, who signed it, until when it holds.

use std::{str::FromStr, time::Duration};

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, de::Error as _};
use x509_cert::der::DateTime;

use super::error::TdxError;
use crate::x509::Cert;

/// Why a signed document is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError {
    /// Changed, or signed by another key.
    #[error("the {what} is not signed by Intel's signing key")]
    Signature {
        /// Which document.
        what: &'static str,
    },
    /// Signed, but not of the form that is known here.
    #[error("the {what} is not of the form that is known here")]
    Json {
        /// Which document.
        what: &'static str,
        /// What the parser stopped at.
        #[source]
        source: serde_json::Error,
    },
    /// Of another kind or version.
    #[error("the {what} is of another kind or version")]
    Kind {
        /// Which document.
        what: &'static str,
    },
    /// Its time has not come.
    #[error("the {what} is not valid yet")]
    NotYetValid {
        /// Which document.
        what: &'static str,
    },
    /// Its time is over.
    #[error("the {what} has expired")]
    Expired {
        /// Which document.
        what: &'static str,
    },
}

/// A document of Intel's.
pub(super) trait Document: for<'de> Deserialize<'de> {
    /// What it is called in errors.
    const WHAT: &'static str;

    /// Whether kind and version are known here.
    fn is_known(&self) -> bool;

    /// When it was issued and until when it holds, since the Unix epoch.
    fn dates(&self) -> (Date, Date);
}

/// Parses a document after its signature was verified, and checks its dates, both inclusive.
pub(super) fn open<D: Document>(
    text: &str,
    signature: &[u8; 64],
    signer: &Cert<'_>,
    now: Duration,
) -> Result<D, TdxError> {
    let what = D::WHAT;
    let key = signer.public_key().ok_or(SignedError::Signature { what })?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
        .verify(text.as_bytes(), signature)
        .map_err(|_| SignedError::Signature { what })?;
    let document: D = serde_json::from_str(text).map_err(|source| SignedError::Json { what, source })?;
    if !document.is_known() {
        return Err(SignedError::Kind { what }.into());
    }
    let (issued, next_update) = document.dates();
    if now.as_secs() < issued.0.as_secs() {
        return Err(SignedError::NotYetValid { what }.into());
    }
    if now.as_secs() > next_update.0.as_secs() {
        return Err(SignedError::Expired { what }.into());
    }
    Ok(document)
}

/// A date of the form `2025-06-19T10:16:03Z`, since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Date(pub(super) Duration);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let date =
            DateTime::from_str(&text).map_err(|_| D::Error::custom("not a date of the form 2025-06-19T10:16:03Z"))?;
        Ok(Self(date.unix_duration()))
    }
}

/// Bytes in hexadecimal, of either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HexText<const N: usize>(pub(super) [u8; N]);

impl<'de, const N: usize> Deserialize<'de> for HexText<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| D::Error::custom(format_args!("not {} hexadecimal digits", 2 * N)))?;
        Ok(Self(bytes))
    }
}
