//! A part of a blob, read straight into the caller's memory.
use std::ops::Range;

use bytes::{Buf, Bytes};
use cella_http::Download;

use super::{BlobStream, Operation, RegistryError};
use crate::Digest;

/// Bytes of a blob, not yet checked: the caller has a cipher that authenticates.
///
/// It gives exactly the bytes that were asked for, or an error that says how far it came; from there the caller may ask again. Of an answer
/// whose length is in its head each byte is received where the caller wants it; another one comes through the client's buffers.
#[must_use]
pub struct BlobReader {
    source: Source,
    operation: Operation,
    blob: Digest,
    offset: u64,
    end: u64,
}

enum Source {
    Direct(Download),
    Buffered { stream: BlobStream, chunk: Bytes },
}

impl BlobReader {
    /// Of an answer that gives exactly `range`, and says so.
    pub(super) fn direct(operation: &Operation, blob: Digest, range: Range<u64>, answer: Download) -> Self {
        Self::new(operation, blob, range, Source::Direct(answer))
    }

    /// Of `stream`, which is that of `range`.
    pub(super) fn buffered(operation: &Operation, blob: Digest, range: Range<u64>, stream: BlobStream) -> Self {
        let chunk = Bytes::new();
        Self::new(operation, blob, range, Source::Buffered { stream, chunk })
    }

    fn new(operation: &Operation, blob: Digest, range: Range<u64>, source: Source) -> Self {
        Self {
            source,
            operation: operation.clone(),
            blob,
            offset: range.start,
            end: range.end,
        }
    }

    /// Offset in the blob of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Fills `into` with the next bytes. After an error its content is of no use, and nor is the reader.
    ///
    /// # Errors
    /// [`RegistryError::Interrupted`]; [`RegistryError::Truncated`] where the range ends before `into` does, and
    /// [`RegistryError::Overlong`] where it does not end with the last byte: each names the blob, and how far it came.
    pub async fn read_exact(&mut self, into: &mut [u8]) -> Result<(), RegistryError> {
        let mut rest = into;
        while !rest.is_empty() {
            let count = self.read(rest).await?;
            rest = rest.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// At least one byte.
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, RegistryError> {
        let (blob, offset) = (self.blob, self.offset);
        let count = match &mut self.source {
            Source::Direct(answer) => {
                let read = answer.read(into).await;
                read.map_err(|source| RegistryError::Interrupted {
                    operation: self.operation.clone(),
                    blob,
                    offset,
                    source,
                })?
            }
            Source::Buffered { stream, chunk } => {
                if chunk.is_empty() {
                    *chunk = stream.chunk().await?.unwrap_or_default();
                }
                let count = chunk.len().min(into.len());
                chunk.copy_to_slice(into.get_mut(..count).unwrap_or_default());
                count
            }
        };
        if count == 0 {
            return Err(RegistryError::Truncated {
                operation: self.operation.clone(),
                blob,
                offset,
                expected: self.end.max(offset.saturating_add(1)),
            });
        }
        self.offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if let Source::Buffered { stream, .. } = &mut self.source
            && self.offset == self.end
        {
            // An error, if there is more.
            stream.chunk().await?;
        }
        Ok(count)
    }
}
