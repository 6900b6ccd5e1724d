//! Digests of whole messages.

use ring::digest::{SHA256, digest};

/// SHA-256 of one message.
pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, data).as_ref());
    out
}

/// SHA-384 of one message.
#[cfg(any(test, feature = "measure"))]
pub(crate) fn sha384(data: &[u8]) -> [u8; 48] {
    let mut out = [0; 48];
    out.copy_from_slice(digest(&ring::digest::SHA384, data).as_ref());
    out
}
