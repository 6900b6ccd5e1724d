//! Pulling.
use std::ops::Range;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue, RANGE};
use http::{HeaderMap, Method, StatusCode};

use super::extent::extent;
use super::{BlobReader, BlobStream, MAX_ERROR_BODY, MAX_REDIRECTS, Operation, Registry, RegistryError, base_headers};
use crate::manifest::MAX_MANIFEST;
use crate::reference::check_tag;
use crate::{Descriptor, Digest};

impl Registry {
    /// The manifest or index with this digest: at most [`MAX_MANIFEST`] bytes, of the right digest, not parsed.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn manifest(&self, repository: &str, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        let operation = self.operation("pulling", format!("manifest {digest}"), repository)?;
        let bytes = self.manifest_bytes(&operation, &digest.to_string()).await?;
        self.check(&operation, digest, &bytes)?;
        Ok(bytes.into())
    }

    /// What a tag means right now: a digest, and the manifest or index that has it. For `cellactl`; the guest knows digests.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn resolve_tag(&self, repository: &str, tag: &str) -> Result<(Digest, Vec<u8>), RegistryError> {
        check_tag(tag)?;
        let operation = self.operation("resolving", format!("tag {tag}"), repository)?;
        let bytes = self.manifest_bytes(&operation, tag).await?;
        Ok((Digest::of(&bytes), bytes.into()))
    }

    /// A small blob, whole: of the descriptor's size, which is at most `max`, and of its digest.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn blob(&self, repository: &str, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>, RegistryError> {
        let Descriptor { digest, size, .. } = descriptor;
        let operation = self.blob_operation(repository, digest)?;
        if *size > max {
            return Err(RegistryError::TooLarge {
                operation,
                size: *size,
                limit: max,
            });
        }
        let mut stream = self.open_blob(&operation, digest, None).await?;
        stream.expect_end(*size)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        self.check(&operation, digest, &bytes)?;
        Ok(bytes)
    }

    /// A blob, or the bytes `range` of it, as a stream that the **caller** checks.
    ///
    /// # Errors
    /// See [`RegistryError`]; [`RegistryError::ContentRange`] when the registry would give other bytes.
    pub async fn blob_stream(
        &self,
        repository: &str,
        digest: &Digest,
        range: Option<Range<u64>>,
    ) -> Result<BlobStream, RegistryError> {
        let operation = self.blob_operation(repository, digest)?;
        self.open_blob(&operation, digest, range).await
    }

    /// The bytes `range` of a blob, which the **caller** checks, to be read straight into its memory.
    ///
    /// # Errors
    /// As [`Registry::blob_stream`].
    pub async fn blob_reader(
        &self,
        repository: &str,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<BlobReader, RegistryError> {
        let operation = &self.blob_operation(repository, digest)?;
        let headers = ranged_headers(operation, Some(&range))?;
        let mut path = blob_path(repository, digest);
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.client.download(&path, headers.clone()).await;
            let answer = answer.map_err(|source| self.http_error(operation, source))?;
            if answer.status.is_redirection() {
                path = self.location(operation, &answer.headers)?;
                continue;
            }
            let Some(announced) = answer.left() else {
                // Where the body ends is in the body itself: it is asked for again, by the client that reads such bodies.
                let stream = self.open_blob(operation, digest, Some(range.clone())).await?;
                return Ok(BlobReader::buffered(operation, *digest, range, stream));
            };
            if !answer.status.is_success() {
                let status = answer.status;
                return Err(self.refused_with(operation, status, answer.bytes(MAX_ERROR_BODY)).await);
            }
            extent(
                operation,
                Some(range.clone()),
                answer.status,
                &answer.headers,
                Some(announced),
            )?;
            return Ok(BlobReader::direct(operation, *digest, range, answer));
        }
        Err(RegistryError::TooManyRedirects {
            operation: operation.clone(),
        })
    }

    async fn open_blob(
        &self,
        operation: &Operation,
        digest: &Digest,
        range: Option<Range<u64>>,
    ) -> Result<BlobStream, RegistryError> {
        let headers = ranged_headers(operation, range.as_ref())?;
        let path = blob_path(operation.repository(), digest);
        let response = self.follow(operation, Method::GET, path, headers).await?;
        if !response.status.is_success() {
            return Err(self.refused(operation, response).await);
        }
        BlobStream::new(operation, *digest, range, response)
    }

    /// Whether the registry has a blob.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn blob_exists(&self, repository: &str, digest: &Digest) -> Result<bool, RegistryError> {
        let operation = self.operation("looking for", format!("blob {digest}"), repository)?;
        let path = blob_path(repository, digest);
        let response = self.follow(&operation, Method::HEAD, path, base_headers()).await?;
        match response.status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.refused(&operation, response).await),
        }
    }

    async fn manifest_bytes(&self, operation: &Operation, reference: &str) -> Result<Bytes, RegistryError> {
        let mut headers = base_headers();
        headers.insert(ACCEPT, HeaderValue::from_static(MANIFEST_TYPES));
        let path = format!("/v2/{}/manifests/{reference}", operation.repository());
        let response = self.send(operation, Method::GET, &path, headers, Bytes::new()).await?;
        if response.status != StatusCode::OK {
            return Err(self.refused(operation, response).await);
        }
        response
            .bytes(MAX_MANIFEST)
            .await
            .map_err(|source| self.http_error(operation, source))
    }

    fn check(&self, operation: &Operation, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        digest.check(bytes).map_err(|source| RegistryError::Digest {
            operation: operation.clone(),
            source,
        })
    }

    fn blob_operation(&self, repository: &str, digest: &Digest) -> Result<Operation, RegistryError> {
        self.operation("pulling", format!("blob {digest}"), repository)
    }
}

/// Headers of a request for a blob, or for a part of it, which is not empty.
fn ranged_headers(operation: &Operation, range: Option<&Range<u64>>) -> Result<HeaderMap, RegistryError> {
    let mut headers = base_headers();
    if let Some(range) = range {
        if range.is_empty() {
            return Err(RegistryError::EmptyRange {
                operation: operation.clone(),
            });
        }
        // Digits and a dash: always a header.
        if let Ok(value) = HeaderValue::try_from(format!("bytes={}-{}", range.start, range.end - 1)) {
            headers.insert(RANGE, value);
        }
    }
    Ok(headers)
}

fn blob_path(repository: &str, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";
