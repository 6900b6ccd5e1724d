//! A stream whose bytes are counted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::counters::{Metrics, Pipe, global};

/// Counts what is read from and what is written to a stream, both as the bytes of one pipe.
pub struct Counted<S> {
    stream: S,
    pipe: Pipe,
    metrics: &'static Metrics,
}

impl<S> Counted<S> {
    /// Counts `stream` as `pipe`.
    pub fn new(stream: S, pipe: Pipe) -> Self {
        Self {
            stream,
            pipe,
            metrics: global(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.metrics.stdio(self.pipe, buf.filled().len().saturating_sub(before));
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.metrics
            .stdio(self.pipe, result.as_ref().copied().unwrap_or_default());
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn both_directions_are_counted_and_nothing_is_changed() {
        let metrics: &'static Metrics = Box::leak(Box::new(Metrics::new()));
        let (here, mut there) = tokio::io::duplex(8);
        let mut counted = Counted {
            stream: here,
            pipe: Pipe::Stderr,
            metrics,
        };
        counted.write_all(b"abc").await.unwrap();
        there.write_all(b"defg").await.unwrap();
        there.read_exact(&mut [0; 3]).await.unwrap();
        drop(there);
        let mut read = String::new();
        counted.read_to_string(&mut read).await.unwrap();
        assert_eq!((read.as_str(), metrics.stdio_bytes(Pipe::Stderr)), ("defg", 7));
        assert_eq!(metrics.stdio_bytes(Pipe::Stdout), 0);
    }
}
