//! Key bytes: wiped on drop, never shown.
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// `N` secret bytes. They have one home on the heap, so that a move leaves no copy behind, and are wiped on drop.
///
/// There is no `Debug`, `Display`, `Clone` or `PartialEq`: a secret is neither logged nor compared by accident.
pub struct Secret<const N: usize>(Box<[u8; N]>);

/// 32 secret bytes.
pub type Secret32 = Secret<32>;
/// The key of one layer: random, used for one plaintext, never again.
pub type DataKey = Secret<32>;
/// A key of the broker, under which data keys are wrapped.
pub type Kek = Secret<32>;

impl<const N: usize> Secret<N> {
    /// Draws a fresh secret from the operating system.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn random() -> Result<Self, RandomError> {
        let mut secret = Self(Box::new([0; N]));
        fill_random(secret.0.as_mut_slice())?;
        Ok(secret)
    }

    /// Takes a copy of exactly `N` bytes. Wiping `bytes` stays the caller's duty.
    ///
    /// # Errors
    /// When there are more or fewer bytes than `N`.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SecretLength> {
        let mut secret = Self(Box::new([0; N]));
        if bytes.len() != N {
            return Err(SecretLength {
                expected: N,
                found: bytes.len(),
            });
        }
        secret.0.copy_from_slice(bytes);
        Ok(secret)
    }

    /// The bytes themselves, for the moment that a cipher needs them.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Whether both hold the same bytes; takes the same time wherever they differ.
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.ct_eq(other.0.as_slice()).into()
    }
}

impl<const N: usize> From<Zeroizing<[u8; N]>> for Secret<N> {
    fn from(bytes: Zeroizing<[u8; N]>) -> Self {
        let mut secret = Self(Box::new([0; N]));
        secret.0.copy_from_slice(bytes.as_slice());
        secret
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct RandomError;

/// A secret of the wrong length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key must be {expected} bytes long and is {found}")]
pub struct SecretLength {
    /// Bytes that the key must have.
    pub expected: usize,
    /// Bytes that were given.
    pub found: usize,
}

/// Fills `out` from the operating system's random number generator.
pub(crate) fn fill_random(out: &mut [u8]) -> Result<(), RandomError> {
    SystemRandom::new().fill(out).map_err(|_| RandomError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_exactly_its_length() {
        assert!(Secret::<32>::from_slice(&[7; 32]).is_ok());
        for found in [0, 31, 33] {
            let error = Secret::<32>::from_slice(&vec![7; found]).err().unwrap();
            assert_eq!(error, SecretLength { expected: 32, found });
        }
    }

    #[test]
    fn random_secrets_differ() {
        let (a, b) = (Secret32::random().unwrap(), Secret32::random().unwrap());
        assert!(!a.same_as(&b));
        assert!(a.same_as(&Secret32::from_slice(a.expose()).unwrap()));
    }
}
