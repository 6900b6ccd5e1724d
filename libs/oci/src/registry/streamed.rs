//! Pushing a blob whose digest is known only when all of it has gone by, for the guest: what is sealed while it is sent.
//!
//! ```text
//! POST …/blobs/uploads/      → 202, a place
//! PATCH <place>, all bytes   → 202, the next place
//! PUT <place>?digest=…       → 201: only now is there a blob
//! ```
//! What is cut short is never a blob. It is not resumed: whoever seals begins anew, under another key.
use bytes::Bytes;
use cella_http::{RequestBody, Response};
use http::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use tokio::io::AsyncRead;

use super::{MAX_ERROR_BODY, Operation, Registry, RegistryError, base_headers};
use crate::Digest;

/// Bytes that the registry has and does not know the digest of.
#[derive(Debug)]
#[must_use = "they become a blob by finish_blob"]
pub struct SentBlob {
    place: String,
}

impl Registry {
    /// Sends exactly `length` bytes of `reader`, which are at least one, in constant memory.
    ///
    /// # Errors
    /// See [`RegistryError`]. The reader's own failure is one of [`RegistryError::Http`].
    pub async fn send_blob(
        &self,
        repository: &str,
        length: u64,
        reader: impl AsyncRead + Send + 'static,
    ) -> Result<SentBlob, RegistryError> {
        let operation = self.operation("pushing", "a blob".to_owned(), repository)?;
        let place = self.begin(&operation, repository).await?;
        let mut headers = octets();
        let range = format!("0-{}", length.saturating_sub(1));
        headers.extend(HeaderValue::try_from(range).ok().map(|range| (CONTENT_RANGE, range)));
        let body = RequestBody::from_reader(reader, length);
        let sent = self.client.send_body(Method::PATCH, &place, headers, body).await;
        let response = sent.map_err(|source| self.http_error(&operation, source))?;
        let place = self.place(&operation, response, StatusCode::ACCEPTED).await?;
        Ok(SentBlob { place })
    }

    /// Makes what was sent a blob of this digest, which the registry compares.
    ///
    /// # Errors
    /// See [`RegistryError`]; `DIGEST_INVALID` in [`RegistryError::Status`] when it has other bytes.
    pub async fn finish_blob(&self, repository: &str, sent: SentBlob, digest: &Digest) -> Result<(), RegistryError> {
        let operation = self.operation("pushing", format!("blob {digest}"), repository)?;
        let separator = if sent.place.contains('?') { '&' } else { '?' };
        let path = format!("{}{separator}digest={digest}", sent.place);
        let response = self
            .send(&operation, Method::PUT, &path, octets(), Bytes::new())
            .await?;
        match response.status {
            StatusCode::CREATED => Ok(()),
            _ => Err(self.refused(&operation, response).await),
        }
    }

    /// Whether the registry would take a blob now: begins one and takes it back. For what would be found out too late otherwise.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn check_push(&self, repository: &str) -> Result<(), RegistryError> {
        let operation = self.operation("beginning", "a push".to_owned(), repository)?;
        let place = self.begin(&operation, repository).await?;
        // Registries need not know how to take it back; they forget it by themselves.
        let _ = self
            .send(&operation, Method::DELETE, &place, base_headers(), Bytes::new())
            .await;
        Ok(())
    }

    async fn begin(&self, operation: &Operation, repository: &str) -> Result<String, RegistryError> {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let response = self
            .send(operation, Method::POST, &path, base_headers(), Bytes::new())
            .await?;
        self.place(operation, response, StatusCode::ACCEPTED).await
    }

    /// The place that an answer names, after its body, so that the connection is used again.
    async fn place(
        &self,
        operation: &Operation,
        response: Response,
        wanted: StatusCode,
    ) -> Result<String, RegistryError> {
        if response.status != wanted {
            return Err(self.refused(operation, response).await);
        }
        let place = self.location(operation, &response.headers)?;
        let read = response.bytes(MAX_ERROR_BODY).await;
        read.map_err(|source| self.http_error(operation, source))?;
        Ok(place)
    }
}

fn octets() -> HeaderMap {
    let mut headers = base_headers();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers
}
