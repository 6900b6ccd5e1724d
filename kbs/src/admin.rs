//! Who may store keys and rules.
//!
//! Every admin request carries `Authorization: Bearer <JWT>`, a JWS in compact form that the admin's own tool signs
//! with its Ed25519 key; the broker holds public keys only.
//!
//! - Header: `{"alg":"EdDSA","typ":"JWT"}`. `alg` is exactly `EdDSA`; `typ` may be absent; `crit` is refused.
//! - Claims, all mandatory: `{"aud":"cella-kbs","sub":"<who>","iat":<Unix seconds>,"exp":<Unix seconds>}`.
//!   `aud` is exactly that text. `sub` is 1 to 64 printable ASCII characters and goes to the audit log.
//!   `iat` < `exp` ≤ `iat` + 600, `iat` ≤ now + 60, now < `exp`. Other claims are ignored.
//! - Signature: Ed25519 over the ASCII text `<header>.<payload>`.
//!
//! Tools make a fresh token for each command. Within its ten minutes a token can be used again by whoever has it: it
//! travels inside TLS only, and is never logged.

use ring::signature::{ED25519, UnparsedPublicKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

use crate::jws::{JwsError, Unverified};

/// Longest lifetime of an admin token, in seconds.
const MAX_LIFETIME: u64 = 600;
/// How far an admin's clock may be ahead, in seconds.
const MAX_SKEW: u64 = 60;
/// What precedes the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410, 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The name an admin signed with: for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin(String);

impl Admin {
    /// The `sub` of the token.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// The public keys of those who may change what the broker holds.
pub struct Admins {
    keys: Vec<[u8; 32]>,
}

impl Admins {
    /// Nobody.
    pub fn new() -> Self {
        Self { keys: Vec::new() }
    }

    /// Adds one key from a PEM `PUBLIC KEY`.
    pub fn add_pem(&mut self, pem: &str) -> Result<(), PublicKeyError> {
        self.keys.push(public_key(pem)?);
        Ok(())
    }

    /// Checks a token at `now`, in Unix seconds.
    pub fn authenticate(&self, token: &str, now: u64) -> Result<Admin, AdminError> {
        let jws = Unverified::parse(token, "EdDSA")?;
        let good = |key: &[u8; 32]| {
            UnparsedPublicKey::new(&ED25519, key)
                .verify(jws.signed, &jws.signature)
                .is_ok()
        };
        if !self.keys.iter().any(good) {
            return Err(AdminError::Signature);
        }
        let claims: Claims = jws.claims()?;
        if claims.aud != "cella-kbs" {
            return Err(AdminError::Audience);
        }
        if claims.exp <= claims.iat || claims.exp - claims.iat > MAX_LIFETIME {
            return Err(AdminError::Lifetime);
        }
        if claims.iat > now.saturating_add(MAX_SKEW) {
            return Err(AdminError::NotYet);
        }
        if claims.exp <= now {
            return Err(AdminError::Expired);
        }
        if !(1..=64).contains(&claims.sub.len()) || !claims.sub.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            return Err(AdminError::Subject);
        }
        Ok(Admin(claims.sub))
    }
}

impl Default for Admins {
    fn default() -> Self {
        Self::new()
    }
}

/// The Ed25519 key in a PEM `PUBLIC KEY`.
pub(crate) fn public_key(pem: &str) -> Result<[u8; 32], PublicKeyError> {
    let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| PublicKeyError)?;
    let key = spki.strip_prefix(&SPKI_PREFIX).ok_or(PublicKeyError)?;
    key.try_into().map_err(|_| PublicKeyError)
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    sub: String,
    iat: u64,
    exp: u64,
}

/// An admin request is not authenticated. The texts go to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No `Authorization: Bearer` header.
    #[error("admin token missing")]
    Missing,
    /// Not a token that is looked at.
    #[error("admin token: {0}")]
    Token(#[from] JwsError),
    /// No admin's key made it.
    #[error("admin token: not signed by an admin key of this broker")]
    Signature,
    /// Made for another service.
    #[error("admin token: aud is not cella-kbs")]
    Audience,
    /// `exp` before `iat`, or a token that lives too long.
    #[error("admin token: exp must be after iat, by at most {MAX_LIFETIME} s")]
    Lifetime,
    /// From the future.
    #[error("admin token: iat is in the future: compare the clocks")]
    NotYet,
    /// Too old.
    #[error("admin token: expired")]
    Expired,
    /// A name that cannot be logged.
    #[error("admin token: sub must be 1 to 64 printable ASCII characters")]
    Subject,
}

/// The text is not a PEM `PUBLIC KEY` of Ed25519.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a PEM PUBLIC KEY of Ed25519")]
pub struct PublicKeyError;

#[cfg(test)]
mod tests;
