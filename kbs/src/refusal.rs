//! Everything that the broker says instead of what was asked for, and how it is said over HTTP.

use cella_kbs_client::jwe::JweError;
use cella_kbs_client::wire::{ErrorInformation, ResourcePathError};
use http::StatusCode;

use crate::admin::AdminError;
use crate::appraisal::{AppraisalError, BodyError};
use crate::audit::AuditError;
use crate::rule::{Mismatch, RuleError};
use crate::session::SessionError;
use crate::storage::{MAX_RESOURCE, StorageError};
use crate::token::TokenError;

/// Why a request was not granted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// `/auth` did not get a request of the protocol.
    #[error("request: {0}")]
    Request(#[from] RequestError),
    /// `/attest` outside of a session that waits for it, or no room for another session.
    #[error("{0}")]
    Handshake(SessionError),
    /// `/attest` did not get an attestation.
    #[error("{0}")]
    Body(#[from] BodyError),
    /// The evidence is refused.
    #[error("{0}")]
    Appraisal(#[from] AppraisalError),
    /// A resource was asked for without session and token.
    #[error("no session cookie and no token")]
    NoCredentials,
    /// A resource was asked for in a session that has not attested.
    #[error("{0}")]
    Unattested(SessionError),
    /// The token is refused.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The resource has no rule.
    #[error("the resource has no rule")]
    NoRule,
    /// The rule does not name this guest.
    #[error("{0}")]
    Denied(#[from] Mismatch),
    /// The resource is not there. Said only to guests that have attested and to admins.
    #[error("no such resource")]
    NoResource,
    /// The path is none of this server's.
    #[error("no such endpoint")]
    NoEndpoint,
    /// The path's last part is not the name of a resource.
    #[error("{0}")]
    ResourceName(#[from] ResourcePathError),
    /// The endpoint has another method.
    #[error("method not allowed here")]
    Method,
    /// More bytes than the endpoint reads.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// How many it reads.
        limit: usize,
    },
    /// The body did not come in time.
    #[error("the body did not arrive in time")]
    BodyTimeout,
    /// The connection broke in the body.
    #[error("the body could not be read")]
    BodyBroken,
    /// Not an admin.
    #[error("{0}")]
    Admin(#[from] AdminError),
    /// Not a rule.
    #[error("{0}")]
    Rule(#[from] RuleError),
    /// A resource of no bytes would be a mistake.
    #[error("a resource has 1 to {MAX_RESOURCE} bytes")]
    EmptyResource,
    /// The database failed.
    #[error("storage failed")]
    Storage(#[from] StorageError),
    /// The audit log failed.
    #[error("audit log failed")]
    Audit(#[from] AuditError),
    /// The resource could not be encrypted.
    #[error("encryption failed")]
    Encrypt(#[from] JweError),
    /// A request's handler panicked, or its answer has no JSON form.
    #[error("the request failed")]
    Internal,
}

/// The body of `/auth` is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not JSON of the protocol's form.
    #[error("not valid at line {line}, column {column}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// Another version.
    #[error("version is not {}", cella_kbs_client::wire::VERSION)]
    Version,
    /// Evidence of another kind.
    #[error("tee is not snp, the only one that this broker verifies")]
    Tee,
}

impl Refusal {
    /// Status and body of the answer: the one place where causes become HTTP. `reference` is repeated in the log.
    ///
    /// The names are the protocol's as far as it has them. As there, a guest's refusal is 401 whatever the cause, and
    /// 404 is what makes clients stop asking. Failures of the broker itself are 5xx, which clients may try again; their
    /// causes stay here.
    pub fn answer(&self, reference: &str) -> (StatusCode, ErrorInformation) {
        let (status, name) = match self {
            Self::Handshake(SessionError::Full) => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
            Self::Handshake(SessionError::Random) => (StatusCode::INTERNAL_SERVER_ERROR, "Internal"),
            Self::Request(_) | Self::Handshake(_) | Self::Body(_) | Self::Appraisal(_) => {
                (StatusCode::UNAUTHORIZED, "AttestationError")
            }
            Self::NoCredentials | Self::Unattested(_) => (StatusCode::UNAUTHORIZED, "TokenNotFound"),
            Self::Token(_) => (StatusCode::UNAUTHORIZED, "TokenVerifierError"),
            Self::NoRule | Self::Denied(_) => (StatusCode::UNAUTHORIZED, "PolicyDeny"),
            Self::Admin(_) => (StatusCode::UNAUTHORIZED, "AdminAuth"),
            Self::NoResource | Self::NoEndpoint | Self::ResourceName(_) => {
                (StatusCode::NOT_FOUND, "InvalidRequestPath")
            }
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "InvalidRequest"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "InvalidRequest"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "InvalidRequest"),
            Self::BodyBroken | Self::Rule(_) | Self::EmptyResource => (StatusCode::BAD_REQUEST, "InvalidRequest"),
            Self::Storage(_) | Self::Audit(_) | Self::Encrypt(_) | Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "Internal")
            }
        };
        (
            status,
            ErrorInformation::new(name, &format!("{self} (ref {reference})")),
        )
    }
}
