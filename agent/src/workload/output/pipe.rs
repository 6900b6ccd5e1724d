//! From a thread that seals to a task that sends, a few segments at a time.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::mpsc,
};

/// Both ends.
pub(super) fn pipe() -> (Inlet, Outlet) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let outlet = Outlet {
        receiver,
        rest: Bytes::new(),
    };
    (Inlet(sender), outlet)
}

/// The thread's end: waits while the other is behind; an error once it is gone. Not for async threads.
pub(super) struct Inlet(mpsc::Sender<Bytes>);

impl Write for Inlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Bytes::copy_from_slice(bytes))
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The task's end: ends when the thread's end is dropped.
pub(super) struct Outlet {
    receiver: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl AsyncRead for Outlet {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.receiver.poll_recv(cx)) {
                Some(bytes) => self.rest = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.rest.len().min(buf.remaining());
        let now = self.rest.split_to(count);
        buf.put_slice(now.chunk());
        Poll::Ready(Ok(()))
    }
}

/// Segments of 1 MiB, their tags and the header: about as many bytes wait as two segments have.
const PIECES: usize = 4;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_goes_in_comes_out_and_ends() {
        let (mut inlet, mut outlet) = pipe();
        let writer = tokio::task::spawn_blocking(move || (0..100_u8).try_for_each(|n| inlet.write_all(&[n; 1000])));
        let mut all = Vec::new();
        outlet.read_to_end(&mut all).await.unwrap();
        writer.await.unwrap().unwrap();
        assert_eq!(all, (0..100_u8).flat_map(|n| [n; 1000]).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_ends_the_writer() {
        let (mut inlet, outlet) = pipe();
        let writer = tokio::task::spawn_blocking(move || {
            loop {
                inlet.write_all(&[0; 100])?;
            }
        });
        drop(outlet);
        let error: io::Error = match writer.await.unwrap() {
            Err(error) => error,
            Ok(()) => unreachable!(),
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
