//! A blob, or a part of one, as it comes off the wire.
use std::ops::Range;

use bytes::Bytes;
use cella_http::Response;

use super::extent::extent;
use super::{Operation, RegistryError};
use crate::Digest;

/// Bytes of a blob, not yet checked: the caller has a [`crate::Verifier`] or a cipher that authenticates.
///
/// It yields exactly the bytes that were asked for, or an error that says how far it came; from there the caller may
/// ask again with a range.
#[must_use]
pub struct BlobStream {
    response: Response,
    operation: Operation,
    blob: Digest,
    offset: u64,
    /// Where it must end; unknown only for a whole blob whose length the registry does not announce.
    end: Option<u64>,
}

impl BlobStream {
    /// Takes the answer to a `GET` of `range`, or of the whole blob.
    pub(super) fn new(
        operation: &Operation,
        blob: Digest,
        range: Option<Range<u64>>,
        response: Response,
    ) -> Result<Self, RegistryError> {
        let announced = response.content_length();
        let (offset, end) = extent(operation, range, response.status, &response.headers, announced)?;
        Ok(Self {
            response,
            operation: operation.clone(),
            blob,
            offset,
            end,
        })
    }

    /// The blob that this is.
    pub fn digest(&self) -> &Digest {
        &self.blob
    }

    /// Offset in the blob of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// [`RegistryError::Interrupted`], [`RegistryError::Truncated`], [`RegistryError::Overlong`]: each names blob and offset.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let (operation, blob, offset) = (&self.operation, self.blob, self.offset);
        let next = self
            .response
            .chunk()
            .await
            .map_err(|source| RegistryError::Interrupted {
                operation: operation.clone(),
                blob,
                offset,
                source,
            })?;
        let length = next.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let reached = offset.saturating_add(length);
        match (next, self.end) {
            (Some(_), Some(expected)) if reached > expected => Err(RegistryError::Overlong {
                operation: operation.clone(),
                blob,
                expected,
            }),
            (None, Some(expected)) if offset < expected => Err(RegistryError::Truncated {
                operation: operation.clone(),
                blob,
                offset,
                expected,
            }),
            (next, _) => {
                self.offset = reached;
                Ok(next)
            }
        }
    }

    /// Demands that the blob end at `size`, whatever the registry announced.
    pub(super) fn expect_end(&mut self, size: u64) -> Result<(), RegistryError> {
        match self.end {
            Some(found) if found != size => Err(RegistryError::Length {
                operation: self.operation.clone(),
                expected: size,
                found,
            }),
            _ => {
                self.end = Some(size);
                Ok(())
            }
        }
    }
}
