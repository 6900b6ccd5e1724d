//! A blob, or a part of one, as it comes off the wire.
use std::ops::Range;

use bytes::Bytes;
use cella_http::Response;
use http::StatusCode;
use http::header::CONTENT_RANGE;

use super::{Operation, RegistryError};
use crate::Digest;
use crate::manifest::cut;

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
        let status = response.status;
        let (wanted, given) = match (&range, status) {
            (None, StatusCode::OK) => (0, Some(announced)),
            // The whole blob, where exactly the whole was asked for.
            (Some(range), StatusCode::OK) if range.start == 0 && announced == Some(range.end) => (0, Some(announced)),
            (Some(range), StatusCode::PARTIAL_CONTENT) => (
                range.start,
                covers(content_range(&response), range).then_some(Some(range.end)),
            ),
            (range, _) => (range.as_ref().map_or(0, |range| range.start), None),
        };
        let Some(end) = given else {
            return Err(RegistryError::ContentRange {
                operation: operation.clone(),
                wanted: range.unwrap_or(0..u64::MAX),
                status: status.as_u16(),
                found: cut(content_range(&response)),
            });
        };
        if let (Some(end), Some(found)) = (end, announced)
            && end - wanted != found
        {
            let expected = end - wanted;
            return Err(RegistryError::Length {
                operation: operation.clone(),
                expected,
                found,
            });
        }
        Ok(Self {
            response,
            operation: operation.clone(),
            blob,
            offset: wanted,
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

fn content_range(response: &Response) -> &str {
    response
        .headers
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Whether `Content-Range: bytes <first>-<last>/<total or *>` is exactly `wanted`.
fn covers(header: &str, wanted: &Range<u64>) -> bool {
    let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse::<u64>().ok(),
        false => None,
    };
    let parts = || {
        let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = if total == "*" { u64::MAX } else { number(total)? };
        Some((number(first)?, number(last)?.checked_add(1)?, total))
    };
    parts().is_some_and(|(first, end, total)| first == wanted.start && end == wanted.end && end <= total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_exact() {
        assert!(covers("bytes 10-19/100", &(10..20)));
        assert!(covers("bytes 10-19/20", &(10..20)));
        assert!(covers("bytes 10-19/*", &(10..20)));
        for header in [
            "",
            "bytes",
            "bytes 10-20/100",
            "bytes 9-19/100",
            "bytes 10-18/100",
            "bytes 10-19/19",
            "bytes 10-19",
            "bytes */100",
            "bytes +10-19/100",
            "bytes 10-19/-",
            "items 10-19/100",
            "bytes 10-18446744073709551615/*",
            "bytes 10-99999999999999999999/*",
        ] {
            assert!(!covers(header, &(10..20)), "{header}");
        }
    }
}
