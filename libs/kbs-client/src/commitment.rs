//! A guest's key that commits to another one, so that evidence over the first vouches for the second.
//!
//! The protocol lets evidence name one key and nothing else, and the broker hashes exactly its members. A key that is
//! to say more must say it by itself: the guest draws a point `R = r·G`, and its key is `P = R + t·G` with `t = SHA-256(tag ‖ R ‖
//! what it commits to)`. Whoever is shown `R` computes `P`; whoever wants to show another `R'` for the same `P` would have to
//! find one that its own hash leads to. `r + t` is as secret as `r`, and the key is used for nothing but what it was for.
use std::fmt;

use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{NonZeroScalar, ProjectivePoint};
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::key::{KeyError, TeeKey, TeePubKey};

/// What a key commits to: 32 bytes, such as another public key.
pub type Committed = [u8; 32];

/// What shows that a key commits to something: the point that it was made from. Public.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Opening([u8; Opening::LEN]);

impl Opening {
    /// A point in compressed form.
    pub const LEN: usize = 33;

    /// The bytes of a point; whether they are one is seen when it is used.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The point's bytes.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Whether `key` commits to `to`.
    pub fn proves(&self, key: &TeePubKey, to: &Committed) -> bool {
        let point = p256::PublicKey::from_sec1_bytes(&self.0).ok();
        let sum = point
            .zip(self.scalar(to))
            .map(|(point, scalar)| point.to_projective() + ProjectivePoint::GENERATOR * *scalar);
        let computed = sum.and_then(|sum| p256::PublicKey::from_affine(sum.to_affine()).ok());
        computed.is_some_and(|computed| TeePubKey::from(computed) == *key)
    }

    /// `t`. `None` where the hash is no scalar, which happens once in 2^32 times: a key is then made of another point.
    fn scalar(&self, to: &Committed) -> Option<NonZeroScalar> {
        let mut hash = Context::new(&SHA256);
        hash.update(TAG);
        hash.update(&self.0);
        hash.update(to);
        let bytes: [u8; 32] = hash.finish().as_ref().try_into().ok()?;
        NonZeroScalar::from_repr(bytes.into()).into()
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opening(..)")
    }
}

impl TeeKey {
    /// A new key that commits to `to`, and what shows it.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn committed(to: &Committed) -> Result<(Self, Opening), KeyError> {
        let random = SystemRandom::new();
        let mut bytes = Zeroizing::new([0; 32]);
        // Each of three conditions fails once in 2^32 times.
        for _ in 0..8 {
            random.fill(bytes.as_mut()).map_err(|_| KeyError::Random)?;
            if let Some(made) = Self::from_seed(&bytes, to) {
                return Ok(made);
            }
        }
        Err(KeyError::Random)
    }

    fn from_seed(seed: &[u8; 32], to: &Committed) -> Option<(Self, Opening)> {
        let base = p256::SecretKey::from_slice(seed).ok()?;
        let point = base.public_key().to_sec1_point(true);
        let opening = Opening(point.as_bytes().try_into().ok()?);
        let sum = Zeroizing::new(*base.to_nonzero_scalar() + *opening.scalar(to)?);
        let scalar: NonZeroScalar = Option::from(NonZeroScalar::new(*sum))?;
        Some((Self::from(p256::SecretKey::from(scalar)), opening))
    }
}

/// Keeps the hash from meaning anything elsewhere.
const TAG: &[u8] = b"cella TEE key commitment 1\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_commits_to_one_thing_and_opens_what_is_meant_for_it() {
        let (key, opening) = TeeKey::committed(&[7; 32]).unwrap();
        let public = key.public();
        assert!(opening.proves(&public, &[7; 32]));
        assert!(Opening::from_bytes(*opening.as_bytes()).proves(&public, &[7; 32]));
        let mut other = [7; 32];
        other[31] = 6;
        assert!(!opening.proves(&public, &other));
        assert!(!opening.proves(&TeeKey::generate().unwrap().public(), &[7; 32]));
        let message = crate::jwe::encrypt(&public, b"secret").unwrap();
        assert_eq!(*crate::jwe::decrypt(&key, &message).unwrap(), b"secret");
    }

    #[test]
    fn no_other_opening_fits() {
        let (key, opening) = TeeKey::committed(&[7; 32]).unwrap();
        let public = key.public();
        for at in 0..Opening::LEN {
            for bit in 0..8 {
                let mut bytes = *opening.as_bytes();
                bytes[at] ^= 1 << bit;
                assert!(
                    !Opening::from_bytes(bytes).proves(&public, &[7; 32]),
                    "byte {at} bit {bit}"
                );
            }
        }
        // The key itself is no opening, and a key that commits to nothing has none by chance.
        for bytes in [[0; Opening::LEN], [2; Opening::LEN], [0xff; Opening::LEN]] {
            assert!(!Opening::from_bytes(bytes).proves(&public, &[7; 32]));
        }
    }

    #[test]
    fn each_key_is_another_one() {
        let (one, two) = (
            TeeKey::committed(&[7; 32]).unwrap(),
            TeeKey::committed(&[7; 32]).unwrap(),
        );
        assert_ne!(one.0.public(), two.0.public());
        assert!(!two.1.proves(&one.0.public(), &[7; 32]));
    }

    /// Computed apart from this code, too. Fixed by this version: a verifier of old records must find the same.
    #[test]
    fn a_known_answer() {
        let seed: [u8; 32] = std::array::from_fn(|at| u8::try_from(at + 1).unwrap());
        let (key, opening) = TeeKey::from_seed(&seed, &[7; 32]).unwrap();
        assert_eq!(
            hex::encode(opening.as_bytes()),
            "02515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f"
        );
        assert_eq!(key.public().jcs(), KNOWN);
    }

    const KNOWN: &str = r#"{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"RctY3wW3IKkS1Z0IEm96jlISFak7UrKjlhu5mSMVRFU","y":"qhuywTlILmwwTSxBbMSvbxXVy4UZYUygeyo8l5ZOyhk"}"#;
}
