//! Bounds of what may come on the connection to the agent, below ttrpc.
//!
//! ttrpc takes frames of 4 MiB, whose decoding can take many times as much memory, reads longer ones away for as long as they
//! go on, and passes over answers that nobody waits for. An honest agent sends none of these: one short answer a request.
//! So the first frame that is anything else ends the connection, and whoever waits for an answer has an error at once.
//! [`Bounds`] is pure; [`Frames`] applies it to a stream.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ttrpc::proto::{MESSAGE_HEADER_LENGTH, MESSAGE_TYPE_RESPONSE, MessageHeader};

/// Longest answer of an agent, in bytes. Its `Status`, the longest, stays below 64 KiB with a model of a hundred files.
pub const MAX_ANSWER: u32 = 256 * 1024;

/// What no honest agent sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than [`MAX_ANSWER`].
    #[error("the agent's answer has {length} bytes, more than {MAX_ANSWER}")]
    TooLong {
        /// As the header says.
        length: u32,
    },
    /// Anything but an answer.
    #[error("the agent sent a message of type {kind}, which is no answer")]
    NotAnAnswer {
        /// As the header says.
        kind: u8,
    },
    /// More answers than requests.
    #[error("the agent answers what it was not asked")]
    Unasked,
}

/// Follows the frames in both directions.
#[derive(Debug, Default)]
pub struct Bounds {
    requests: Cursor,
    answers: Cursor,
    /// Requests that have no answer yet.
    open: u64,
    broken: Option<FrameError>,
}

/// Where one direction is within its frames.
#[derive(Debug, Default)]
struct Cursor {
    header: Vec<u8>,
    body: u64,
}

impl Bounds {
    /// Notes bytes that were sent to the agent.
    pub fn sent(&mut self, bytes: &[u8]) {
        let open = &mut self.open;
        let Ok(()) = self.requests.pass(bytes, |_| {
            *open = open.saturating_add(1);
            Ok::<_, Infallible>(())
        });
    }

    /// Checks bytes that came from the agent.
    ///
    /// # Errors
    /// See [`FrameError`]. The connection is of no use then, and every later call says the same.
    pub fn received(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let open = &mut self.open;
        let checked = self.answers.pass(bytes, |header| {
            if header.type_ != MESSAGE_TYPE_RESPONSE {
                return Err(FrameError::NotAnAnswer { kind: header.type_ });
            }
            if header.length > MAX_ANSWER {
                return Err(FrameError::TooLong { length: header.length });
            }
            *open = open.checked_sub(1).ok_or(FrameError::Unasked)?;
            Ok(())
        });
        self.broken = checked.err();
        checked
    }
}

impl Cursor {
    /// Goes through `bytes` and hands each header that is complete to `judge`.
    fn pass<E>(&mut self, mut bytes: &[u8], mut judge: impl FnMut(MessageHeader) -> Result<(), E>) -> Result<(), E> {
        while !bytes.is_empty() {
            if self.body > 0 {
                let skip = usize::try_from(self.body).unwrap_or(usize::MAX).min(bytes.len());
                bytes = bytes.get(skip..).unwrap_or_default();
                self.body -= skip as u64;
                continue;
            }
            let missing = MESSAGE_HEADER_LENGTH.saturating_sub(self.header.len());
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.header.extend_from_slice(now);
            bytes = later;
            if self.header.len() == MESSAGE_HEADER_LENGTH {
                let header = MessageHeader::from(&self.header);
                self.header.clear();
                self.body = header.length.into();
                judge(header)?;
            }
        }
        Ok(())
    }
}

/// A stream to an agent that ends with an error at the first frame that is out of [`Bounds`].
#[derive(Debug)]
pub(super) struct Frames<S> {
    inner: S,
    bounds: Bounds,
}

impl<S> Frames<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            bounds: Bounds::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.bounds.received(new).map_err(|error| {
            buffer.set_filled(before);
            io::Error::new(io::ErrorKind::InvalidData, error)
        }))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.bounds.sent(bytes.get(..written).unwrap_or(bytes));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use ttrpc::proto::{MESSAGE_TYPE_DATA, MESSAGE_TYPE_REQUEST};

    use super::*;

    fn frame(kind: u8, length: u32) -> Vec<u8> {
        let header = MessageHeader {
            length,
            stream_id: 1,
            type_: kind,
            flags: 0,
        };
        let mut bytes = Vec::from(header);
        bytes.resize(
            MESSAGE_HEADER_LENGTH + usize::try_from(length.min(MAX_ANSWER)).unwrap(),
            7,
        );
        bytes
    }

    #[test]
    fn one_answer_for_each_request_however_the_bytes_are_cut() {
        let requests = [frame(MESSAGE_TYPE_REQUEST, 300), frame(MESSAGE_TYPE_REQUEST, 0)].concat();
        let answers = [
            frame(MESSAGE_TYPE_RESPONSE, 0),
            frame(MESSAGE_TYPE_RESPONSE, MAX_ANSWER),
        ]
        .concat();
        for cut in [1, 7, 10, 11, 4096, usize::MAX] {
            let mut bounds = Bounds::default();
            for bytes in requests.chunks(cut) {
                bounds.sent(bytes);
            }
            for bytes in answers.chunks(cut) {
                assert_eq!(bounds.received(bytes), Ok(()), "cut at {cut}");
            }
            let third = bounds.received(&frame(MESSAGE_TYPE_RESPONSE, 0));
            assert_eq!(third, Err(FrameError::Unasked), "cut at {cut}");
            assert_eq!(bounds.received(b"x"), Err(FrameError::Unasked), "it stays broken");
        }
    }

    #[test]
    fn a_header_alone_condemns_what_is_long_or_no_answer() {
        for (header, error) in [
            (
                frame(MESSAGE_TYPE_RESPONSE, u32::MAX),
                FrameError::TooLong { length: u32::MAX },
            ),
            (
                frame(MESSAGE_TYPE_RESPONSE, MAX_ANSWER + 1),
                FrameError::TooLong { length: MAX_ANSWER + 1 },
            ),
            (
                frame(MESSAGE_TYPE_DATA, 1),
                FrameError::NotAnAnswer {
                    kind: MESSAGE_TYPE_DATA,
                },
            ),
            (
                frame(MESSAGE_TYPE_REQUEST, 1),
                FrameError::NotAnAnswer {
                    kind: MESSAGE_TYPE_REQUEST,
                },
            ),
            (frame(0xff, 0), FrameError::NotAnAnswer { kind: 0xff }),
        ] {
            let mut bounds = Bounds::default();
            bounds.sent(&frame(MESSAGE_TYPE_REQUEST, 5));
            let (header, _) = header.split_at(MESSAGE_HEADER_LENGTH);
            assert_eq!(bounds.received(header), Err(error));
        }
    }

    #[tokio::test]
    async fn nothing_of_a_frame_that_is_out_of_bounds_is_read() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Frames::new(near);
        near.write_all(&frame(MESSAGE_TYPE_REQUEST, 20)).await.unwrap();
        let answer = frame(MESSAGE_TYPE_RESPONSE, 4 << 20);
        let flood = tokio::spawn(async move {
            let _ = far.write_all(&answer).await;
            far
        });
        let mut header = [0; MESSAGE_HEADER_LENGTH];
        let error = near.read_exact(&mut header).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("4194304 bytes"), "{error}");
        assert!(!flood.is_finished(), "the rest was taken");
        flood.abort();
    }
}
