//! Everything that the broker says instead of what was asked for, and how it is said over HTTP.

use cella_attest::reference::ReferenceError;
use cella_kbs_client::jwe::JweError;
use cella_kbs_client::wire::{ErrorInformation, ResourcePathError};
use http::StatusCode;

use crate::admin::AdminError;
use crate::appraisal::{AppraisalError, BodyError};
use crate::audit::AuditError;
use crate::owners::{Missing, OwnersError};
use crate::rule::{Mismatch, RuleError};
use crate::session::{SessionError, SessionFailure};
use crate::storage::{
    BackupError, FloorNameError, MAX_RESOURCE, OwnersChangeError, Rollback, StorageError, StoreError,
};
use crate::token::{TokenError, TokenKeysError};
use crate::workload::WorkloadError;

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
    /// The measured policy cannot be compared with floors.
    #[error("{0}")]
    Workload(#[from] WorkloadError),
    /// Older than it must be, asked for by a guest.
    #[error("{0}")]
    TooOld(Rollback),
    /// Older than what is there, offered by an admin.
    #[error("{0}")]
    Rollback(Rollback),
    /// The rule names the guest, and an owner has not said yes.
    #[error("approval missing: {missing}")]
    NotApproved {
        /// Who.
        missing: Missing,
    },
    /// Owners or an approval are not taken.
    #[error("{0}")]
    Owners(#[from] OwnersError),
    /// Not the name of a floor.
    #[error("{0}")]
    FloorName(#[from] FloorNameError),
    /// A floor or version that is no number.
    #[error("the query is not one decimal number, a version counted from 1")]
    Version,
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
    /// One source asks more often than the configuration allows.
    #[error("too many requests: try again later")]
    TooFast,
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
    /// Reference values that do not count.
    #[error("{0}")]
    Reference(#[from] ReferenceError),
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
    /// A backup is not made or not taken.
    #[error("{0}")]
    Backup(BackupError),
    /// A token key in the database cannot be used.
    #[error("token keys failed")]
    TokenKey,
    /// A request's handler panicked, or its answer has no JSON form.
    #[error("the request failed")]
    Internal,
}

impl Refusal {
    /// A session that does not allow what was asked, called `refused` there, or could not be looked at.
    pub(crate) fn of_session(error: SessionFailure, refused: fn(SessionError) -> Self) -> Self {
        match error {
            SessionFailure::Refused(error) => refused(error),
            SessionFailure::Storage(error) => Self::Storage(error),
        }
    }
}

impl From<StoreError> for Refusal {
    /// What an admin wanted to store.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Rollback(rollback) => Self::Rollback(rollback),
            StoreError::Storage(error) => Self::Storage(error),
        }
    }
}

impl From<BackupError> for Refusal {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Storage(error) => Self::Storage(error),
            error => Self::Backup(error),
        }
    }
}

impl From<TokenKeysError> for Refusal {
    fn from(error: TokenKeysError) -> Self {
        match error {
            TokenKeysError::Token(error) => Self::Token(error),
            TokenKeysError::Storage(error) => Self::Storage(error),
            TokenKeysError::Key(_) => Self::TokenKey,
        }
    }
}

impl From<OwnersChangeError> for Refusal {
    fn from(error: OwnersChangeError) -> Self {
        match error {
            OwnersChangeError::Refused(error) => Self::Owners(error),
            OwnersChangeError::Storage(error) => Self::Storage(error),
        }
    }
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
    #[error("tee is neither snp nor tdx")]
    Tee,
    /// Evidence that could not be verified.
    #[error("tee is tdx, and this broker has no collateral to verify quotes with")]
    NoCollateral,
}

impl Refusal {
    /// Status and body of the answer: the one place where causes become HTTP. `reference` is repeated in the log.
    ///
    /// The names are the protocol's as far as it has them. As there, a guest's refusal is 401 whatever the cause, and
    /// 404 is what makes clients stop asking. Failures of the broker itself are 5xx, which clients may try again; their
    /// causes stay here.
    pub fn answer(&self, reference: &str) -> (StatusCode, ErrorInformation) {
        let (status, name) = match self {
            // 5xx, so that clients of the protocol come again.
            Self::TooFast => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
            Self::Handshake(SessionError::Full) => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
            Self::Storage(StorageError::Unavailable { .. } | StorageError::Uncertain { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "StorageUnavailable")
            }
            Self::Handshake(SessionError::Random) => (StatusCode::INTERNAL_SERVER_ERROR, "Internal"),
            Self::Request(_) | Self::Handshake(_) | Self::Body(_) | Self::Appraisal(_) | Self::Workload(_) => {
                (StatusCode::UNAUTHORIZED, "AttestationError")
            }
            Self::NoCredentials | Self::Unattested(_) => (StatusCode::UNAUTHORIZED, "TokenNotFound"),
            Self::Token(_) => (StatusCode::UNAUTHORIZED, "TokenVerifierError"),
            Self::NoRule | Self::Denied(_) | Self::TooOld(_) | Self::NotApproved { .. } => {
                (StatusCode::UNAUTHORIZED, "PolicyDeny")
            }
            Self::Admin(_) => (StatusCode::UNAUTHORIZED, "AdminAuth"),
            Self::Owners(OwnersError::Consent { .. } | OwnersError::Signature | OwnersError::Older) => {
                (StatusCode::FORBIDDEN, "OwnerConsent")
            }
            Self::Backup(BackupError::NotEmpty) => (StatusCode::CONFLICT, "InvalidRequest"),
            Self::Backup(_) => (StatusCode::BAD_REQUEST, "InvalidRequest"),
            Self::Owners(_) => (StatusCode::BAD_REQUEST, "InvalidRequest"),
            Self::Reference(ReferenceError::Unsigned | ReferenceError::Signature) => {
                (StatusCode::FORBIDDEN, "ReferenceSigner")
            }
            Self::Reference(_) => (StatusCode::BAD_REQUEST, "InvalidRequest"),
            Self::Rollback(_) => (StatusCode::CONFLICT, "Rollback"),
            Self::NoResource | Self::NoEndpoint | Self::ResourceName(_) | Self::FloorName(_) => {
                (StatusCode::NOT_FOUND, "InvalidRequestPath")
            }
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "InvalidRequest"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "InvalidRequest"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "InvalidRequest"),
            Self::BodyBroken | Self::Rule(_) | Self::EmptyResource | Self::Version => {
                (StatusCode::BAD_REQUEST, "InvalidRequest")
            }
            Self::Storage(_) | Self::Audit(_) | Self::Encrypt(_) | Self::TokenKey | Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "Internal")
            }
        };
        (
            status,
            ErrorInformation::new(name, &format!("{self} (ref {reference})")),
        )
    }
}
