//! Decrypting a layer as it streams in.
use std::io::{self, Read};

use aes::cipher::{KeyIvInit, StreamCipher};
use ring::{digest, hmac};
use subtle::ConstantTimeEq;

use super::Ctr;
use crate::PlainDigest;
use crate::secret::DataKey;

/// Everything that opens one layer; see [`crate::packet::UnwrappedLayer::for_image`].
pub struct LayerKeys {
    /// Key of cipher and MAC.
    pub key: DataKey,
    /// First counter block.
    pub nonce: [u8; 16],
    /// HMAC-SHA256 of the ciphertext.
    pub hmac: [u8; 32],
    /// SHA-256 of the layer before encryption: of the compressed bytes.
    pub digest: PlainDigest,
}

/// Decrypts a layer piece by piece. What it yields is not to be trusted until [`LayerDecryptor::finish`].
#[must_use = "a layer that was not finished was not authenticated"]
pub struct LayerDecryptor {
    cipher: Ctr,
    mac: hmac::Context,
    plain: digest::Context,
    length: u64,
    expected_mac: [u8; 32],
    expected_digest: PlainDigest,
}

impl LayerDecryptor {
    /// Ready for the first byte.
    pub fn new(keys: &LayerKeys) -> Self {
        Self {
            cipher: Ctr::new(keys.key.expose().into(), &keys.nonce.into()),
            mac: hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, keys.key.expose())),
            plain: digest::Context::new(&digest::SHA256),
            length: 0,
            expected_mac: keys.hmac,
            expected_digest: keys.digest,
        }
    }

    /// Decrypts the next bytes in place.
    pub fn update(&mut self, bytes: &mut [u8]) {
        self.mac.update(bytes);
        self.cipher.apply_keystream(bytes);
        self.plain.update(bytes);
        self.length = self.length.saturating_add(bytes.len() as u64);
    }

    /// Says whether the layer was whole and genuine. Call it after the **last** byte of the blob, not where an archive
    /// reader happened to stop.
    ///
    /// # Errors
    /// [`LayerError::NotAuthentic`] and [`LayerError::Digest`]: what was yielded must be deleted.
    pub fn finish(self) -> Result<VerifiedLayer, LayerError> {
        let genuine = self.mac.sign().as_ref().ct_eq(&self.expected_mac);
        let plain = self.plain.finish();
        if !bool::from(genuine) {
            return Err(LayerError::NotAuthentic);
        }
        if plain.as_ref() != self.expected_digest.0 {
            return Err(LayerError::Digest);
        }
        Ok(VerifiedLayer {
            digest: self.expected_digest,
            length: self.length,
        })
    }
}

/// Proof that a layer was decrypted to its end and was right: MAC and digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedLayer {
    digest: PlainDigest,
    length: u64,
}

impl VerifiedLayer {
    /// SHA-256 of the decrypted layer.
    pub fn digest(&self) -> PlainDigest {
        self.digest
    }

    /// Bytes of the layer.
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// [`LayerDecryptor`] around a reader. End of input is *not* success: that is [`DecryptReader::finish`].
#[must_use = "a layer that was not finished was not authenticated"]
pub struct DecryptReader<R: Read> {
    decryptor: LayerDecryptor,
    from: R,
}

impl<R: Read> DecryptReader<R> {
    /// Reads ciphertext from `from`.
    pub fn new(keys: &LayerKeys, from: R) -> Self {
        Self {
            decryptor: LayerDecryptor::new(keys),
            from,
        }
    }

    /// Reads to the end of the input, whatever was left of it, and says whether the layer was right. Gives the reader
    /// back, which may have a digest of its own to compare.
    ///
    /// # Errors
    /// As [`LayerDecryptor::finish`], and [`LayerError::Read`].
    pub fn finish(mut self) -> Result<(VerifiedLayer, R), LayerError> {
        io::copy(&mut self, &mut io::sink()).map_err(|source| LayerError::Read { source })?;
        Ok((self.decryptor.finish()?, self.from))
    }
}

impl<R: Read> Read for DecryptReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buf)?;
        if let Some(bytes) = buf.get_mut(..count) {
            self.decryptor.update(bytes);
        }
        Ok(count)
    }
}

/// Why a layer is not to be used. No variant holds a MAC or a digest, neither the wrong one nor the right one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The MAC is wrong.
    #[error("the encrypted layer is not authentic: changed, cut short, or another key")]
    NotAuthentic,
    /// The MAC is right and the plaintext is not what was encrypted: nonce or digest were exchanged.
    #[error("the decrypted layer is not the one that was encrypted: its digest differs")]
    Digest,
    /// The rest of the layer could not be read.
    #[error("reading the encrypted layer to its end")]
    Read {
        /// What the reader says.
        #[source]
        source: io::Error,
    },
}
