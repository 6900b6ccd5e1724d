//! What can go wrong with a request, told apart by who is to blame.
use std::error::Error;
use std::io;
use std::time::Duration;

use crate::origin::Origin;

/// Why a [`crate::Client`] cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// `https` without authorities: nothing could ever be trusted.
    #[error("{origin} needs the certificate authorities to trust, and none were given")]
    NoRoots {
        /// The server meant.
        origin: Origin,
    },
    /// The host is not a name that a certificate can carry.
    #[error("{origin}: the host cannot be checked against a certificate")]
    ServerName {
        /// The server meant.
        origin: Origin,
    },
    /// rustls refuses the configuration.
    #[error("setting up TLS for {origin}")]
    Tls {
        /// The server meant.
        origin: Origin,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
}

/// What the client was doing when time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Resolving the name, connecting and shaking hands.
    Connect,
    /// Sending the request or waiting for the head of the answer.
    Head,
    /// Waiting for the next piece of the body.
    Body,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Head => "waiting for the answer",
            Self::Body => "reading the body",
        })
    }
}

/// Why a request failed. Messages name the server and never hold a byte that it sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The name did not resolve, or nobody accepted the connection.
    #[error("cannot connect to {origin}")]
    Connect {
        /// The server meant.
        origin: Origin,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed: wrong authority, wrong name, or not TLS at all.
    #[error("no trusted TLS connection to {origin}")]
    Tls {
        /// The server meant.
        origin: Origin,
        /// What rustls says.
        #[source]
        source: io::Error,
    },
    /// The server's certificate is not valid yet, or not any more, by the time that became known after the handshake.
    #[error("the certificate of {origin} is not valid now, by the time that a trusted peer has stated")]
    Dates {
        /// The server meant.
        origin: Origin,
        /// What rustls says.
        #[source]
        source: Box<rustls::Error>,
    },
    /// The server was silent for too long.
    #[error("{origin} was silent for {after:?} while {what}")]
    Timeout {
        /// The server meant.
        origin: Origin,
        /// What was being waited for.
        what: Step,
        /// For how long.
        after: Duration,
    },
    /// The answer is not HTTP/1.1 as it should be.
    #[error("{origin} gave an answer that is not valid HTTP")]
    Protocol {
        /// The server meant.
        origin: Origin,
        /// What the parser says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The head of the answer exceeds [`crate::ClientConfig::max_header_bytes`].
    #[error("{origin} gave an answer whose head is larger than {limit} bytes")]
    HeadTooLarge {
        /// The server meant.
        origin: Origin,
        /// The limit.
        limit: usize,
    },
    /// The body is larger than the caller allows.
    #[error("{origin} gave a body larger than {limit} bytes")]
    TooLarge {
        /// The server meant.
        origin: Origin,
        /// The limit.
        limit: usize,
    },
    /// The server closed the connection before the answer was complete.
    #[error("{origin} closed the connection in the middle of an answer")]
    Closed {
        /// The server meant.
        origin: Origin,
        /// What was seen.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The length of the body is not in the head of the answer: [`crate::Download`] reads no such body, [`crate::Response`] does.
    #[error("{origin} does not say how long its answer is")]
    NoLength {
        /// The server meant.
        origin: Origin,
    },
    /// The caller's own body could not be read.
    #[error("reading the body to send to {origin}")]
    RequestBody {
        /// The server meant.
        origin: Origin,
        /// What hyper says.
        #[source]
        source: hyper::Error,
    },
    /// The caller's path or headers make no request.
    #[error("the request for {origin} is not valid: {reason}")]
    Request {
        /// The server meant.
        origin: Origin,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl HttpError {
    /// Whether the same request may succeed a moment later: nobody answered, the connection broke, or the answer was late.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Closed { .. } | Self::Protocol { .. } => true,
            // What is wrong with a certificate is said as invalid data; the rest is the connection's.
            Self::Tls { source, .. } => source.kind() != io::ErrorKind::InvalidData,
            _ => false,
        }
    }

    /// Sorts hyper's error by blame.
    pub(crate) fn from_hyper(origin: &Origin, max_header_bytes: usize, source: hyper::Error) -> Self {
        let origin = origin.clone();
        if source.is_user() {
            Self::RequestBody { origin, source }
        } else if source.is_parse_too_large() {
            Self::HeadTooLarge {
                origin,
                limit: max_header_bytes,
            }
        } else if source.is_incomplete_message() || source.is_closed() || source.is_canceled() || is_hang_up(&source) {
            Self::closed(&origin, source)
        } else {
            Self::protocol(&origin, source)
        }
    }

    /// Sorts what reading or writing a connection gives.
    pub(crate) fn from_io(origin: &Origin, source: io::Error) -> Self {
        if hangs_up(&source) {
            Self::closed(origin, source)
        } else {
            Self::protocol(origin, source)
        }
    }

    pub(crate) fn closed(origin: &Origin, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Closed {
            origin: origin.clone(),
            source: Box::new(source),
        }
    }

    pub(crate) fn protocol(origin: &Origin, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Protocol {
            origin: origin.clone(),
            source: Box::new(source),
        }
    }
}

fn is_hang_up(error: &hyper::Error) -> bool {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return hangs_up(io);
        }
        next = cause.source();
    }
    false
}

fn hangs_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}
