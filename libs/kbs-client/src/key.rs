//! The guest's key: P-256, made fresh for each boot, used to open what the broker encrypts for it.
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::elliptic_curve::sec1::ToSec1Point;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A private key on P-256. Zeroed on drop; has neither `Debug` nor a way out.
pub struct TeeKey(p256::SecretKey);

impl TeeKey {
    /// A new key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let mut bytes = Zeroizing::new([0; 32]);
        // A number is too large once in 2^32: eight in a row mean that the random bytes are not random.
        for _ in 0..8 {
            random.fill(bytes.as_mut()).map_err(|_| KeyError::Random)?;
            if let Ok(key) = Self::from_bytes(&bytes) {
                return Ok(key);
            }
        }
        Err(KeyError::Random)
    }

    /// The public half.
    pub fn public(&self) -> TeePubKey {
        TeePubKey(self.0.public_key())
    }

    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        p256::SecretKey::from_slice(bytes)
            .map(Self)
            .map_err(|_| KeyError::OutOfRange)
    }

    /// The x coordinate of the shared point.
    pub(crate) fn agree(&self, peer: &TeePubKey) -> Zeroizing<[u8; 32]> {
        let shared = p256::ecdh::diffie_hellman(self.0.to_nonzero_scalar(), peer.0.as_affine());
        let mut z = Zeroizing::new([0; 32]);
        for (to, from) in z.iter_mut().zip(shared.raw_secret_bytes()) {
            *to = *from;
        }
        z
    }
}

/// A public key on P-256 for `ECDH-ES+A256KW`, as a JWK of exactly `kty`, `crv`, `alg`, `x` and `y`.
///
/// Parsing checks that the point is on the curve and refuses every further member: one that got lost would make the two
/// ends hash different keys.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Jwk", into = "Jwk")]
pub struct TeePubKey(p256::PublicKey);

impl TeePubKey {
    /// The key with these coordinates, base64url without padding, 32 bytes each.
    pub(crate) fn from_coordinates(x: &str, y: &str) -> Result<Self, KeyError> {
        let mut point = vec![UNCOMPRESSED];
        for coordinate in [x, y] {
            let bytes = URL_SAFE_NO_PAD.decode(coordinate).map_err(|_| KeyError::Coordinate)?;
            if bytes.len() != 32 {
                return Err(KeyError::Coordinate);
            }
            point.extend_from_slice(&bytes);
        }
        p256::PublicKey::from_sec1_bytes(&point)
            .map(Self)
            .map_err(|_| KeyError::NotOnCurve)
    }

    /// x and y, base64url without padding.
    pub(crate) fn coordinates(&self) -> (String, String) {
        let point = self.0.to_sec1_point(false);
        let encode = |bytes: Option<&_>| {
            bytes.map_or_else(String::new, |bytes: &p256::FieldBytes| URL_SAFE_NO_PAD.encode(bytes))
        };
        (encode(point.x()), encode(point.y()))
    }

    /// The key in RFC 8785 form.
    pub fn jcs(&self) -> String {
        let (x, y) = self.coordinates();
        format!(r#"{{"alg":"{ALGORITHM}","crv":"{CURVE}","kty":"{KEY_TYPE}","x":"{x}","y":"{y}"}}"#)
    }
}

impl From<p256::SecretKey> for TeeKey {
    fn from(key: p256::SecretKey) -> Self {
        Self(key)
    }
}

impl From<p256::PublicKey> for TeePubKey {
    fn from(key: p256::PublicKey) -> Self {
        Self(key)
    }
}

impl fmt::Debug for TeePubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.jcs())
    }
}

impl TryFrom<Jwk> for TeePubKey {
    type Error = KeyError;

    fn try_from(jwk: Jwk) -> Result<Self, KeyError> {
        if (jwk.kty.as_str(), jwk.crv.as_str(), jwk.alg.as_str()) != (KEY_TYPE, CURVE, ALGORITHM) {
            return Err(KeyError::Kind);
        }
        Self::from_coordinates(&jwk.x, &jwk.y)
    }
}

impl From<TeePubKey> for Jwk {
    fn from(key: TeePubKey) -> Self {
        let (x, y) = key.coordinates();
        Self {
            kty: KEY_TYPE.to_owned(),
            crv: CURVE.to_owned(),
            alg: ALGORITHM.to_owned(),
            x,
            y,
        }
    }
}

/// Why a key cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The system's random source failed.
    #[error("the system gives no random bytes")]
    Random,
    /// The number is zero or not below the curve's order.
    #[error("the private key is out of range")]
    OutOfRange,
    /// Another kind of key than the protocol's default.
    #[error("the key is not of kty EC, crv P-256, alg ECDH-ES+A256KW")]
    Kind,
    /// Not 32 bytes in base64url without padding.
    #[error("a coordinate of the key is not 32 bytes in base64url without padding")]
    Coordinate,
    /// The coordinates fit no point.
    #[error("the key is not a point on P-256")]
    NotOnCurve,
}

/// The key on the wire.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk {
    kty: String,
    crv: String,
    alg: String,
    x: String,
    y: String,
}

/// The key agreement of the only key type in use.
pub(crate) const ALGORITHM: &str = "ECDH-ES+A256KW";
pub(crate) const CURVE: &str = "P-256";
pub(crate) const KEY_TYPE: &str = "EC";
const UNCOMPRESSED: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_more() {
        let key = TeeKey::generate().unwrap().public();
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<TeePubKey>(&text).unwrap(), key);
        let (x, y) = key.coordinates();
        let swapped = text.replace(&x, "?").replace(&y, &x).replace('?', &y);
        for bad in [
            text.replace("P-256", "P-521"),
            text.replace("ECDH-ES+A256KW", "ECDH-ES"),
            text.replace('}', r#","kid":"1"}"#),
            text.replace(&x, &x[1..]),
            text.replace(&x, &format!("{x}=")),
            swapped,
        ] {
            assert!(serde_json::from_str::<TeePubKey>(&bad).is_err(), "{bad}");
        }
    }
}
