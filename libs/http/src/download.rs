//! A `GET` whose body the caller reads straight into memory of its own.
//!
//! [`crate::Response`] hands on buffers that hyper has filled, on a task of its own: each byte is copied once more, and each piece
//! crosses from one task to another. Here the caller's task reads from the connection, to where the bytes belong. Only bodies whose
//! length is in the head are read so; whose length is not, hyper reads.
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::body::RequestBody;
use crate::client::{Client, Shared};
use crate::connect::Wire;
use crate::error::{HttpError, Step};
use crate::head::{Head, HeadError, HeadReader};

/// An answer whose body is still on the wire. Its connection is kept for the next download once the body was read to its end, and
/// closed if it is dropped before.
pub struct Download {
    /// The status, of whatever class but 1xx.
    pub status: StatusCode,
    /// The headers, at most 100 and within the client's limit.
    pub headers: HeaderMap,
    /// Bytes of the body that the caller does not have yet.
    left: Option<u64>,
    /// Those of them that came with the head.
    early: Bytes,
    /// Gone when the body was read, or when an error ended it.
    wire: Option<Wire>,
    keeps_alive: bool,
    shared: Arc<Shared>,
}

impl Client {
    /// Sends a `GET` and waits for the head of the answer. A redirect is an answer like any other; answers of every status are `Ok`.
    ///
    /// Path and headers as for [`Client::send`], limits and deadlines too.
    ///
    /// # Errors
    /// See [`HttpError`]. Cancelling closes the connection in use.
    pub async fn download(&self, path_and_query: &str, headers: HeaderMap) -> Result<Download, HttpError> {
        let request = self.request(Method::GET, path_and_query, headers, Bytes::new().into())?;
        self.check_dates()?;
        let request = written(&request);
        while let Some(wire) = self.shared.wires.take() {
            match self.ask(wire, &request).await {
                // Nothing is lost by asking again.
                Err(HttpError::Closed { .. }) => {}
                result => return result,
            }
        }
        self.ask(self.shared.connector.wire().await?, &request).await
    }

    async fn ask(&self, mut wire: Wire, request: &[u8]) -> Result<Download, HttpError> {
        let shared = &self.shared;
        wire.activity.touch();
        let activity = Arc::clone(&wire.activity);
        let exchange = async {
            let failed = |error| HttpError::from_io(shared.origin(), error);
            wire.stream.write_all(request).await.map_err(failed)?;
            wire.stream.flush().await.map_err(failed)?;
            let mut reader = HeadReader::new(shared.connector.max_header_bytes());
            let mut piece = vec![0; PIECE];
            loop {
                let count = wire.stream.read(&mut piece).await.map_err(failed)?;
                let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else {
                    return Err(shared.cut_short());
                };
                let pushed = reader.push(bytes).map_err(|error| match error {
                    HeadError::TooLarge => HttpError::HeadTooLarge {
                        origin: shared.origin().clone(),
                        limit: shared.connector.max_header_bytes(),
                    },
                    error => HttpError::protocol(shared.origin(), error),
                })?;
                if let Some((head, early)) = pushed {
                    return Ok((head, early));
                }
            }
        };
        let (head, early) = tokio::select! {
            biased;
            answer = exchange => answer?,
            () = activity.silence(shared.read_timeout) => return Err(shared.timeout(Step::Head)),
        };
        Ok(Download::new(head, early, wire, Arc::clone(shared)))
    }
}

impl Download {
    fn new(head: Head, early: Vec<u8>, wire: Wire, shared: Arc<Shared>) -> Self {
        let mut early = Bytes::from(early);
        let mut keeps_alive = head.keeps_alive;
        if let Some(length) = head.length.and_then(|length| usize::try_from(length).ok())
            && length < early.len()
        {
            // Whose bytes these are, nobody knows.
            early.truncate(length);
            keeps_alive = false;
        }
        let mut download = Self {
            status: head.status,
            headers: head.headers,
            left: head.length,
            early,
            wire: Some(wire),
            keeps_alive,
            shared,
        };
        download.took(0);
        download
    }

    /// Bytes of the body that are still to be read; `None` where its length is not in the head.
    pub fn left(&self) -> Option<u64> {
        self.left
    }

    /// Reads the next bytes of the body into `into`, as many as are there: at least one, but 0 behind the last one, or where `into` is
    /// empty. What lies behind the announced end is never read. Cancel safe.
    ///
    /// # Errors
    /// [`HttpError::Timeout`] after [`crate::ClientConfig::read_timeout`] without a byte, [`HttpError::Closed`] when the server ends the
    /// body early and for every call after an error, [`HttpError::NoLength`] where the length is not in the head.
    pub async fn read(&mut self, into: &mut [u8]) -> Result<usize, HttpError> {
        let Some(left) = self.left else {
            return Err(HttpError::NoLength {
                origin: self.shared.origin().clone(),
            });
        };
        let most = usize::try_from(left).map_or(into.len(), |left| left.min(into.len()));
        let into = into.get_mut(..most).unwrap_or_default();
        if into.is_empty() {
            return Ok(0);
        }
        let count = match self.early.len().min(into.len()) {
            0 => self.receive(into).await?,
            early => {
                self.early.copy_to_slice(into.get_mut(..early).unwrap_or_default());
                early
            }
        };
        self.took(count);
        Ok(count)
    }

    /// The whole rest of the body, for answers that are not the one hoped for.
    ///
    /// # Errors
    /// [`HttpError::TooLarge`] above `max` bytes, before any is read; otherwise as [`Download::read`].
    pub async fn bytes(mut self, max: usize) -> Result<Bytes, HttpError> {
        let left = self.left.map_or(Ok(0), usize::try_from);
        let Some(left) = left.ok().filter(|left| *left <= max) else {
            return Err(HttpError::TooLarge {
                origin: self.shared.origin().clone(),
                limit: max,
            });
        };
        let mut whole = vec![0; left];
        let mut have = 0;
        loop {
            let rest = whole.get_mut(have..).unwrap_or_default();
            match self.read(rest).await? {
                0 => return Ok(whole.into()),
                count => have += count,
            }
        }
    }

    /// Reads from the connection, at least one byte.
    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, HttpError> {
        let Some(wire) = &mut self.wire else {
            return Err(self.shared.cut_short());
        };
        wire.activity.touch();
        let read = tokio::select! {
            biased;
            read = wire.stream.read(into) => match read {
                Ok(0) => Err(self.shared.cut_short()),
                Ok(count) => Ok(count),
                Err(error) => Err(HttpError::from_io(self.shared.origin(), error)),
            },
            () = wire.activity.silence(self.shared.read_timeout) => Err(self.shared.timeout(Step::Body)),
        };
        if read.is_err() {
            self.wire = None;
        }
        read
    }

    /// Counts bytes that the caller has now; behind the last one the connection is free.
    fn took(&mut self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.left = self.left.map(|left| left.saturating_sub(count));
        if self.left == Some(0)
            && let Some(wire) = self.wire.take()
            && self.keeps_alive
        {
            self.shared.wires.put(wire);
        }
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Download({} from {})", self.status, self.shared.origin())
    }
}

impl Shared {
    fn cut_short(&self) -> HttpError {
        HttpError::closed(self.origin(), io::Error::from(io::ErrorKind::UnexpectedEof))
    }
}

/// A request without a body, as it goes over the wire. Path, names and values hold no line feed: their types see to that.
fn written(request: &Request<RequestBody>) -> Vec<u8> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut text = format!("{} {path} HTTP/1.1\r\n", request.method()).into_bytes();
    for (name, value) in request.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// What is read at once while the head is not complete: what of it belongs to the body is copied.
const PIECE: usize = 4096;
