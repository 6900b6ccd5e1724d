//! The key that signs records.

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::bytes::Hex;

/// A guest's Ed25519 key for records, made anew at each boot. Has no way out.
pub struct RecordKey(Ed25519KeyPair);

impl RecordKey {
    /// A new key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError)?;
        Ed25519KeyPair::from_pkcs8(document.as_ref())
            .map(Self)
            .map_err(|_| KeyError)
    }

    /// The public half.
    pub fn public(&self) -> Hex<32> {
        let mut bytes = [0; 32];
        // Always 32 bytes.
        for (to, from) in bytes.iter_mut().zip(self.0.public_key().as_ref()) {
            *to = *from;
        }
        Hex(bytes)
    }

    pub(crate) fn sign(&self, statement: &[u8]) -> Hex<64> {
        let mut bytes = [0; 64];
        for (to, from) in bytes.iter_mut().zip(self.0.sign(statement).as_ref()) {
            *to = *from;
        }
        Hex(bytes)
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({})", self.public())
    }
}

/// No key was to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes for the record's key")]
pub struct KeyError;
