//! What a request carries: bytes, or a reader of known length.
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

/// The body of a request. Its length is always known, so it is never sent chunked.
pub struct RequestBody(Kind);

enum Kind {
    Bytes(Bytes),
    Reader {
        reader: Pin<Box<dyn AsyncRead + Send>>,
        left: u64,
    },
}

impl RequestBody {
    /// Sends exactly `len` bytes of `reader`, in pieces of 64 KiB. A request with such a body is never sent twice.
    ///
    /// A reader that ends early makes the request fail; what it holds beyond `len` is not read.
    pub fn from_reader(reader: impl AsyncRead + Send + 'static, len: u64) -> Self {
        Self(Kind::Reader {
            reader: Box::pin(reader),
            left: len,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// A second copy, which bytes can give and a reader cannot.
    pub(crate) fn duplicate(&self) -> Option<Self> {
        match &self.0 {
            Kind::Bytes(bytes) => Some(Self(Kind::Bytes(bytes.clone()))),
            Kind::Reader { .. } => None,
        }
    }

    fn left(&self) -> u64 {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.len().try_into().unwrap_or(u64::MAX),
            Kind::Reader { left, .. } => *left,
        }
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Bytes(bytes))
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestBody({} bytes)", self.left())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let (reader, left) = match &mut self.0 {
            Kind::Bytes(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Kind::Bytes(bytes) => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Reader { left: 0, .. } => return Poll::Ready(None),
            Kind::Reader { reader, left } => (reader, left),
        };
        let mut piece = vec![0; usize::try_from(*left).map_or(PIECE, |left| left.min(PIECE))];
        let mut buf = ReadBuf::new(&mut piece);
        ready!(reader.as_mut().poll_read(cx, &mut buf))?;
        let read = buf.filled().len();
        let taken = u64::try_from(read).ok().and_then(|read| left.checked_sub(read));
        let (1.., Some(rest)) = (read, taken) else {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        };
        *left = rest;
        piece.truncate(read);
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

const PIECE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_reader_gives_exactly_its_length() {
        let body = RequestBody::from_reader(tokio::io::repeat(7), 100_000);
        assert_eq!(body.size_hint().exact(), Some(100_000));
        assert!(body.duplicate().is_none());
        assert_eq!(body.collect().await.unwrap().to_bytes(), vec![7; 100_000]);
    }

    #[tokio::test]
    async fn a_reader_that_ends_early_is_an_error() {
        let body = RequestBody::from_reader(&b"abc"[..], 4);
        assert_eq!(body.collect().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
