//! initdata 0.1.0: the document that carries a policy into the guest, bound to the hardware evidence by its digest.
//!
//! Order in the guest (verify before parse): [`device_read_length`] on the first 16 bytes, copy the device once,
//! [`inflate_device`], [`digests`], compare with the own evidence ([`Digests::matches_host_data`]), and only then
//! [`parse`]. Framing and inflating are the one stage that sees bytes which nothing vouches for.

mod digest;
mod document;
mod error;
mod framing;

#[cfg(test)]
mod tests;

pub use digest::{Algorithm, Digests, digests, host_data, mr_config_id};
pub use document::{Initdata, POLICY_KEY, VERSION, algorithm, parse, write};
pub use error::InitdataError;
pub use framing::{device_read_length, encode_annotation, encode_device, inflate_annotation, inflate_device};

/// Longest gzip stream that is read, bytes.
pub const MAX_COMPRESSED: usize = 256 * 1024;
/// Longest document, bytes.
pub const MAX_DOCUMENT: usize = 1 << 20;
