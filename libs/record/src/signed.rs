//! A record with its signature and what leads from it to evidence.

use cella_kbs_client::Binding;
use cella_kbs_client::wire::TeePubKey;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::bytes::Hex;
use crate::canonical::{self, CanonicalError};
use crate::evidence::EvidenceText;
use crate::key::RecordKey;
use crate::record::{BootRecord, VERSION};

/// Longest text that is read, in bytes. A record of one model is about 9 KiB.
pub const MAX_TEXT: usize = 256 * 1024;

/// A record as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SignedRecord {
    /// What is said.
    pub record: BootRecord,
    /// How the evidence vouches for the record's key.
    pub binding: BindingText,
    /// The evidence that the broker accepted.
    pub evidence: EvidenceText,
    /// Ed25519, by the record's key, over [`BootRecord`]'s canonical text behind a line that says what it is.
    pub signature: Hex<64>,
}

/// From the evidence's report data to the record's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BindingText {
    /// The broker's nonce.
    pub nonce: String,
    /// The guest's TEE key of that session, as the protocol writes it.
    pub tee_key: TeePubKey,
    /// The point that shows that the TEE key commits to the record's key; compressed.
    pub opening: Hex<33>,
}

impl From<&Binding> for BindingText {
    fn from(binding: &Binding) -> Self {
        Self {
            nonce: binding.nonce.clone(),
            tee_key: binding.tee_key.clone(),
            opening: Hex(*binding.opening.as_bytes()),
        }
    }
}

impl SignedRecord {
    /// Signs a record, whose `key` must be that of `key`.
    ///
    /// # Errors
    /// [`CanonicalError`] for a number that JSON readers do not agree on.
    pub fn sign(
        record: BootRecord,
        key: &RecordKey,
        binding: BindingText,
        evidence: EvidenceText,
    ) -> Result<Self, CanonicalError> {
        let signature = key.sign(&statement(&record)?);
        Ok(Self {
            record,
            binding,
            evidence,
            signature,
        })
    }

    /// The canonical text, with a line feed at its end.
    ///
    /// # Errors
    /// As [`SignedRecord::sign`].
    pub fn to_text(&self) -> Result<String, CanonicalError> {
        Ok(canonical::text(self)? + "\n")
    }

    /// Reads a record that anybody may have written, and checks its form and its signature: that it is what the holder of its
    /// key has said. Whose key that is, `verify`'s `check` finds out.
    ///
    /// # Errors
    /// [`ParseError`]; never a panic.
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        if text.len() > MAX_TEXT {
            return Err(ParseError::TooLarge { found: text.len() });
        }
        let signed: Self = serde_json::from_slice(text).map_err(|error| ParseError::Json {
            line: error.line(),
            column: error.column(),
        })?;
        if signed.record.version != VERSION {
            return Err(ParseError::Version {
                found: signed.record.version,
            });
        }
        let canonical = canonical::text(&signed).map_err(ParseError::Canonical)?;
        if text.strip_suffix(b"\n").unwrap_or(text) != canonical.as_bytes() {
            return Err(ParseError::NotCanonical);
        }
        let statement = statement(&signed.record).map_err(ParseError::Canonical)?;
        UnparsedPublicKey::new(&ED25519, signed.record.key.0)
            .verify(&statement, &signed.signature.0)
            .map_err(|_| ParseError::Signature)?;
        Ok(signed)
    }
}

/// Why a text is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Longer than any record.
    #[error("{found} bytes; a record has {MAX_TEXT} at most")]
    TooLarge {
        /// Its length.
        found: usize,
    },
    /// Not JSON, a member that is missing or unknown, or a value of another form.
    #[error("not a boot record: line {line}, column {column}")]
    Json {
        /// From 1; 0 where the parser could not tell.
        line: usize,
        /// From 1; 0 where the parser could not tell.
        column: usize,
    },
    /// Of a version that is not known here.
    #[error("a boot record of version {found}; this program knows {VERSION}")]
    Version {
        /// Its version.
        found: u64,
    },
    /// It has no canonical text.
    #[error("a boot record cannot say this")]
    Canonical(#[source] CanonicalError),
    /// Blanks, another order, or another way to write something: it was written anew by somebody.
    #[error("the boot record is not in canonical form: hand on the text as the guest gave it")]
    NotCanonical,
    /// A run's record, beside the record of another boot than its own.
    #[error("the run is not one of the boot whose record stands beside it")]
    OtherBoot,
    /// Changed, or signed by nobody.
    #[error("the signature of the boot record is not right")]
    Signature,
}

fn statement(record: &BootRecord) -> Result<Vec<u8>, CanonicalError> {
    Ok([TAG, canonical::text(record)?.as_bytes()].concat())
}

/// Keeps a signature from meaning anything elsewhere.
const TAG: &[u8] = b"cella boot record 1\n";

#[cfg(test)]
pub(crate) mod tests;
