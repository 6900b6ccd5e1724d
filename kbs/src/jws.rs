//! JSON web signatures in compact form, as far as the broker needs them: split, decode, join.
//!
//! Whatever comes in is foreign. Nothing of it decides how it is verified: each caller demands one algorithm and
//! brings its own key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 * 1024;

/// A token taken apart, its signature not yet checked.
pub(crate) struct Unverified<'a> {
    /// What the signature is over.
    pub(crate) signed: &'a [u8],
    payload: &'a str,
    /// The signature's bytes.
    pub(crate) signature: Vec<u8>,
}

/// The text is not a token of the demanded algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwsError {
    /// Not three base64url parts with a JSON header, or more than 16 KiB.
    #[error("not a JWT")]
    Malformed,
    /// Signed with another algorithm, or with extensions that must be understood.
    #[error("the JWT must be signed with {wanted} and have no critical extensions")]
    Algorithm {
        /// The one algorithm accepted.
        wanted: &'static str,
    },
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart and checks that its header asks for `algorithm`.
    pub(crate) fn parse(token: &'a str, algorithm: &'static str) -> Result<Self, JwsError> {
        if token.len() > MAX_TOKEN {
            return Err(JwsError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsError::Malformed)?;
        let header: Header = decode_json(header)?;
        if header.alg != algorithm || header.crit.is_some() {
            return Err(JwsError::Algorithm { wanted: algorithm });
        }
        if header.typ.is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) {
            return Err(JwsError::Malformed);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwsError::Malformed)?;
        Ok(Self {
            signed: signed.as_bytes(),
            payload,
            signature,
        })
    }

    /// The claims. Call it only after the signature was found good.
    pub(crate) fn claims<T: DeserializeOwned>(&self) -> Result<T, JwsError> {
        decode_json(self.payload)
    }
}

/// `<header>.<payload>`: what a signature is over.
pub(crate) fn signing_input(header: &impl Serialize, claims: &impl Serialize) -> Result<String, serde_json::Error> {
    let part = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
    Ok(format!(
        "{}.{}",
        part(serde_json::to_vec(header)?),
        part(serde_json::to_vec(claims)?)
    ))
}

/// The finished token.
pub(crate) fn join(signing_input: &str, signature: &[u8]) -> String {
    format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn decode_json<T: DeserializeOwned>(part: &str) -> Result<T, JwsError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| JwsError::Malformed)
}
