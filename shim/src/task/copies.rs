//! The copies between containerd's fifos or files and the guest's streams.
//!
//! One task and one buffer a pipe, so the memory is bounded however much flows, and a reader that stops reading stops its
//! writer and nothing else. No open waits for the other end: the shim holds each fifo open at both ends itself, whence an
//! output outlives a restart of containerd, and an input ends only when CloseIO has let go of that hold and containerd's
//! writer has gone, with everything delivered that was written first.
//!
//! When containerd deletes a process, the rest of its output still goes to whoever has the fifo open, however slowly they
//! read ([`Copies::let_go`]): only where there is no reader any more, or where the guest has nothing more to say, does it end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slog::{Logger, debug, o, warn};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::stdio::Place;

/// The buffer of one output.
const OUTPUT_BUFFER: usize = 32 * 1024;
/// How long the guest may pause within the output of a process that was deleted. A process that left children behind, which
/// hold its output open, pauses for ever.
const REST: Duration = Duration::from_secs(5);
/// The buffer of one input.
const INPUT_BUFFER: usize = 8 * 1024;

/// One process's copies.
pub struct Copies {
    outputs: TaskTracker,
    inputs: TaskTracker,
    cancel_outputs: CancellationToken,
    cancel_inputs: CancellationToken,
    course: Course,
    hold: Mutex<Hold>,
    log: Logger,
}

/// How a process's outputs go.
#[derive(Clone, Default)]
struct Course {
    /// Cancelled when the process is deleted.
    deleted: CancellationToken,
    /// Bytes that were written so far, of all of them.
    written: Arc<AtomicU64>,
}

/// The shim's own writer on the stdin fifo.
enum Hold {
    /// The copy has not begun.
    Pending,
    /// Kept only to be dropped.
    Open { _writer: File },
    /// CloseIO let go of it, or came before there was anything to hold.
    Released,
}

impl Default for Copies {
    fn default() -> Self {
        Self::new(Logger::root(slog::Discard, o!()))
    }
}

impl Copies {
    /// No copies yet. Their failures are logged to `log`.
    pub fn new(log: Logger) -> Self {
        Self {
            outputs: TaskTracker::new(),
            inputs: TaskTracker::new(),
            cancel_outputs: CancellationToken::new(),
            cancel_inputs: CancellationToken::new(),
            course: Course::default(),
            hold: Mutex::new(Hold::Pending),
            log,
        }
    }

    /// Copies `from` the guest to `place`, until either ends.
    ///
    /// # Errors
    /// The place cannot be opened.
    pub fn output<R>(&self, from: R, place: &Place) -> io::Result<()>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let (cancel, course, log) = (self.cancel_outputs.clone(), self.course.clone(), self.log.clone());
        match place {
            Place::Fifo(path) => {
                let reader = hold(path, OpenOptions::new().read(true))?;
                let fifo = pipe::OpenOptions::new().open_sender(path)?;
                self.outputs.spawn(async move {
                    let from = BufReader::with_capacity(OUTPUT_BUFFER, from);
                    let deleted = course.deleted.clone();
                    let copied = copy(cancel, course, from, fifo, &log);
                    tokio::pin!(copied);
                    tokio::select! {
                        () = &mut copied => return,
                        () = deleted.cancelled() => drop(reader),
                    }
                    copied.await;
                });
            }
            Place::File(path) => {
                if let Some(dir) = path.parent() {
                    std::fs::create_dir_all(dir)?;
                }
                let file = OpenOptions::new().create(true).append(true).mode(0o644).open(path)?;
                let file = tokio::fs::File::from_std(file);
                let from = BufReader::with_capacity(OUTPUT_BUFFER, from);
                self.outputs
                    .spawn(async move { copy(cancel, course, from, file, &log).await });
            }
        }
        Ok(())
    }

    /// Copies from the fifo `path` `to` the guest, until [`Copies::close_input`] and the end of containerd's writer.
    ///
    /// # Errors
    /// The fifo cannot be opened.
    pub fn input<W>(&self, path: &Path, to: W) -> io::Result<()>
    where
        W: AsyncWrite + Send + Unpin + 'static,
    {
        // For reading as well, so that it cannot fail for want of a reader; it bridges the time until the hold is in place.
        let bridge = hold(path, OpenOptions::new().read(true).write(true))?;
        let fifo = pipe::OpenOptions::new().open_receiver(path)?;
        let writer = hold(path, OpenOptions::new().write(true))?;
        drop(bridge);
        {
            let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(*hold, Hold::Released) {
                *hold = Hold::Open { _writer: writer };
            }
        }
        let (cancel, log) = (self.cancel_inputs.clone(), self.log.clone());
        let from = BufReader::with_capacity(INPUT_BUFFER, fifo);
        self.inputs
            .spawn(async move { copy(cancel, Course::default(), from, to, &log).await });
        Ok(())
    }

    /// Lets go of the shim's hold on stdin, as CloseIO asks, now or when the copy begins.
    pub fn close_input(&self) {
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = Hold::Released;
    }

    /// Waits until all output is delivered, for up to `patience`; whether it is. The copies go on. No copy may be added any more.
    pub async fn delivered(&self, patience: Duration) -> bool {
        self.outputs.close();
        let delivered = tokio::time::timeout(patience, self.outputs.wait()).await.is_ok();
        if !delivered {
            debug!(self.log, "output is still on its way"; "after-ms" => patience.as_millis());
        }
        delivered
    }

    /// Waits until all output is delivered, or none of it has moved for `pause`, but no longer than `patience`.
    pub async fn settled(&self, pause: Duration, patience: Duration) {
        let settles = async {
            let mut before = None;
            loop {
                let now = self.course.written.load(Ordering::Relaxed);
                if before == Some(now) || self.delivered(pause).await {
                    return;
                }
                before = Some(now);
            }
        };
        let _ = tokio::time::timeout(patience, settles).await;
    }

    /// Lets go of the shim's own hold on the outputs: no reader comes any more who is not there now. Each ends when its reader
    /// goes, or when the guest pauses.
    pub fn let_go(&self) {
        self.course.deleted.cancel();
    }

    /// Ends input at once: there is nobody any more to read it.
    pub async fn end_input(&self) {
        self.close_input();
        self.cancel_inputs.cancel();
        self.inputs.close();
        self.inputs.wait().await;
    }

    /// Ends everything at once and releases the fifos.
    pub async fn abort(&self) {
        self.cancel_outputs.cancel();
        self.outputs.close();
        tokio::join!(self.end_input(), self.outputs.wait());
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.cancel_outputs.cancel();
        self.cancel_inputs.cancel();
    }
}

async fn copy<R, W>(cancel: CancellationToken, course: Course, mut from: BufReader<R>, mut to: W, log: &Logger)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let copied = async {
        loop {
            let bytes = next(&mut from, &course.deleted).await?;
            if bytes.is_empty() {
                break;
            }
            let count = to.write(bytes).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            from.consume(count);
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            course.written.fetch_add(count, Ordering::Relaxed);
        }
        to.flush().await
    };
    let result = tokio::select! {
        () = cancel.cancelled() => return,
        result = copied => result,
    };
    match result {
        Ok(()) => {}
        // How a stream whose other end has gone ends.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            debug!(log, "a pipe was closed at its other end"; "error" => %error);
        }
        Err(error) => warn!(log, "a pipe broke"; "error" => %error),
    }
}

/// The next bytes; none at the end, or when the process was deleted and its output rests.
async fn next<'a, R: AsyncRead + Unpin>(
    from: &'a mut BufReader<R>,
    deleted: &CancellationToken,
) -> io::Result<&'a [u8]> {
    let rests = async {
        deleted.cancelled().await;
        tokio::time::sleep(REST).await;
    };
    tokio::select! {
        biased;
        bytes = from.fill_buf() => bytes,
        () = rests => Ok(&[]),
    }
}

/// Opens the fifo at `path` without waiting for its other end.
fn hold(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    options.custom_flags(nonblocking).open(path)
}

#[cfg(test)]
mod tests;
