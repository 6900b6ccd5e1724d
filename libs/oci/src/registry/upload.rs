//! Uploads in chunks, which can go on where they were interrupted, for `cellactl`.
//!
//! ```text
//! POST …/blobs/uploads/      → 202, the upload's place
//! PATCH <place>, a chunk     → 202, its next place, how much is there
//! GET <place>                → 204, the same; 404 when the registry has forgotten it
//! PUT <place>?digest=…       → 201
//! ```
//! After every answer the place may be another. A registry may keep nothing of a chunk that was cut short, a part of it, or
//! refuse the upload from then on (distribution 2.8 does): [`Registry::upload_status`] says which.
use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use http::{HeaderMap, Method, StatusCode};

use super::{MAX_ERROR_BODY, Operation, Registry, RegistryError, base_headers};
use crate::Digest;
use crate::manifest::cut;
use cella_http::Response;

/// A blob on its way up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    place: String,
    offset: u64,
    min_chunk: u64,
}

impl Upload {
    /// Path and query at the registry where it goes on. Whoever has it can add to the upload: not for others' eyes.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Bytes that the registry has.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The registry takes no smaller chunk but the last; 0 when it did not say.
    pub fn min_chunk(&self) -> u64 {
        self.min_chunk
    }
}

impl Registry {
    /// Begins an upload.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn start_upload(&self, repository: &str) -> Result<Upload, RegistryError> {
        let operation = self.operation("beginning", "an upload".to_owned(), repository)?;
        let path = format!("/v2/{repository}/blobs/uploads/");
        let response = self
            .send(&operation, Method::POST, &path, base_headers(), Bytes::new())
            .await?;
        if response.status != StatusCode::ACCEPTED {
            return Err(self.refused(&operation, response).await);
        }
        let min_chunk = header(&response.headers, "oci-chunk-min-length").parse().unwrap_or(0);
        let place = self.next_place(&operation, response).await?;
        Ok(Upload {
            place,
            offset: 0,
            min_chunk,
        })
    }

    /// How far the upload at `place` is, which an earlier [`Upload::place`] was. `None` when the registry does not go on with it.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn upload_status(&self, repository: &str, place: &str) -> Result<Option<Upload>, RegistryError> {
        let operation = self.operation("resuming", "an upload".to_owned(), repository)?;
        let within = |target: &str| RegistryError::UploadPlace {
            operation: operation.clone(),
            found: cut(target),
        };
        let place = super::location::within(self.client.origin(), place).map_err(|target| within(&target))?;
        let response = self
            .send(&operation, Method::GET, &place, base_headers(), Bytes::new())
            .await?;
        match response.status {
            StatusCode::NO_CONTENT | StatusCode::ACCEPTED => {}
            StatusCode::NOT_FOUND
            | StatusCode::BAD_REQUEST
            | StatusCode::GONE
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::RANGE_NOT_SATISFIABLE => return Ok(None),
            _ => return Err(self.refused(&operation, response).await),
        }
        let offset = self.reached(&operation, &response)?;
        let moved = response.headers.contains_key(http::header::LOCATION);
        let place = if moved {
            self.next_place(&operation, response).await?
        } else {
            place
        };
        Ok(Some(Upload {
            place,
            offset,
            min_chunk: 0,
        }))
    }

    /// Adds the next bytes. After an error the upload may have all, some or none of them: ask [`Registry::upload_status`].
    ///
    /// # Errors
    /// See [`RegistryError`]; [`RegistryError::UploadRange`] when it says that it has something else now.
    pub async fn append(&self, repository: &str, upload: &mut Upload, bytes: Bytes) -> Result<(), RegistryError> {
        let operation = self.operation("sending", format!("bytes from {}", upload.offset), repository)?;
        let length = bytes.len() as u64;
        let end = upload.offset.saturating_add(length);
        let mut headers = base_headers();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        // Digits and a dash: always a header.
        if let Ok(range) = HeaderValue::try_from(format!("{}-{}", upload.offset, end.saturating_sub(1))) {
            headers.insert(CONTENT_RANGE, range);
        }
        let response = self
            .send(&operation, Method::PATCH, &upload.place, headers, bytes)
            .await?;
        if response.status != StatusCode::ACCEPTED {
            return Err(self.refused(&operation, response).await);
        }
        let reached = self.reached(&operation, &response)?;
        if reached != end {
            return Err(RegistryError::UploadRange {
                operation,
                found: cut(header(&response.headers, RANGE.as_str())),
            });
        }
        upload.place = self.next_place(&operation, response).await?;
        upload.offset = end;
        Ok(())
    }

    /// What errors about an upload that goes on at `offset` say that was being done.
    pub fn sending_operation(&self, repository: &str, offset: u64) -> Operation {
        Operation::new("sending", format!("bytes from {offset}"), self.name(), repository)
    }

    /// Ends the upload: the registry compares the digest and has the blob.
    ///
    /// # Errors
    /// See [`RegistryError`]; `DIGEST_INVALID` in [`RegistryError::Status`] when the bytes were others.
    pub async fn finish_upload(&self, repository: &str, upload: Upload, digest: &Digest) -> Result<(), RegistryError> {
        let operation = self.operation("pushing", format!("blob {digest}"), repository)?;
        let separator = if upload.place.contains('?') { '&' } else { '?' };
        let path = format!("{}{separator}digest={digest}", upload.place);
        self.put(&operation, &path, Bytes::new().into()).await
    }

    /// The place that an answer names, after its body, so that the connection is used again.
    async fn next_place(&self, operation: &Operation, response: Response) -> Result<String, RegistryError> {
        let place = self.location(operation, &response.headers)?;
        response
            .bytes(MAX_ERROR_BODY)
            .await
            .map_err(|source| self.http_error(operation, source))?;
        Ok(place)
    }

    /// `Range: 0-<last byte>`. An empty upload has no last byte: registries leave the header out, or say `0-0`; so that one byte,
    /// which says the same, counts as none.
    fn reached(&self, operation: &Operation, response: &Response) -> Result<u64, RegistryError> {
        let text = header(&response.headers, RANGE.as_str());
        let range = text.strip_prefix("bytes=").unwrap_or(text);
        let digits = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let last = range
            .strip_prefix("0-")
            .filter(digits)
            .and_then(|last| last.parse::<u64>().ok());
        match (range, last.and_then(|last| last.checked_add(1))) {
            ("" | "0-0", _) => Ok(0),
            (_, Some(reached)) => Ok(reached),
            _ => Err(RegistryError::UploadRange {
                operation: operation.clone(),
                found: cut(text),
            }),
        }
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
