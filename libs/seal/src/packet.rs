//! How a layer's key travels: ocicrypt's annotations with the key provider `attestation-agent`.
//!
//! Two annotations on the layer's descriptor: the *public options* in the clear, and the *packet*, which holds the
//! *private options*, wrapped with AES-256-GCM under a key of the broker (KEK). The bytes come from a manifest; where that
//! is pinned by digest they are its author's, who is still not trusted to be well-meaning.
//!
//! Stricter than ocicrypt, each rule with its own error: the provider's exact name; no second provider; at most
//! [`MAX_PACKETS`] packets; `A256GCM` only; nothing in the public `cipheroptions`, where an editor of the manifest could
//! override the nonce; provider `kbs` only; no key of the samples; a key id that the caller's policy names.

mod annotation;
mod error;
mod options;
mod unwrap;

pub use annotation::AnnotationPacket;
pub use error::PacketError;
pub use options::{Cipher, PrivateOptions, PubOpts};
pub use unwrap::{UnwrappedLayer, layer_kids, unwrap_layer, wrap_layer};

/// What a key provider's annotation starts with.
pub const PROVIDER_PREFIX: &str = "org.opencontainers.image.enc.keys.provider.";
/// The annotation that holds the packets.
pub const PROVIDER_ANNOTATION: &str = "org.opencontainers.image.enc.keys.provider.attestation-agent";
/// The annotation that holds the public options.
pub const PUBOPTS_ANNOTATION: &str = "org.opencontainers.image.enc.pubopts";
/// What the media type of an encrypted layer ends with.
pub const MEDIA_TYPE_SUFFIX: &str = "+encrypted";
/// Packets that one layer may carry.
pub const MAX_PACKETS: usize = 4;
/// Bytes that one packet may have, in base64.
pub const MAX_PACKET: usize = 8 * 1024;
/// Bytes that the public options may have, in base64.
pub const MAX_PUBOPTS: usize = 1024;
