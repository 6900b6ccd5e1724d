//! ocicrypt's layer cipher, `AES_256_CTR_HMAC_SHA256`: for image layers, never for models.
//!
//! AES-256-CTR with a counter of all 16 bytes, HMAC-SHA256 of the ciphertext under the same key, and one MAC for the whole
//! layer. Plaintext comes out **before** it is authenticated. So the layer is unpacked where no process sees it, and
//! is published only with a [`VerifiedLayer`] in hand: that value is made by [`LayerDecryptor::finish`] and
//! [`DecryptReader::finish`] alone, after MAC and plaintext digest were right. Take it as an argument of whatever publishes.

mod decrypt;
mod encrypt;

pub use decrypt::{DecryptReader, LayerDecryptor, LayerError, LayerKeys, VerifiedLayer};
pub use encrypt::{EncryptedLayer, LayerEncryptor};

type Ctr = ctr::Ctr128BE<aes::Aes256>;
