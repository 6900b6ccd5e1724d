//! A registry, as the OCI distribution specification 1.1 has it: pull for the guest, push for `cellactl`.
//!
//! The registry is not trusted, and nor is the way to it. What is small (manifests, configurations) is returned only with
//! the right length and digest; a [`BlobStream`] or a [`BlobReader`] is handed on as it comes, exactly as long as it was
//! asked for, and its caller checks it. Redirects are followed for blobs only, three at most, and only to the same origin: what the policy
//! names as the registry's address is the only address that is dialled.
//!
//! No operation has a deadline as a whole, only each silence (`cella_http::ClientConfig::read_timeout`); the caller sets
//! one around what must end. Only anonymous access is supported.

mod error;
mod extent;
mod location;
mod pull;
mod push;
mod reader;
mod stream;
mod streamed;
mod upload;

use std::time::Duration;

use bytes::Bytes;
use cella_http::{Client, ClientConfig, HttpError, Origin, Response, TlsRoots};
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

pub use error::{ErrorCode, Operation, RegistryError};
pub use reader::BlobReader;
pub use stream::BlobStream;
pub use streamed::SentBlob;
pub use upload::Upload;

use crate::check_repository;

/// One registry at one origin.
#[derive(Debug, Clone)]
pub struct Registry {
    client: Client,
    name: String,
}

impl Registry {
    /// The registry that references call `name`, reached at `origin`. Connects at the first request.
    ///
    /// # Errors
    /// [`RegistryError::Setup`] for `https` without roots.
    pub fn new(origin: Origin, roots: Option<TlsRoots>, name: &str) -> Result<Self, RegistryError> {
        Self::with_config(origin, roots, name, ClientConfig::default())
    }

    /// [`Registry::new`] with timeouts of the caller's.
    ///
    /// # Errors
    /// As there.
    pub fn with_config(
        origin: Origin,
        roots: Option<TlsRoots>,
        name: &str,
        config: ClientConfig,
    ) -> Result<Self, RegistryError> {
        let client = Client::new(origin, roots, config).map_err(|source| RegistryError::Setup {
            registry: name.to_owned(),
            source,
        })?;
        Ok(Self {
            client,
            name: name.to_owned(),
        })
    }

    /// The name in references.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address that is dialled.
    pub fn origin(&self) -> &Origin {
        self.client.origin()
    }

    /// Judges the dates of the registry's certificates by a time that has become known; see `cella_http::Client::check_dates`.
    ///
    /// # Errors
    /// [`HttpError::Dates`].
    pub fn check_dates(&self) -> Result<(), HttpError> {
        self.client.check_dates()
    }

    /// Sends one request of `operation`.
    async fn send(
        &self,
        operation: &Operation,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, RegistryError> {
        let sent = self.client.send(method, path, headers, body).await;
        sent.map_err(|source| self.http_error(operation, source))
    }

    /// Sends a request without a body and follows redirects within the origin.
    async fn follow(
        &self,
        operation: &Operation,
        method: Method,
        path: String,
        headers: HeaderMap,
    ) -> Result<Response, RegistryError> {
        let mut path = path;
        for _ in 0..=MAX_REDIRECTS {
            let response = self
                .send(operation, method.clone(), &path, headers.clone(), Bytes::new())
                .await?;
            if !response.status.is_redirection() {
                return Ok(response);
            }
            path = self.location(operation, &response.headers)?;
        }
        Err(RegistryError::TooManyRedirects {
            operation: operation.clone(),
        })
    }

    /// Path and query of an answer's `Location`, if it stays at this origin.
    fn location(&self, operation: &Operation, headers: &HeaderMap) -> Result<String, RegistryError> {
        let value = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let value = value.ok_or_else(|| RegistryError::NoLocation {
            operation: operation.clone(),
        })?;
        location::within(self.client.origin(), value).map_err(|target| RegistryError::Elsewhere {
            operation: operation.clone(),
            target,
        })
    }

    /// The error that an unexpected answer stands for. Reads a bounded part of its body for a bounded time.
    async fn refused(&self, operation: &Operation, response: Response) -> RegistryError {
        self.refused_with(operation, response.status, response.bytes(MAX_ERROR_BODY))
            .await
    }

    async fn refused_with(
        &self,
        operation: &Operation,
        status: StatusCode,
        body: impl Future<Output = Result<Bytes, HttpError>>,
    ) -> RegistryError {
        let operation = operation.clone();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Unauthorized { operation },
            StatusCode::NOT_FOUND => RegistryError::NotFound { operation },
            _ => {
                let body = tokio::time::timeout(ERROR_BODY_TIMEOUT, body).await;
                let code = body.ok().and_then(Result::ok).and_then(|body| ErrorCode::parse(&body));
                RegistryError::Status {
                    operation,
                    status: status.as_u16(),
                    code,
                }
            }
        }
    }

    fn http_error(&self, operation: &Operation, source: HttpError) -> RegistryError {
        RegistryError::Http {
            operation: operation.clone(),
            source,
        }
    }

    fn operation(&self, action: &'static str, object: String, repository: &str) -> Result<Operation, RegistryError> {
        check_repository(repository)?;
        Ok(Operation::new(action, object, &self.name, repository))
    }
}

/// Headers of any request: content comes as it is stored.
fn base_headers() -> HeaderMap {
    HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))])
}

const MAX_REDIRECTS: usize = 3;
const MAX_ERROR_BODY: usize = 16 * 1024;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);
