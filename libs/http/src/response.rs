//! An answer whose head has come and whose body is read as the caller wishes.
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::client::Shared;
use crate::connect::Connection;
use crate::error::{HttpError, Step};

/// An answer. Its connection is kept for the next request once the body was read to its end, and closed if it is dropped
/// before.
pub struct Response {
    /// The status, of whatever class.
    pub status: StatusCode,
    /// The headers, at most 100 and within the client's limit.
    pub headers: HeaderMap,
    body: Incoming,
    connection: Option<Connection>,
    shared: Arc<Shared>,
}

impl Response {
    pub(crate) fn new(answer: http::Response<Incoming>, connection: Connection, shared: Arc<Shared>) -> Self {
        let (head, body) = answer.into_parts();
        let mut response = Self {
            status: head.status,
            headers: head.headers,
            body,
            connection: Some(connection),
            shared,
        };
        if response.body.is_end_stream() {
            response.release();
        }
        response
    }

    /// The length that the server announced, if it did. For `HEAD`, that of the body which `GET` would give.
    pub fn content_length(&self) -> Option<u64> {
        self.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`HttpError::TooLarge`] above `max` bytes, at once where the server announces more; otherwise as
    /// [`Response::chunk`].
    pub async fn bytes(mut self, max: usize) -> Result<Bytes, HttpError> {
        let too_large = |origin: &crate::Origin| HttpError::TooLarge {
            origin: origin.clone(),
            limit: max,
        };
        if usize::try_from(self.body.size_hint().lower()).map_or(true, |announced| announced > max) {
            return Err(too_large(self.shared.origin()));
        }
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if chunk.len() > max.saturating_sub(whole.len()) {
                return Err(too_large(self.shared.origin()));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// The next piece of the body as it comes off the wire, `None` after the last. Cancel safe.
    ///
    /// # Errors
    /// [`HttpError::Timeout`] after [`crate::ClientConfig::read_timeout`] without a byte, [`HttpError::Closed`] when the
    /// server ends a body early, [`HttpError::Protocol`] when its framing is broken. After an error there is nothing more to read.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let Some(connection) = &self.connection else {
                return Ok(None);
            };
            connection.activity.touch();
            let frame = tokio::select! {
                biased;
                frame = self.body.frame() => frame,
                () = connection.activity.silence(self.shared.read_timeout) => {
                    self.connection = None;
                    return Err(self.shared.timeout(Step::Body));
                }
            };
            match frame {
                None => {
                    self.release();
                    return Ok(None);
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {}
                },
                Some(Err(source)) => {
                    self.connection = None;
                    return Err(self.shared.failed(source));
                }
            }
        }
    }

    fn release(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.shared.pool.put(connection);
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({} from {})", self.status, self.shared.origin())
    }
}
