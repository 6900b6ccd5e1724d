//! What can go wrong with a registry.
use std::fmt;
use std::ops::Range;

use cella_http::{BuildError, HttpError};
use serde::Deserialize;

use crate::{Digest, DigestMismatch, ReferenceError};

/// What was being done, as in `pulling blob sha256:… of registry.example/models/demo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation(Box<Facts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    action: &'static str,
    object: String,
    registry: String,
    repository: String,
}

impl Operation {
    pub(super) fn new(action: &'static str, object: String, registry: &str, repository: &str) -> Self {
        Self(Box::new(Facts {
            action,
            object,
            registry: registry.to_owned(),
            repository: repository.to_owned(),
        }))
    }

    /// The registry's name in references.
    pub fn registry(&self) -> &str {
        &self.0.registry
    }

    /// The repository.
    pub fn repository(&self) -> &str {
        &self.0.repository
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts {
            action,
            object,
            registry,
            repository,
        } = self.0.as_ref();
        write!(f, "{action} {object} of {registry}/{repository}")
    }
}

/// An error code of the distribution specification, as in `BLOB_UNKNOWN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorCode(String);

#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: String,
}

impl ErrorCode {
    /// The first code of an error body, if it has the form of one: the rest of the body is never shown.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let code = serde_json::from_slice::<ErrorBody>(body)
            .ok()?
            .errors
            .into_iter()
            .next()?
            .code;
        let well_formed = (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        well_formed.then_some(Self(code))
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a registry did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The client cannot be built.
    #[error("setting up the connection to registry {registry}")]
    Setup {
        /// Its name.
        registry: String,
        /// What the client says.
        #[source]
        source: BuildError,
    },
    /// A name that is none: nothing was asked.
    #[error("the registry was not asked: a name in the request is not one")]
    Name(#[from] ReferenceError),
    /// Not reachable, silent, or not speaking HTTP.
    #[error("{operation} failed")]
    Http {
        /// What was being done.
        operation: Operation,
        /// What the client says.
        #[source]
        source: HttpError,
    },
    /// It wants credentials, or refuses those that it has.
    #[error("{operation}: the registry demands credentials; only anonymous access is supported")]
    Unauthorized {
        /// What was being done.
        operation: Operation,
    },
    /// It does not have it.
    #[error("{operation}: the registry does not have it")]
    NotFound {
        /// What was being done.
        operation: Operation,
    },
    /// Any other status that is not the one expected.
    #[error("{operation}: the registry answered {status}{}", shown(.code))]
    Status {
        /// What was being done.
        operation: Operation,
        /// The status.
        status: u16,
        /// The code in the body, if there was one.
        code: Option<ErrorCode>,
    },
    /// A redirect or an upload location without, or with an unreadable, `Location`.
    #[error("{operation}: the registry redirects and does not say where to")]
    NoLocation {
        /// What was being done.
        operation: Operation,
    },
    /// A redirect or an upload location at another origin.
    #[error("{operation}: the registry redirects to {target:?}, which is not its own address: refused")]
    Elsewhere {
        /// What was being done.
        operation: Operation,
        /// Scheme, host and port that it named, cut to 128 characters.
        target: String,
    },
    /// More than three redirects.
    #[error("{operation}: the registry redirects more than three times")]
    TooManyRedirects {
        /// What was being done.
        operation: Operation,
    },
    /// Larger than the caller takes.
    #[error("{operation}: {size} bytes are more than the {limit} allowed")]
    TooLarge {
        /// What was being done.
        operation: Operation,
        /// Its size.
        size: u64,
        /// The most allowed.
        limit: u64,
    },
    /// The content is not what its digest says.
    #[error("{operation}: the registry gave other content than the digest names")]
    Digest {
        /// What was being done.
        operation: Operation,
        /// Both digests.
        #[source]
        source: DigestMismatch,
    },
    /// The registry announces another length than it must be.
    #[error("{operation}: the registry announces {found} bytes instead of {expected}")]
    Length {
        /// What was being done.
        operation: Operation,
        /// Bytes it must have.
        expected: u64,
        /// Bytes announced.
        found: u64,
    },
    /// The place of an upload is not one that the registry gave.
    #[error("{operation}: {found:?} is not the place of an upload")]
    UploadPlace {
        /// What was being done.
        operation: Operation,
        /// The place, cut to 128 characters.
        found: String,
    },
    /// The registry says that it has more of an upload, or less, than can be.
    #[error("{operation}: the registry says that it has bytes {found:?} of the upload")]
    UploadRange {
        /// What was being done.
        operation: Operation,
        /// What it says, cut to 128 characters.
        found: String,
    },
    /// An empty range was asked for.
    #[error("{operation}: the range asked for is empty")]
    EmptyRange {
        /// What was being done.
        operation: Operation,
    },
    /// The registry gave another part of the blob than was asked for.
    #[error(
        "{operation}: the registry was asked for bytes {} to {} and answers {status} with content range {found:?}",
        wanted.start, wanted.end
    )]
    ContentRange {
        /// What was being done.
        operation: Operation,
        /// The bytes that were asked for; the end is exclusive.
        wanted: Range<u64>,
        /// The status.
        status: u16,
        /// What it says it gives, cut to 128 characters.
        found: String,
    },
    /// The connection failed in the middle of a blob.
    #[error("{operation}: interrupted at offset {offset}")]
    Interrupted {
        /// What was being done.
        operation: Operation,
        /// The blob.
        blob: Digest,
        /// Offset in the blob up to which bytes came.
        offset: u64,
        /// What the client says.
        #[source]
        source: HttpError,
    },
    /// The blob ended early.
    #[error("{operation}: the blob ends at offset {offset}, before {expected}")]
    Truncated {
        /// What was being done.
        operation: Operation,
        /// The blob.
        blob: Digest,
        /// Offset in the blob at which it ended.
        offset: u64,
        /// Offset up to which it was asked for.
        expected: u64,
    },
    /// The blob goes on where it should end.
    #[error("{operation}: the blob goes on behind offset {expected}")]
    Overlong {
        /// What was being done.
        operation: Operation,
        /// The blob.
        blob: Digest,
        /// Offset up to which it was asked for.
        expected: u64,
    },
}

impl RegistryError {
    /// Whether the same request may succeed a moment later. Wrong content and refusals are not of this kind.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http { source, .. } | Self::Interrupted { source, .. } => source.is_transient(),
            Self::Truncated { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }
}

fn shown(code: &Option<ErrorCode>) -> String {
    code.as_ref()
        .map(|code| format!(" ({})", code.as_str()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_are_taken_from_error_bodies() {
        let code = |body: &str| ErrorCode::parse(body.as_bytes()).map(|code| code.0);
        let body = r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"x","detail":{}}]}"#;
        assert_eq!(code(body), Some("BLOB_UNKNOWN".to_owned()));
        for body in [
            "",
            "{}",
            r#"{"errors":[]}"#,
            r#"{"errors":[{"code":"a b\n"}]}"#,
            r#"{"errors":[{"code":""}]}"#,
        ] {
            assert_eq!(code(body), None, "{body}");
        }
    }
}
