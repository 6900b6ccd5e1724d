//! Pushing, for `cellactl`.
use bytes::Bytes;
use cella_http::RequestBody;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use tokio::io::AsyncRead;

use super::{Operation, Registry, RegistryError, base_headers};
use crate::reference::check_tag;
use crate::{Digest, ReferenceError};

impl Registry {
    /// Pushes a blob and gives its digest.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn push_blob(&self, repository: &str, bytes: Bytes) -> Result<Digest, RegistryError> {
        let digest = Digest::of(&bytes);
        self.upload(repository, &digest, bytes.into()).await?;
        Ok(digest)
    }

    /// Pushes a blob of `length` bytes from a reader, in constant memory. The registry compares the digest.
    ///
    /// # Errors
    /// See [`RegistryError`]; `DIGEST_INVALID` in [`RegistryError::Status`] when the reader gave something else.
    pub async fn push_blob_from(
        &self,
        repository: &str,
        digest: &Digest,
        length: u64,
        reader: impl AsyncRead + Send + 'static,
    ) -> Result<(), RegistryError> {
        self.upload(repository, digest, RequestBody::from_reader(reader, length))
            .await
    }

    /// Pushes a manifest or an index, under a tag or, without one, under its digest alone. Gives the digest.
    ///
    /// # Errors
    /// See [`RegistryError`]; `MANIFEST_BLOB_UNKNOWN` in [`RegistryError::Status`] when a layer is missing.
    pub async fn push_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, RegistryError> {
        tag.map_or(Ok(()), check_tag)?;
        let digest = Digest::of(&bytes);
        let operation = self.operation("pushing", format!("manifest {digest}"), repository)?;
        let path = match tag {
            Some(tag) => format!("/v2/{repository}/manifests/{tag}"),
            None => format!("/v2/{repository}/manifests/{digest}"),
        };
        let mut headers = base_headers();
        let value = HeaderValue::try_from(media_type).map_err(|_| ReferenceError::MediaType)?;
        headers.insert(CONTENT_TYPE, value);
        let response = self.send(&operation, Method::PUT, &path, headers, bytes).await?;
        match response.status {
            StatusCode::CREATED => Ok(digest),
            _ => Err(self.refused(&operation, response).await),
        }
    }

    /// One `POST` for a place, one `PUT` with all bytes.
    async fn upload(&self, repository: &str, digest: &Digest, body: RequestBody) -> Result<(), RegistryError> {
        let operation = self.operation("pushing", format!("blob {digest}"), repository)?;
        let start = format!("/v2/{repository}/blobs/uploads/");
        let response = self
            .send(&operation, Method::POST, &start, base_headers(), Bytes::new())
            .await?;
        if response.status != StatusCode::ACCEPTED {
            return Err(self.refused(&operation, response).await);
        }
        let place = self.location(&operation, &response.headers)?;
        // The connection is used again once the answer's body was read.
        response
            .bytes(super::MAX_ERROR_BODY)
            .await
            .map_err(|source| self.http_error(&operation, source))?;
        let separator = if place.contains('?') { '&' } else { '?' };
        self.put(&operation, &format!("{place}{separator}digest={digest}"), body)
            .await
    }

    pub(super) async fn put(&self, operation: &Operation, path: &str, body: RequestBody) -> Result<(), RegistryError> {
        let mut headers = base_headers();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let sent = self.client.send_body(Method::PUT, path, headers, body).await;
        let response = sent.map_err(|source| self.http_error(operation, source))?;
        match response.status {
            StatusCode::CREATED => Ok(()),
            _ => Err(self.refused(operation, response).await),
        }
    }
}
