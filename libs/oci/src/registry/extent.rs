//! Which bytes of a blob an answer gives, by its status and headers: those that were asked for, or it is refused.
use std::ops::Range;

use http::header::CONTENT_RANGE;
use http::{HeaderMap, StatusCode};

use super::{Operation, RegistryError};
use crate::manifest::cut;

/// Where the body of the answer to a `GET` of `range`, or of the whole blob, starts and ends; the end is unknown only for a whole blob
/// whose length is not `announced`.
pub(super) fn extent(
    operation: &Operation,
    range: Option<Range<u64>>,
    status: StatusCode,
    headers: &HeaderMap,
    announced: Option<u64>,
) -> Result<(u64, Option<u64>), RegistryError> {
    let (wanted, given) = match (&range, status) {
        (None, StatusCode::OK) => (0, Some(announced)),
        // The whole blob, where exactly the whole was asked for.
        (Some(range), StatusCode::OK) if range.start == 0 && announced == Some(range.end) => (0, Some(announced)),
        (Some(range), StatusCode::PARTIAL_CONTENT) => (
            range.start,
            covers(content_range(headers), range).then_some(Some(range.end)),
        ),
        (range, _) => (range.as_ref().map_or(0, |range| range.start), None),
    };
    let Some(end) = given else {
        return Err(RegistryError::ContentRange {
            operation: operation.clone(),
            wanted: range.unwrap_or(0..u64::MAX),
            status: status.as_u16(),
            found: cut(content_range(headers)),
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
    Ok((wanted, end))
}

fn content_range(headers: &HeaderMap) -> &str {
    headers
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
