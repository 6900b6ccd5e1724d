//! Sealed models and encrypted image layers: the two ciphertext formats that Cella reads and writes.
//!
//! - [`stream`]: Tink `AES256_GCM_HKDF_1MB`, for models. Every segment authenticates itself, so segments open in
//!   parallel, at random and in place at their final address.
//! - [`layer`]: ocicrypt `AES_256_CTR_HMAC_SHA256`, for image layers. One MAC at the end: nothing that it yields may
//!   be used before [`layer::LayerDecryptor::finish`] has said yes.
//! - [`packet`]: the ocicrypt annotations that carry a layer's key, wrapped under a key of the broker.
//! - [`tree`]: the BLAKE3 digest of a plaintext whose segments come in any order.
//! - [`place`]: what binds a sealed file to its model, path and version.
//!
//! All bytes but keys come from a registry that is not trusted. Lengths are checked before anything is parsed, input
//! that is wrong gives an error and never a panic, and no error shows a key, a tag or a byte of plaintext.
//!
//! Keys of this crate are [`Secret`]s and wiped on drop. `ring`'s own expanded keys (AES round keys, HMAC states) have
//! no wiping; they live as long as an [`stream::Opener`] or a [`layer::LayerDecryptor`] and in memory that the TEE
//! encrypts.
#![forbid(unsafe_code)]

pub mod layer;
pub mod packet;
pub mod place;
pub mod stream;
pub mod tree;

mod digest;
mod secret;

pub use digest::PlainDigest;
pub use secret::{DataKey, Kek, RandomError, Secret, Secret32, SecretLength};
