//! Why keys did not come, told apart by who is to blame.
use std::error::Error;
use std::fmt;
use std::time::Duration;

use cella_http::{HttpError, Origin};

use crate::jwe::JweError;
use crate::key::KeyError;
use crate::token::TokenError;
use crate::wire::{ResourcePath, ResourcePathError};

/// What was being asked of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Asking for a challenge.
    Auth,
    /// Sending evidence.
    Attest,
    /// Fetching a resource.
    Resource(ResourcePath),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auth => f.write_str("the challenge"),
            Self::Attest => f.write_str("the attestation"),
            Self::Resource(path) => write!(f, "the resource {path}"),
        }
    }
}

/// Why an attestation or a resource failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KbsError {
    /// No connection, no trusted TLS, or the connection broke.
    #[error("key broker {origin}: unreachable for {step}")]
    Unreachable {
        /// The broker.
        origin: Origin,
        /// What was asked.
        step: Step,
        /// What the client saw.
        #[source]
        source: HttpError,
    },
    /// The broker took too long.
    #[error("key broker {origin}: no answer within {after:?} for {step}")]
    Timeout {
        /// The broker.
        origin: Origin,
        /// What was asked.
        step: Step,
        /// How long was waited.
        after: Duration,
    },
    /// The broker says that it is the one who failed.
    #[error("key broker {origin}: answered {step} with status {status}")]
    Unavailable {
        /// The broker.
        origin: Origin,
        /// What was asked.
        step: Step,
        /// 500 to 599.
        status: u16,
    },
    /// The answer is not what the protocol has there.
    #[error("key broker {origin}: the answer to {step} is not valid: {what}")]
    Garbage {
        /// The broker.
        origin: Origin,
        /// What was asked.
        step: Step,
        /// What is wrong with it.
        what: GarbageKind,
    },
    /// The broker understood and said no. Asking again gives the same answer.
    #[error("key broker {origin}: refused {step}: {kind}: {detail}")]
    Refused {
        /// The broker.
        origin: Origin,
        /// What was asked.
        step: Step,
        /// Name of the protocol's error, such as `PolicyDeny`; the broker's word, printable.
        kind: String,
        /// The broker's reason; at most 300 printable characters.
        detail: String,
    },
    /// The broker knows no such resource.
    #[error("key broker {origin}: has no resource {path}")]
    NotFound {
        /// The broker.
        origin: Origin,
        /// What was asked for.
        path: ResourcePath,
    },
    /// The resource came but cannot be opened.
    #[error("key broker {origin}: the resource {path} cannot be decrypted")]
    Sealed {
        /// The broker.
        origin: Origin,
        /// What was asked for.
        path: ResourcePath,
        /// Why.
        #[source]
        source: JweError,
    },
    /// The broker's token is not one that the caller believes.
    #[error("key broker {origin}: its attestation token is not believed")]
    Token {
        /// The broker.
        origin: Origin,
        /// Why.
        #[source]
        source: TokenError,
    },
    /// The session's token has ended; a new attestation gives another.
    #[error("key broker {origin}: the session has ended")]
    Expired {
        /// The broker.
        origin: Origin,
    },
    /// The caller's name for a resource is no name.
    #[error("the name of a resource is not valid")]
    Path(#[source] ResourcePathError),
    /// The platform gave no evidence.
    #[error("no evidence for the key broker")]
    Evidence(#[source] Box<dyn Error + Send + Sync>),
    /// The guest's key could not be made.
    #[error("no key for the session with the key broker")]
    Key(#[source] KeyError),
}

/// The protocol's errors for a session that the broker does not know (any more), and for a token that it does not take.
const SESSION_OVER: [&str; 2] = ["TokenNotFound", "TokenVerifierError"];

impl KbsError {
    /// Whether the same question may be answered a moment later: nobody there yet, a broken connection, a status of 500
    /// or more.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::Unreachable {
                    source: HttpError::Connect { .. } | HttpError::Closed { .. },
                    ..
                }
        )
    }

    /// Whether a resource was refused because the session or its token has ended: attesting anew gives another. The broker's other refusals
    /// are decisions, and stay.
    pub fn is_session_over(&self) -> bool {
        match self {
            Self::Expired { .. } => true,
            Self::Refused {
                step: Step::Resource(_),
                kind,
                ..
            } => SESSION_OVER.contains(&kind.as_str()),
            _ => false,
        }
    }

    /// Sorts what the HTTP client says by blame.
    pub(crate) fn from_http(origin: &Origin, step: &Step, error: HttpError) -> Self {
        let (origin, step) = (origin.clone(), step.clone());
        match error {
            HttpError::Timeout { after, .. } => Self::Timeout { origin, step, after },
            HttpError::TooLarge { limit, .. } => Self::Garbage {
                origin,
                step,
                what: GarbageKind::TooLarge { limit },
            },
            HttpError::Protocol { .. } | HttpError::HeadTooLarge { .. } => Self::Garbage {
                origin,
                step,
                what: GarbageKind::Http(error),
            },
            error => Self::Unreachable {
                origin,
                step,
                source: error,
            },
        }
    }
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GarbageKind {
    /// Not HTTP.
    #[error("it is not HTTP")]
    Http(#[source] HttpError),
    /// Larger than such an answer ever is.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Not the JSON that belongs there.
    #[error("it is not the expected JSON (line {line}, column {column})")]
    Json {
        /// Where reading stopped.
        line: usize,
        /// Where reading stopped.
        column: usize,
    },
    /// A status that the protocol does not have there, or a refusal without its reason.
    #[error("it has the status {status} and no reason in the protocol's form")]
    Status {
        /// The status.
        status: u16,
    },
    /// The challenge set no session cookie.
    #[error("it sets no session cookie")]
    NoCookie,
    /// The nonce is empty or far too long.
    #[error("its nonce is empty or longer than {limit} characters")]
    Nonce {
        /// The limit.
        limit: usize,
    },
    /// The broker selected a hash that was not offered.
    #[error("it selects another hash than the sha384 that was offered")]
    Hash,
}

/// What a peer says, fit for a log line: printable, and not longer than `max` characters.
pub(crate) fn printable(text: &str, max: usize) -> String {
    text.chars()
        .take(max)
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_is_cut_and_cleaned() {
        assert_eq!(printable("a\nb\u{1b}[31mü\u{202e} c", 100), "a?b?[31m?? c");
        assert_eq!(printable("abcdef", 3), "abc");
    }
}
