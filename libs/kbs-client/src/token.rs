//! What a guest reads out of the attestation token that it gets: when the broker issued it, when it ends, and its name in the
//! broker's audit log.
//!
//! A token is a JWT of the broker's, here read by the one whom it is about. It came over a connection to the policy's
//! authority; where the policy also pins keys for tokens, the signature must be by one of them, and the token about the very key that
//! this guest has made a moment ago: an older one, genuine as it may be, says nothing about the time.
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::key::TeePubKey;

/// A key for tokens, by its thumbprint (RFC 7638, SHA-256): 43 characters of base64url, as `kid` has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyThumbprint([u8; 32]);

impl From<[u8; 32]> for KeyThumbprint {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl FromStr for KeyThumbprint {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Thumbprint)?;
        bytes.try_into().map(Self).map_err(|_| TokenError::Thumbprint)
    }
}

impl fmt::Display for KeyThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyThumbprint({self})")
    }
}

/// What a token says. The token itself is not kept: whoever shows it is the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// Its name in the broker's audit log; empty where the broker gives it none.
    pub id: String,
    /// When it was issued, since the Unix epoch.
    pub issued: Duration,
    /// How long it counts from then on.
    pub lifetime: Duration,
    /// The pinned key that it is signed with; `None` where none was pinned, and the signature was not looked at.
    pub signer: Option<KeyThumbprint>,
}

impl Token {
    /// Reads a token for the guest whose key is `tee_key`. With `pins`, it must be signed with one of them and about that key.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn read(text: &str, pins: &[KeyThumbprint], tee_key: &TeePubKey) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let signer = match pins {
            [] => None,
            pins => Some(verify(header, signed, signature, pins)?),
        };
        let claims: Claims = json(payload)?;
        if signer.is_some() {
            let about = KEY_PLACES.iter().find_map(|place| claims.rest.pointer(place));
            let about = about.ok_or(TokenError::NotAboutUs)?;
            if serde_json::from_value::<TeePubKey>(about.clone()).ok().as_ref() != Some(tee_key) {
                return Err(TokenError::NotAboutUs);
            }
        }
        let is_name = claims.jti.len() <= MAX_ID && claims.jti.bytes().all(|byte| byte.is_ascii_graphic());
        if claims.iat < EARLIEST || claims.iat > LATEST || claims.exp <= claims.iat || !is_name {
            return Err(TokenError::Claims);
        }
        Ok(Self {
            id: claims.jti,
            issued: Duration::from_secs(claims.iat),
            lifetime: Duration::from_secs(claims.exp.saturating_sub(claims.iat)),
            signer,
        })
    }
}

/// Why a token is not believed. Holds nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not three base64url parts with JSON in them, or longer than 1 MiB.
    #[error("the attestation token is not a JWT with iat and exp")]
    Malformed,
    /// Another algorithm, or no key in the header to compare with what is pinned.
    #[error("the attestation token is not signed with ES256 by a key that its header shows")]
    Algorithm,
    /// Another broker's, or a key that came later.
    #[error("the attestation token is signed with a key that the policy does not pin")]
    NotPinned,
    /// Changed, or forged.
    #[error("the signature of the attestation token is not right")]
    Signature,
    /// For another guest, or for this one's key of before.
    #[error("the attestation token is not about this guest's key")]
    NotAboutUs,
    /// A time that cannot be, or a name that is none.
    #[error("the attestation token has a time or a name that cannot be")]
    Claims,
    /// Not a thumbprint.
    #[error("a thumbprint is 43 characters of base64url")]
    Thumbprint,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    jwk: Option<Jwk>,
    crit: Option<serde::de::IgnoredAny>,
}

/// The signer's key; members that do not belong to a thumbprint have no meaning here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

#[derive(Deserialize)]
struct Claims {
    iat: u64,
    exp: u64,
    #[serde(default)]
    jti: String,
    #[serde(flatten)]
    rest: Value,
}

fn verify(header: &str, signed: &str, signature: &str, pins: &[KeyThumbprint]) -> Result<KeyThumbprint, TokenError> {
    let header: Header = json(header)?;
    let (Some(jwk), "ES256", None) = (&header.jwk, header.alg.as_str(), &header.crit) else {
        return Err(TokenError::Algorithm);
    };
    if (jwk.kty.as_str(), jwk.crv.as_str()) != ("EC", "P-256") {
        return Err(TokenError::Algorithm);
    }
    let mut point = vec![UNCOMPRESSED];
    for coordinate in [&jwk.x, &jwk.y] {
        let bytes = URL_SAFE_NO_PAD.decode(coordinate).map_err(|_| TokenError::Algorithm)?;
        if bytes.len() != 32 {
            return Err(TokenError::Algorithm);
        }
        point.extend_from_slice(&bytes);
    }
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, jwk.x, jwk.y);
    let hash = digest(&SHA256, members.as_bytes());
    let found = pins
        .iter()
        .find(|pin| pin.0 == hash.as_ref())
        .ok_or(TokenError::NotPinned)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Signature)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| TokenError::Signature)?;
    Ok(*found)
}

fn json<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

/// Where brokers put the guest's key.
const KEY_PLACES: [&str; 3] = [
    "/submods/cpu0/ear.veraison.annotated-evidence/runtime_data_claims/tee-pubkey",
    "/customized_claims/runtime_data/tee-pubkey",
    "/tee-pubkey",
];
const UNCOMPRESSED: u8 = 4;
const MAX_TOKEN: usize = 1 << 20;
const MAX_ID: usize = 128;
/// 2026-01-01, when there was no guest yet that could ask; and the end of year 9999.
const EARLIEST: u64 = 1_767_225_600;
const LATEST: u64 = 253_402_300_799;

#[cfg(test)]
mod tests;
