//! The containers' pipes on vsock: one stream each, taken once, by number.
//!
//! A process with a terminal has one stream for input and one for output, both the terminal (`terminal`).
//!
//! A peer connects to [`cella_protos::STREAM_PORT`] and sends the pipe's number as u32 (little endian); from then on raw
//! bytes flow. The kernel's pipe is the only buffer: a host that does not read stops a container that prints, like any
//! pipe. A pipe that nobody takes within [`CLAIM_LIMIT`] is let go: output is dropped from then on, input ends.
//!
//! While the pod's ingress is shut, nothing of what the host writes goes into a pipe.
//!
//! ```text
//! offered ──claimed──▶ flowing ──end of pipe (process ended)──▶ drained, closed
//!    │                    └── host goes away ──▶ output dropped until the process ends
//!    └── claim limit, or withdrawn with its container ──▶ output dropped, input closed
//! ```

mod meter;
mod terminal;

use std::{
    collections::HashMap,
    io,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::socket::{Shutdown, shutdown};
use slog::{Logger, debug, warn};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink},
    net::unix::pipe::{Receiver, Sender},
    sync::Semaphore,
    time::{Instant, timeout},
};

pub use meter::{Meter, PERIOD};
pub use terminal::{Master, Pending, Terminal};

use crate::pod::Ingress;

/// The agent's end of one pipe.
#[derive(Debug)]
pub enum Pipe {
    /// The container reads what the host sends, while the pod's ingress is open.
    Input(Sender, Ingress),
    /// The host reads what the container prints.
    Output(Receiver),
    /// The host types on a terminal, while the pod's ingress is open.
    TerminalInput(Pending, Ingress),
    /// The host sees what a terminal shows.
    TerminalOutput(Pending),
}

/// All pipes that nobody has taken yet. Clones share them.
#[derive(Clone, Debug)]
pub struct Streams {
    offered: Arc<Mutex<Offered>>,
    log: Logger,
}

#[derive(Debug, Default)]
struct Offered {
    last: u32,
    pipes: HashMap<u32, Pipe>,
}

impl Streams {
    /// Without pipes.
    pub fn new(log: Logger) -> Self {
        Self {
            offered: Arc::default(),
            log,
        }
    }

    /// Offers a pipe and says its number, which is never 0 and never given twice. Needs a runtime.
    pub fn offer(&self, pipe: Pipe) -> u32 {
        let mut offered = self.lock();
        // 2^32 pipes are more than a guest lives to make; a number would come back only after them.
        offered.last = offered.last.checked_add(1).unwrap_or(1);
        let number = offered.last;
        offered.pipes.insert(number, pipe);
        drop(offered);
        let streams = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(CLAIM_LIMIT).await;
            if streams.withdraw(number) {
                warn!(streams.log, "nobody took a stream"; "stream" => number);
            }
        });
        number
    }

    /// Takes an offer back, if nobody has taken it: whether it was still there.
    pub fn withdraw(&self, number: u32) -> bool {
        let taken = self.take(number);
        let was_there = taken.is_some();
        if let Some(pipe) = taken {
            self.drop_output(pipe);
        }
        was_there
    }

    /// Lets a pipe go that the host does not take: what comes out of it is dropped. Needs a runtime.
    pub fn drop_output(&self, pipe: Pipe) {
        match pipe {
            Pipe::Output(output) => drop(tokio::spawn(discard(output))),
            Pipe::TerminalOutput(pending) => drop(tokio::spawn(async {
                if let Some(master) = opened(pending).await {
                    discard(master).await;
                }
            })),
            Pipe::Input(..) | Pipe::TerminalInput(..) => {}
        }
    }

    /// The same for output that the host may know of and not read: `meter` tells how much there was. Needs a runtime.
    pub fn meter_output(&self, pipe: Pipe, meter: Meter) {
        match pipe {
            Pipe::Output(output) => drop(tokio::spawn(meter.run(output))),
            Pipe::TerminalOutput(pending) => drop(tokio::spawn(async {
                if let Some(master) = opened(pending).await {
                    meter.run(master).await;
                }
            })),
            Pipe::Input(..) | Pipe::TerminalInput(..) => {}
        }
    }

    /// Serves one connection: number, then bytes. Returns when the stream is over.
    pub async fn serve(&self, mut connection: impl AsyncRead + AsyncWrite + AsRawFd + Unpin) {
        let number = match timeout(NUMBER_LIMIT, connection.read_u32_le()).await {
            Ok(Ok(number)) => number,
            _ => return warn!(self.log, "a stream connection named no stream"),
        };
        match self.take(number) {
            None => warn!(self.log, "a stream connection named a stream that is not offered"; "stream" => number),
            Some(Pipe::Input(pipe, ingress)) => input(connection, pipe, &ingress).await,
            Some(Pipe::Output(pipe)) => output(pipe, connection).await,
            Some(Pipe::TerminalInput(pending, ingress)) => {
                if let Some(master) = opened(pending).await {
                    input(connection, master, &ingress).await;
                }
            }
            Some(Pipe::TerminalOutput(pending)) => {
                if let Some(master) = opened(pending).await {
                    output(master, connection).await;
                }
            }
        }
        debug!(self.log, "stream ended"; "stream" => number);
    }

    fn take(&self, number: u32) -> Option<Pipe> {
        self.lock().pipes.remove(&number)
    }

    fn lock(&self) -> MutexGuard<'_, Offered> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where stream connections come from: vsock in the guest, a Unix socket in tests.
#[async_trait::async_trait]
pub trait StreamListener: Send + Sync {
    /// What a connection is.
    type Connection: AsyncRead + AsyncWrite + AsRawFd + Send + Unpin + 'static;

    /// The next connection.
    async fn accept(&self) -> io::Result<Self::Connection>;
}

#[async_trait::async_trait]
impl StreamListener for tokio_vsock::VsockListener {
    type Connection = tokio_vsock::VsockStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        Ok(tokio_vsock::VsockListener::accept(self).await?.0)
    }
}

/// Serves connections for ever, at most [`MAX_CONNECTIONS`] at once: one more is closed, not kept waiting.
pub async fn listen(listener: impl StreamListener, streams: Streams) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok(connection) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    warn!(streams.log, "too many stream connections"; "limit" => MAX_CONNECTIONS);
                    continue;
                };
                let streams = streams.clone();
                tokio::spawn(async move {
                    streams.serve(connection).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(streams.log, "accepting a stream connection failed"; "error" => %error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The terminal, as soon as its process has started; `None` when it never will.
async fn opened(mut pending: Pending) -> Option<Master> {
    pending.wait_for(Option::is_some).await.ok()?.clone()
}

/// Copies while the ingress is open; what comes while it is shut waits, at most a chunk here and the rest with the host. An end is
/// passed on at any time.
async fn input(mut connection: impl AsyncRead + Unpin, mut pipe: impl AsyncWrite + Unpin, ingress: &Ingress) {
    let mut buffer = vec![0; CHUNK];
    // Either side may end it at any time; dropping a pipe is the container's end of file, a terminal has none.
    while let Ok(count @ 1..) = connection.read(&mut buffer).await {
        ingress.opened().await;
        if pipe.write_all(buffer.get(..count).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}

/// Copies until the last writer is gone, then closes, so that nothing that was printed is lost.
async fn output(mut pipe: impl AsyncRead + Unpin, mut connection: impl AsyncRead + AsyncWrite + AsRawFd + Unpin) {
    let mut sent: u64 = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let chunk = buffer.get(..count).unwrap_or_default();
        if connection.write_all(chunk).await.is_err() {
            return discard(pipe).await;
        }
        sent = sent.saturating_add(count.try_into().unwrap_or(u64::MAX));
    }
    drop((buffer, pipe));
    end(connection, sent).await;
}

/// Ends a connection so that a host that reads late still reads all.
///
/// vhost-device-vsock tells the host of no half-close, so both directions are ended. But what it holds itself, because the
/// host does not read, is lost 8 s after our descriptor is closed: the kernel then resets the connection. Short streams fit
/// into the host's socket whatever it does. After long ones the descriptor stays for a while, and the end is said again and
/// again: the device passes it on when it holds nothing any more.
async fn end(mut connection: impl AsyncRead + AsyncWrite + AsRawFd + Unpin, sent: u64) {
    let farewell = async {
        connection.shutdown().await?;
        copy(&mut connection, &mut sink()).await
    };
    let over = timeout(FAREWELL_LIMIT, farewell).await.is_ok();
    if over || sent <= ALWAYS_FITS {
        return;
    }
    let deadline = Instant::now() + HOLD_LIMIT;
    let mut pause = FAREWELL_LIMIT;
    while Instant::now() < deadline && shutdown(connection.as_raw_fd(), Shutdown::Both).is_ok() {
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

async fn discard(mut pipe: impl AsyncRead + Unpin) {
    let _ = copy(&mut pipe, &mut sink()).await;
}

/// How long a pipe waits for the host.
pub const CLAIM_LIMIT: Duration = Duration::from_secs(60);

/// Stream connections at once: three for each of some hundreds of processes. Each takes a buffer of `CHUNK` bytes.
pub const MAX_CONNECTIONS: usize = 2048;

/// From connecting to the number.
const NUMBER_LIMIT: Duration = Duration::from_secs(5);

/// From our end of file to the host's.
const FAREWELL_LIMIT: Duration = Duration::from_millis(50);

/// How long a long stream's end is said to a host that does not read.
const HOLD_LIMIT: Duration = Duration::from_secs(300);

/// Between two such sayings.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Bytes that a host's socket takes without being read; the default is some 200 KiB.
const ALWAYS_FITS: u64 = 64 * 1024;

/// Bytes of one write. Below 32 KiB: vhost-device-vsock 0.3 loses the descriptor of larger packets.
const CHUNK: usize = 16 * 1024;

#[cfg(test)]
mod tests;
