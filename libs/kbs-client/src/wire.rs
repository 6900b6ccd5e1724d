//! The protocol's messages and the hash that binds evidence to a key. No I/O.
//!
//! Member names follow the wire: kebab-case outside, `primary_evidence` and `additional_evidence` in snake_case.
use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA384, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::key::TeePubKey;

/// The version both ends send and demand, exactly.
pub const VERSION: &str = "0.4.0";
/// Name of the session's cookie.
pub const SESSION_COOKIE: &str = "kbs-session-id";
/// Path of the first request.
pub const AUTH_PATH: &str = "/kbs/v0/auth";
/// Path of the attestation.
pub const ATTEST_PATH: &str = "/kbs/v0/attest";
/// Path below which resources lie; followed by `/<repo>/<type>/<tag>`.
pub const RESOURCE_PATH: &str = "/kbs/v0/resource";

/// First message, guest to broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Request {
    /// [`VERSION`].
    pub version: String,
    /// Kind of evidence to come: `snp`, `tdx`, …
    pub tee: String,
    /// An object or `""`; must be present.
    pub extra_params: Value,
}

/// Answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Challenge {
    /// Base64 (standard, padded) of 32 random bytes; to the client an opaque string.
    pub nonce: String,
    /// `""`, or an object that may hold `selected-hash-algorithm`.
    #[serde(default)]
    pub extra_params: Value,
}

/// Evidence with what it is bound to, guest to broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Attestation {
    /// The guest's initdata. Optional in the protocol; a broker that judges policies must demand it.
    #[serde(default)]
    pub init_data: Option<InitData>,
    /// Nonce and key that the evidence names.
    pub runtime_data: RuntimeData,
    /// The evidence.
    pub tee_evidence: TeeEvidence,
}

/// The initdata document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitData {
    /// `toml`.
    pub format: String,
    /// The document's exact text.
    pub body: String,
}

/// What the evidence is fresh for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuntimeData {
    /// As it stood in the [`Challenge`].
    pub nonce: String,
    /// The key that answers are to be encrypted for.
    pub tee_pubkey: TeePubKey,
}

/// Evidence of the CPU and of devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TeeEvidence {
    /// The form depends on the `tee` of the [`Request`].
    pub primary_evidence: Value,
    /// JSON text of an object from device kind to evidence, or empty. Hashed as the text it is.
    pub additional_evidence: String,
}

/// Answer to an [`Attestation`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// A JWT.
    pub token: String,
}

impl fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenAnswer(..)")
    }
}

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInformation {
    /// An URI that ends in the error's name.
    #[serde(rename = "type")]
    pub error_type: String,
    /// A sentence for people.
    pub detail: String,
}

impl ErrorInformation {
    /// The error `name`, such as `PolicyDeny`.
    pub fn new(name: &str, detail: &str) -> Self {
        Self {
            error_type: format!("{ERROR_TYPES}{name}"),
            detail: detail.to_owned(),
        }
    }

    /// The name at the end of the type; the whole type where it is another protocol's.
    pub fn name(&self) -> &str {
        self.error_type.strip_prefix(ERROR_TYPES).unwrap_or(&self.error_type)
    }
}

/// `<repo>/<type>/<tag>`, each of 1 to 128 characters out of `A-Z a-z 0-9 _ . -`, none of them `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourcePath(String);

impl ResourcePath {
    /// The path of a key id `kbs:///<repo>/<type>/<tag>`. The host part must be empty: the measured configuration names the
    /// broker.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn from_kid(kid: &str) -> Result<Self, ResourcePathError> {
        kid.strip_prefix("kbs:///").ok_or(ResourcePathError::Kid)?.parse()
    }

    /// `<repo>/<type>/<tag>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ResourcePath {
    type Err = ResourcePathError;

    fn from_str(text: &str) -> Result<Self, ResourcePathError> {
        let segment = |segment: &str| {
            (1..=128).contains(&segment.len())
                && segment != "."
                && segment != ".."
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        if text.split('/').count() == 3 && text.split('/').all(segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ResourcePathError::Segments)
        }
    }
}

/// Why a text names no resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResourcePathError {
    /// Not `kbs:///…`.
    #[error("a key id has the form kbs:///<repo>/<type>/<tag>, without a host")]
    Kid,
    /// Not three segments of allowed characters.
    #[error("a resource is named <repo>/<type>/<tag>, each 1 to 128 characters out of A-Z a-z 0-9 _ . -")]
    Segments,
}

/// RFC 8785 form of `{"additional-evidence","nonce","tee-pubkey"}`: what the evidence's report data is the hash of.
pub fn runtime_data_jcs(nonce: &str, key: &TeePubKey, additional_evidence: &str) -> String {
    let (evidence, nonce) = (json_string(additional_evidence), json_string(nonce));
    format!(
        r#"{{"additional-evidence":{evidence},"nonce":{nonce},"tee-pubkey":{}}}"#,
        key.jcs()
    )
}

/// REPORT_DATA of SNP and TDX: SHA-384 of [`runtime_data_jcs`], then 16 zero bytes.
pub fn report_data(nonce: &str, key: &TeePubKey, additional_evidence: &str) -> [u8; 64] {
    let mut field = [0; 64];
    let hash = digest(&SHA384, runtime_data_jcs(nonce, key, additional_evidence).as_bytes());
    for (to, from) in field.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    field
}

/// JSON text of a string. serde_json escapes exactly what RFC 8785, section 3.2.2.2 asks for, in the same form.
fn json_string(text: &str) -> String {
    Value::from(text).to_string()
}

const ERROR_TYPES: &str = "https://github.com/confidential-containers/kbs/errors/";

#[cfg(test)]
mod tests;
