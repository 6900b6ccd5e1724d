//! Why reference values are not believed.

use super::{MAX_DOCUMENT, MAX_LIFETIME_S, values::MAX_VALUES};

/// Why a document is refused. The texts say nothing of its contents but a member's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// More bytes than a document has.
    #[error("a document of {len} bytes; at most {MAX_DOCUMENT} are read")]
    TooLarge {
        /// Bytes that came.
        len: usize,
    },
    /// Not JSON, or a member unknown, missing or of the wrong type.
    #[error("not a document of reference values: {source}")]
    Json {
        /// Where and why.
        source: serde_json::Error,
    },
    /// A message of another version or with another provenance.
    #[error("not a message of version 0.1.0 with a payload of type sample")]
    Kind,
    /// The payload is no base64.
    #[error("the payload is not base64")]
    Payload,
    /// The payload is not a table of values.
    #[error("the payload is not a table of reference values: {source}")]
    Values {
        /// Where and why.
        source: serde_json::Error,
    },
    /// A value of another length.
    #[error("{name}[{index}] in the payload is not 96 hexadecimal digits")]
    Value {
        /// Which list.
        name: &'static str,
        /// Which entry, from 0.
        index: usize,
    },
    /// More values than a document has.
    #[error("{name} in the payload has more than {MAX_VALUES} values")]
    TooMany {
        /// Which list.
        name: &'static str,
    },
    /// Nothing in it.
    #[error("the payload has no values")]
    Empty,
    /// Nobody signed it.
    #[error("the reference values are not signed")]
    Unsigned,
    /// Changed, or signed by somebody who is not trusted here.
    #[error("the reference values are not signed by a trusted signer")]
    Signature,
    /// Its time ends before it begins, or lasts too long.
    #[error("reference values must end after they were issued, at most {} days later", MAX_LIFETIME_S / 86400)]
    Lifetime,
    /// Signed later than now.
    #[error("the reference values are from the future: compare the clocks")]
    Future,
    /// Their time is over.
    #[error("the reference values have expired: import newer ones")]
    Expired,
}
