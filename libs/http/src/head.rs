//! The head of an answer whose body the caller reads by itself: status, headers, and where the body ends.
//!
//! No I/O: bytes go in as they come off the wire, however they are cut. Nothing is parsed before the head is complete, so a peer that
//! drips bytes costs no more than one that does not.
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::connect::MAX_HEADERS;

/// A head, within the client's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The status, of whatever class but the interim 1xx.
    pub status: StatusCode,
    /// The headers, at most 100.
    pub headers: HeaderMap,
    /// Bytes of the body; `None` where its length is not in the head.
    pub length: Option<u64>,
    /// Whether the connection may serve another request behind the body.
    pub keeps_alive: bool,
}

/// Takes bytes until the head of an answer is complete.
#[derive(Debug)]
pub struct HeadReader {
    bytes: Vec<u8>,
    /// Bytes in which no end is.
    seen: usize,
    limit: usize,
    interim: usize,
}

impl HeadReader {
    /// For a head of at most `limit` bytes; interim answers (1xx) in front of it are passed over, as long each and eight at most.
    pub fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            seen: 0,
            limit,
            interim: 0,
        }
    }

    /// Takes the next bytes. With the last of the head it gives the head and what came behind it.
    ///
    /// # Errors
    /// See [`HeadError`]. There is no going on after an error.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<(Head, Vec<u8>)>, HeadError> {
        self.bytes.extend_from_slice(bytes);
        loop {
            if !self.bytes.iter().zip(START).all(|(found, wanted)| found == wanted) {
                return Err(HeadError::Syntax(httparse::Error::Version));
            }
            let end = end(&self.bytes, self.seen);
            let Some(end) = end.filter(|end| *end <= self.limit) else {
                if end.is_some() || self.bytes.len() >= self.limit {
                    return Err(HeadError::TooLarge);
                }
                self.seen = self.bytes.len();
                return Ok(None);
            };
            let rest = self.bytes.split_off(end);
            let head = std::mem::replace(&mut self.bytes, rest);
            self.seen = 0;
            if let Some(head) = parse(&head)? {
                return Ok(Some((head, std::mem::take(&mut self.bytes))));
            }
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(HeadError::Interim);
            }
        }
    }
}

/// Why bytes are not the head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// It goes on behind the limit.
    #[error("the head is too large")]
    TooLarge,
    /// It is not HTTP/1.0 or 1.1, or has more headers than allowed.
    #[error("the head is malformed")]
    Syntax(#[source] httparse::Error),
    /// The status or a header is none that exists.
    #[error("the head has a status or a header that cannot be")]
    Field,
    /// Several lengths, a length that is no number, or a length and a transfer encoding.
    #[error("the head does not say in one way how long the body is")]
    Length,
    /// Too many interim answers, or one that changes the protocol.
    #[error("interim answers without an answer")]
    Interim,
}

/// Where the first head in `bytes` ends, behind its empty line; in the first `seen` bytes there is no end.
fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    // The empty line may have begun in what was seen.
    let from = seen.saturating_sub(2);
    let lines = bytes.iter().enumerate().skip(from).filter(|(_, byte)| **byte == b'\n');
    lines
        .map(|(at, _)| at + 1)
        .find_map(|next| match bytes.get(next..).unwrap_or_default() {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        })
}

/// Reads a complete head; `None` for an interim one.
fn parse(bytes: &[u8]) -> Result<Option<Head>, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut fields);
    match answer.parse(bytes) {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        Ok(_) => return Err(HeadError::Syntax(httparse::Error::NewLine)),
        Err(error) => return Err(HeadError::Syntax(error)),
    }
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(HeadError::Field)?;
    match status {
        StatusCode::SWITCHING_PROTOCOLS => return Err(HeadError::Interim),
        status if status.is_informational() => return Ok(None),
        _ => {}
    }
    let mut headers = HeaderMap::with_capacity(answer.headers.len());
    for field in answer.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError::Field)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| HeadError::Field)?;
        headers.append(name, value);
    }
    Ok(Some(Head {
        status,
        length: length(status, &headers)?,
        keeps_alive: answer.version == Some(1) && has_body(status) && !closes(&headers),
        headers,
    }))
}

/// RFC 9112, 6.3, for the answer to a `GET`; stricter in that nothing is repaired.
fn length(status: StatusCode, headers: &HeaderMap) -> Result<Option<u64>, HeadError> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let found = (lengths.next(), lengths.next(), headers.contains_key(TRANSFER_ENCODING));
    let announced = match found {
        (None, _, _) => None,
        (Some(only), None, false) => {
            let digits = only.to_str().ok();
            let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            Some(digits.and_then(|text| text.parse().ok()).ok_or(HeadError::Length)?)
        }
        _ => return Err(HeadError::Length),
    };
    Ok(if has_body(status) { announced } else { Some(0) })
}

fn has_body(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn closes(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        let options = value.as_bytes().split(|byte| *byte == b',');
        options
            .into_iter()
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}

/// How every answer begins.
const START: &[u8] = b"HTTP/1.";
/// Interim answers before one that counts.
const MAX_INTERIM: usize = 8;

#[cfg(test)]
mod tests;
