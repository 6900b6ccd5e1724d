//! Reference values: what guests of one image measure as, signed by whoever publishes the image.
//!
//! A document is a message of Trustee's reference value provider (RVPS, message 0.1.0, provenance `sample`) with one member more, which that
//! provider passes over:
//! ```json
//! {"version":"0.1.0","type":"sample","payload":"<base64 of the values>",
//!  "cella":{"name":"guest","issued":1767225600,"expires":1798761600,"signature":"<base64url of 64 bytes>"}}
//! ```
//! The values are `{"mr_td":["<96 hex>",…],"snp_launch_measurement":[…],…}`, by the names of Trustee's own appraisal policy. The signature is Ed25519 over
//! a text that has the name, both times and the SHA-256 of the payload in it, so none of them can be exchanged (threat T28).
//!
//! Whose bytes: anybody's, until a signer that the reader named has signed them. The envelope is bounded before it is parsed, the values are
//! parsed after the signature was verified.

mod error;
mod values;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

pub use error::ReferenceError;
pub use values::{Measured, ReferenceName, ReferenceNameError, Values};

use crate::digest::sha256;

/// Longest document that is looked at, in bytes: what takes all values that a document can have.
pub const MAX_DOCUMENT: usize = 256 * 1024;
/// Longest time from issue to expiry, in seconds: 366 days. Values that nobody renews end.
pub const MAX_LIFETIME_S: u64 = 366 * 24 * 3600;
/// How far the publisher's clock may be ahead, in seconds.
const MAX_SKEW_S: u64 = 300;

/// The version and the kind of provenance of RVPS messages.
const VERSION: &str = "0.1.0";
const KIND: &str = "sample";

/// A document, of which only the form was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    payload: Vec<u8>,
    claim: Option<Claim>,
}

/// What was signed of a document, beside its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    name: ReferenceName,
    issued: u64,
    expires: u64,
    signature: String,
}

/// A document whose signer the reader trusts, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct References {
    /// What the values are called.
    pub name: ReferenceName,
    /// When they were signed, in seconds since the Unix epoch.
    pub issued: u64,
    /// When they end.
    pub expires: u64,
    /// The Ed25519 key that signed.
    pub signer: [u8; 32],
    /// They.
    pub values: Values,
}

impl Document {
    /// An unsigned document.
    pub fn of(values: &Values) -> Self {
        Self {
            payload: values.to_json(),
            claim: None,
        }
    }

    /// Reads a document's envelope, signed or not.
    ///
    /// # Errors
    /// [`ReferenceError`]; never a panic.
    pub fn parse(json: &[u8]) -> Result<Self, ReferenceError> {
        if json.len() > MAX_DOCUMENT {
            return Err(ReferenceError::TooLarge { len: json.len() });
        }
        let wire: Wire = serde_json::from_slice(json).map_err(|source| ReferenceError::Json { source })?;
        if wire.version != VERSION || wire.kind != KIND {
            return Err(ReferenceError::Kind);
        }
        Ok(Self {
            payload: STANDARD.decode(wire.payload).map_err(|_| ReferenceError::Payload)?,
            claim: wire.cella,
        })
    }

    /// Writes the document, one line of JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let wire = Wire {
            version: VERSION.to_owned(),
            kind: KIND.to_owned(),
            payload: STANDARD.encode(&self.payload),
            cella: self.claim.clone(),
        };
        // Texts and numbers under fixed names: nothing can fail.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// When it says that it was signed, in seconds since the Unix epoch. Not verified.
    pub fn issued(&self) -> Option<u64> {
        self.claim.as_ref().map(|claim| claim.issued)
    }

    /// The values, whoever wrote them.
    ///
    /// # Errors
    /// [`ReferenceError::Values`] and others about their form.
    pub fn unverified(&self) -> Result<Values, ReferenceError> {
        Values::from_json(&self.payload)
    }

    /// Signs the values under a name for a time, both in seconds since the Unix epoch. A signature that was there is replaced.
    ///
    /// # Errors
    /// [`ReferenceError::Lifetime`]; or the values are none.
    pub fn sign(
        self,
        key: &Ed25519KeyPair,
        name: ReferenceName,
        issued: u64,
        expires: u64,
    ) -> Result<Self, ReferenceError> {
        self.unverified()?;
        check_lifetime(issued, expires)?;
        let signature = key.sign(statement(&name, issued, expires, &self.payload).as_bytes());
        Ok(Self {
            claim: Some(Claim {
                name,
                issued,
                expires,
                signature: URL_SAFE_NO_PAD.encode(signature),
            }),
            ..self
        })
    }

    /// Which of `signers` signed, whatever the time is.
    ///
    /// # Errors
    /// [`ReferenceError::Unsigned`] or [`ReferenceError::Signature`].
    pub fn signer(&self, signers: &[[u8; 32]]) -> Result<[u8; 32], ReferenceError> {
        let Claim {
            name,
            issued,
            expires,
            signature,
        } = self.claim.as_ref().ok_or(ReferenceError::Unsigned)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| ReferenceError::Signature)?;
        let statement = statement(name, *issued, *expires, &self.payload);
        let signed = |key: &&[u8; 32]| {
            UnparsedPublicKey::new(&ED25519, key)
                .verify(statement.as_bytes(), &signature)
                .is_ok()
        };
        signers.iter().find(signed).copied().ok_or(ReferenceError::Signature)
    }

    /// Gives the values if one of `signers` signed them and `now`, in seconds since the Unix epoch, is in their time.
    ///
    /// # Errors
    /// [`ReferenceError`]: unsigned, another's signature, from the future, expired, or not values.
    pub fn verify(&self, signers: &[[u8; 32]], now: u64) -> Result<References, ReferenceError> {
        let signer = self.signer(signers)?;
        let claim = self.claim.as_ref().ok_or(ReferenceError::Unsigned)?;
        let Claim {
            name, issued, expires, ..
        } = claim;
        check_lifetime(*issued, *expires)?;
        if *issued > now.saturating_add(MAX_SKEW_S) {
            return Err(ReferenceError::Future);
        }
        if now >= *expires {
            return Err(ReferenceError::Expired);
        }
        Ok(References {
            name: name.clone(),
            issued: *issued,
            expires: *expires,
            signer,
            values: Values::from_json(&self.payload)?,
        })
    }
}

fn check_lifetime(issued: u64, expires: u64) -> Result<(), ReferenceError> {
    match expires.checked_sub(issued) {
        Some(1..=MAX_LIFETIME_S) => Ok(()),
        _ => Err(ReferenceError::Lifetime),
    }
}

/// The text that is signed. No value in it can hold a blank or a line feed, so two texts that say different things differ.
fn statement(name: &ReferenceName, issued: u64, expires: u64, payload: &[u8]) -> String {
    let payload = hex::encode(sha256(payload));
    format!("cella reference-values 1\nname {name}\nissued {issued}\nexpires {expires}\npayload {payload}\n")
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: String,
    #[serde(rename = "type")]
    kind: String,
    payload: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cella: Option<Claim>,
}

#[cfg(test)]
mod tests;
