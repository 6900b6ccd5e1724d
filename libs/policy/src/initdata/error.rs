//! What can be wrong with initdata.

use super::{Algorithm, MAX_COMPRESSED, MAX_DOCUMENT, POLICY_KEY, VERSION};
use crate::error::PolicyError;

/// Why bytes are no initdata, or not the initdata that the evidence binds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitdataError {
    /// The device does not begin with the magic.
    #[error("initdata device: does not begin with \"initdata\"")]
    Magic,
    /// The device's length field cannot be.
    #[error("initdata device: says {found} bytes of gzip, allowed are 20 to {MAX_COMPRESSED}")]
    Length {
        /// What the field says.
        found: u64,
    },
    /// The device ends before its content does.
    #[error("initdata device: {found} bytes, {needed} are needed")]
    Short {
        /// Bytes that are there.
        found: u64,
        /// Bytes that must be there.
        needed: u64,
    },
    /// The device goes on after the padding of its content.
    #[error("initdata device: {found} bytes, {expected} are expected")]
    Long {
        /// Bytes that are there.
        found: u64,
        /// Bytes that content and padding take.
        expected: u64,
    },
    /// The padding is not zero.
    #[error("initdata device: padding is not zero at byte {offset}")]
    Padding {
        /// Offset of the first such byte.
        offset: usize,
    },
    /// The annotation is longer than any that would be accepted.
    #[error("initdata annotation: {found} characters, the limit is {limit}")]
    AnnotationTooLong {
        /// Its length.
        found: usize,
        /// Longest length that is read.
        limit: usize,
    },
    /// The annotation is no Base64.
    #[error("initdata annotation: is not Base64 (standard alphabet, padded)")]
    Base64,
    /// No gzip stream, a damaged one, or a checksum that is wrong.
    #[error("initdata: gzip stream is damaged")]
    Gzip {
        /// The inflater's error.
        #[source]
        source: std::io::Error,
    },
    /// More plaintext than allowed; inflating stopped there.
    #[error("initdata: document is longer than {MAX_DOCUMENT} bytes")]
    TooLong,
    /// The stream expands more than text does; inflating stopped there.
    #[error("initdata: gzip stream expands more than {limit} times")]
    Bomb {
        /// The ratio that is allowed.
        limit: usize,
    },
    /// Bytes, or a second member, after the gzip stream.
    #[error("initdata: {found} bytes after the gzip stream")]
    Trailing {
        /// How many.
        found: usize,
    },
    /// The document is no UTF-8.
    #[error("initdata: document is not UTF-8 at byte {offset}")]
    Utf8 {
        /// Offset of the first bad byte.
        offset: usize,
    },
    /// No TOML, or a key that the specification does not have (named in `reason`).
    #[error("initdata, line {line}: {reason}")]
    Syntax {
        /// Line, from 1; 0 when the parser could not tell.
        line: usize,
        /// The parser's words, one line.
        reason: String,
    },
    /// Another version of the specification.
    #[error("initdata: version is {found}, expected is \"{VERSION}\"")]
    Version {
        /// What the document says, quoted.
        found: String,
    },
    /// An algorithm that is not one of the three.
    #[error("initdata: algorithm is {found}, expected is sha256, sha384 or sha512")]
    UnknownAlgorithm {
        /// What the document says, quoted.
        found: String,
    },
    /// The document claims another algorithm than the one whose digest the evidence holds.
    #[error("initdata: algorithm is {claimed}, but the evidence binds the {bound} digest")]
    OtherAlgorithm {
        /// What the document says.
        claimed: Algorithm,
        /// What matched.
        bound: Algorithm,
    },
    /// No policy in the document.
    #[error("initdata: data has no key \"{POLICY_KEY}\"")]
    NoPolicy,
    /// The policy in the document is refused.
    #[error("initdata: {POLICY_KEY} is refused")]
    Policy {
        /// Why.
        #[source]
        source: PolicyError,
    },
}
