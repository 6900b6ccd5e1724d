//! Encrypting a layer, for `cellactl`.
use aes::cipher::{KeyIvInit, StreamCipher};
use ring::{digest, hmac};

use super::Ctr;
use crate::PlainDigest;
use crate::packet::{Cipher, PrivateOptions, PubOpts};
use crate::secret::{DataKey, RandomError, fill_random};

/// Encrypts one layer piece by piece, under a key and a nonce that it draws itself.
#[must_use = "without its MAC the layer cannot be decrypted"]
pub struct LayerEncryptor {
    cipher: Ctr,
    mac: hmac::Context,
    plain: digest::Context,
    key: DataKey,
    nonce: [u8; 16],
}

/// The options that decrypt a layer.
pub struct EncryptedLayer {
    /// For the annotation in the clear.
    pub public: PubOpts,
    /// To be wrapped.
    pub private: PrivateOptions,
}

impl LayerEncryptor {
    /// Draws key and nonce.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn new() -> Result<Self, RandomError> {
        let mut nonce = [0; 16];
        fill_random(&mut nonce)?;
        Ok(Self::with_key(DataKey::random()?, nonce))
    }

    /// With key and nonce that are given: for known answers only.
    pub(super) fn with_key(key: DataKey, nonce: [u8; 16]) -> Self {
        Self {
            cipher: Ctr::new(key.expose().into(), &nonce.into()),
            mac: hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose())),
            plain: digest::Context::new(&digest::SHA256),
            key,
            nonce,
        }
    }

    /// Encrypts the next bytes in place.
    pub fn update(&mut self, bytes: &mut [u8]) {
        self.plain.update(bytes);
        self.cipher.apply_keystream(bytes);
        self.mac.update(bytes);
    }

    /// The layer's options, after its last byte.
    pub fn finish(self) -> EncryptedLayer {
        let (mut hmac, mut digest) = ([0; 32], [0; 32]);
        copy(&mut hmac, self.mac.sign().as_ref());
        copy(&mut digest, self.plain.finish().as_ref());
        EncryptedLayer {
            public: PubOpts {
                cipher: Cipher::AesCtrHmac,
                hmac: Some(hmac),
            },
            private: PrivateOptions {
                symkey: self.key,
                digest: PlainDigest(digest),
                nonce: Some(self.nonce),
            },
        }
    }
}

/// Both are 32 bytes long: SHA-256's length.
fn copy(to: &mut [u8; 32], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

#[cfg(test)]
mod tests;
