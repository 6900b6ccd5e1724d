//! The record of a run: what a job of this boot read, how it ended and what it left; signed with the boot's key, the boot's own record
//! beside it.

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::bytes::Hex;
use crate::canonical::{self, CanonicalError};
use crate::key::RecordKey;
use crate::signed::{MAX_TEXT, ParseError, SignedRecord};

/// The only version of run records that this crate makes and reads.
pub const RUN_VERSION: u64 = 1;

/// What a run's record is in a registry: type of an artifact and of its one layer.
pub const RUN_MEDIA_TYPE: &str = "application/vnd.cella.run-record.v1+json";

/// A guest's account of one run of the container whose output its policy keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunRecord {
    /// [`RUN_VERSION`].
    pub version: u64,
    /// SHA-256 of the canonical text of the boot's record: of which boot this is a run.
    pub boot: Hex<32>,
    /// The container, by the policy's name for it.
    pub container: String,
    /// Its image.
    pub image: String,
    /// What was mounted into it: models and datasets, all of them of the boot's record.
    pub inputs: Vec<InputRecord>,
    /// How it ended: 0, another exit status, or that of an output that could not be kept.
    pub exit_status: u32,
    /// What was pushed; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputRecord>,
    /// When, by the broker's clock. Absent where nobody has told the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<RunTime>,
}

/// A model or dataset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InputRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Its manifest: `registry/repository@sha256:…`.
    pub artifact: String,
}

/// An artifact that was sealed and pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OutputRecord {
    /// Its name, as bound into its sealing.
    pub name: String,
    /// Its version, as bound into its sealing.
    pub version: u64,
    /// Its manifest: `registry/repository@sha256:…`.
    pub artifact: String,
    /// Its files.
    pub files: Vec<OutputFileRecord>,
}

/// A file of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OutputFileRecord {
    /// Path in the artifact.
    pub path: String,
    /// SHA-256 of the plaintext: `sha256:…`.
    pub digest: String,
    /// Length of the plaintext.
    pub bytes: u64,
}

/// From when to when, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunTime {
    /// The job's program was about to start.
    pub started: u64,
    /// Its output was pushed, or given up.
    pub ended: u64,
}

/// A run's record as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SignedRun {
    /// The boot's record, whole: it leads from the key to the evidence.
    pub boot: SignedRecord,
    /// What is said.
    pub run: RunRecord,
    /// Ed25519, by the boot's record key, over [`RunRecord`]'s canonical text behind a line that says what it is.
    pub signature: Hex<64>,
}

impl SignedRun {
    /// Signs a run of `boot`, whose key must be `key`. `run.boot` is filled in here.
    ///
    /// # Errors
    /// [`CanonicalError`] for a number that JSON readers do not agree on.
    pub fn sign(boot: SignedRecord, mut run: RunRecord, key: &RecordKey) -> Result<Self, CanonicalError> {
        run.boot = digest_of(&boot)?;
        let signature = key.sign(&statement(&run)?);
        Ok(Self { boot, run, signature })
    }

    /// The canonical text, with a line feed at its end.
    ///
    /// # Errors
    /// As [`SignedRun::sign`].
    pub fn to_text(&self) -> Result<String, CanonicalError> {
        Ok(canonical::text(self)? + "\n")
    }

    /// Whether a text begins as that of a run's record does, and not as that of a boot's. Says nothing about the rest.
    pub fn is_likely(text: &[u8]) -> bool {
        text.starts_with(b"{\"boot\":")
    }

    /// Reads a record that anybody may have written; checks its form, both signatures, and that it is of this boot.
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
        if signed.run.version != RUN_VERSION {
            return Err(ParseError::Version {
                found: signed.run.version,
            });
        }
        let canonical = canonical::text(&signed).map_err(ParseError::Canonical)?;
        if text.strip_suffix(b"\n").unwrap_or(text) != canonical.as_bytes() {
            return Err(ParseError::NotCanonical);
        }
        let boot = signed.boot.to_text().map_err(ParseError::Canonical)?;
        SignedRecord::parse(boot.as_bytes())?;
        if digest_of(&signed.boot).map_err(ParseError::Canonical)? != signed.run.boot {
            return Err(ParseError::OtherBoot);
        }
        let statement = statement(&signed.run).map_err(ParseError::Canonical)?;
        UnparsedPublicKey::new(&ED25519, signed.boot.record.key.0)
            .verify(&statement, &signed.signature.0)
            .map_err(|_| ParseError::Signature)?;
        Ok(signed)
    }
}

/// Of the boot's whole record, its signature and evidence included.
fn digest_of(boot: &SignedRecord) -> Result<Hex<32>, CanonicalError> {
    let mut bytes = [0; 32];
    let found = digest(&SHA256, canonical::text(boot)?.as_bytes());
    for (to, from) in bytes.iter_mut().zip(found.as_ref()) {
        *to = *from;
    }
    Ok(Hex(bytes))
}

fn statement(run: &RunRecord) -> Result<Vec<u8>, CanonicalError> {
    Ok([TAG, canonical::text(run)?.as_bytes()].concat())
}

/// Keeps a signature from meaning anything elsewhere; a boot's has another.
const TAG: &[u8] = b"cella run record 1\n";

#[cfg(test)]
mod tests;
