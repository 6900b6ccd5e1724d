//! Tink streaming AEAD, `AES256_GCM_HKDF_1MB`: the format of sealed models.
//!
//! ```text
//! ciphertext = header || seg_0 || seg_1 || … || seg_k
//! header     = 40 || salt[32] || nonce_prefix[7]
//! key        = HKDF-SHA256(main key, salt, info = associated data)
//! nonce_i    = nonce_prefix || u32 BE i || u8 last
//! seg_i      = AES-256-GCM(key, nonce_i, plaintext_i, no AAD) || 16-byte tag
//! ```
//! Ciphertext segment `i` is the file's bytes `[i·S, (i+1)·S)`, the header counting into segment 0; `S` is 1 MiB. The
//! wrong key, associated data, position or length each make a segment that does not open. That a file is *whole* is
//! known only when every segment opened, the last one as the last: [`Opener::finish`].

mod claims;
mod file;
mod header;
mod key;
mod layout;
mod open;
mod open_writer;
mod seal;
mod turnstile;

#[cfg(test)]
mod tests;

pub use file::{SealedFile, Sealing, seal_file};
pub use header::{Header, HeaderError};
pub use layout::{Layout, LayoutError, Segment, SegmentSize};
pub use open::{OpenError, Opener, open_reader};
pub use open_writer::OpenWriter;
pub use seal::{SealError, SealWriter, Sealer};

/// Bytes of one ciphertext segment, tag included: 1 MiB.
pub const SEGMENT: usize = 1 << 20;
/// Bytes of the header in front of segment 0.
pub const HEADER: usize = 40;
/// Bytes of the tag behind each segment.
pub const TAG: usize = 16;
/// Bytes of plaintext in a full first segment.
pub const FIRST_PLAINTEXT: usize = SEGMENT - HEADER - TAG;
/// Bytes of plaintext in every other full segment.
pub const REST_PLAINTEXT: usize = SEGMENT - TAG;
