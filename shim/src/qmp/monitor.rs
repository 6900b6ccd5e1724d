//! The monitor's connection: one task owns the socket, commands reach it over a channel.

use std::collections::HashMap;
use std::time::Duration;

use slog::{Logger, debug, warn};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::codec::{self, Event, LineError, MAX_LINE, Message};

/// How long QEMU may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Most commands under way.
const QUEUE: usize = 8;

type Answer = Result<String, MonitorError>;

/// A connection on which commands can be given. Dropping it closes the socket; QEMU goes on.
#[derive(Debug)]
pub struct Monitor {
    commands: mpsc::Sender<(&'static str, oneshot::Sender<Answer>)>,
    task: JoinHandle<()>,
}

/// A command that was not carried out, or a connection that is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MonitorError {
    /// The socket failed.
    #[error("the QEMU monitor's socket failed")]
    Io {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// QEMU sent what is not QMP.
    #[error("QEMU's monitor sent a malformed line")]
    Line {
        /// What is wrong with it.
        #[source]
        source: LineError,
    },
    /// QEMU does not greet or refuses to negotiate.
    #[error("QEMU's monitor did not greet")]
    NoGreeting,
    /// QEMU says no.
    #[error("QEMU refuses the command {command}: {text}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's words, made printable.
        text: String,
    },
    /// QEMU is silent.
    #[error("QEMU did not answer the command {command} within {ANSWER:?}")]
    Timeout {
        /// The command.
        command: &'static str,
    },
    /// The connection has ended.
    #[error("QEMU's monitor is closed")]
    Closed,
}

impl Monitor {
    /// Greets QEMU on `stream` and starts the task. Events arrive on the receiver, which is never waited for: what does not
    /// fit is logged and dropped.
    ///
    /// # Errors
    /// No greeting within 5 s, or not QMP.
    pub async fn start(stream: UnixStream, log: Logger) -> Result<(Self, mpsc::Receiver<Event>), MonitorError> {
        let (read, mut write) = stream.into_split();
        let mut lines = Lines::new(read);
        let greet = async {
            let Some(Message::Greeting { version }) = lines.next().await? else {
                return Err(MonitorError::NoGreeting);
            };
            send(&mut write, "qmp_capabilities", 1).await?;
            loop {
                match lines.next().await? {
                    Some(Message::Return { .. }) => return Ok(version),
                    Some(Message::Event(_) | Message::Other) => {}
                    _ => return Err(MonitorError::NoGreeting),
                }
            }
        };
        let version = match tokio::time::timeout(ANSWER, greet).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(MonitorError::Timeout {
                    command: "qmp_capabilities",
                });
            }
        };
        debug!(log, "QEMU's monitor is connected"; "version" => version);
        let (commands, requests) = mpsc::channel(QUEUE);
        let (event_sender, events) = mpsc::channel(32);
        let task = tokio::spawn(async move {
            if let Err(error) = (Connection {
                lines,
                write,
                requests,
                event_sender,
                log: log.clone(),
            })
            .run()
            .await
            {
                warn!(log, "QEMU's monitor failed"; "error" => %error);
            }
        });
        Ok((Self { commands, task }, events))
    }

    /// `query-status`: "running", "paused", "guest-panicked", …
    ///
    /// # Errors
    /// See [`MonitorError`]; 5 s at most.
    pub async fn status(&self) -> Answer {
        self.execute("query-status").await
    }

    /// `quit`: QEMU ends at once, without asking the guest. A connection that closes instead of an answer is a success.
    ///
    /// # Errors
    /// See [`MonitorError`]; 5 s at most.
    pub async fn quit(&self) -> Result<(), MonitorError> {
        match self.execute("quit").await {
            Ok(_) | Err(MonitorError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn execute(&self, command: &'static str) -> Answer {
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            self.commands
                .send((command, answer))
                .await
                .map_err(|_| MonitorError::Closed)?;
            answered.await.map_err(|_| MonitorError::Closed)?
        };
        tokio::time::timeout(ANSWER, exchange)
            .await
            .unwrap_or(Err(MonitorError::Timeout { command }))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Connection {
    lines: Lines,
    write: OwnedWriteHalf,
    requests: mpsc::Receiver<(&'static str, oneshot::Sender<Answer>)>,
    event_sender: mpsc::Sender<Event>,
    log: Logger,
}

impl Connection {
    /// Ends with the socket, with an error, or when the [`Monitor`] is gone.
    async fn run(mut self) -> Result<(), MonitorError> {
        let mut waiting: HashMap<u64, (&'static str, oneshot::Sender<Answer>)> = HashMap::new();
        let mut next_id = 2;
        // `Lines::next` keeps a partial line in its buffer, so dropping it in the select loses nothing.
        loop {
            tokio::select! {
                message = self.lines.next() => match message? {
                    None => return Ok(()),
                    Some(Message::Return { id, status }) => {
                        if let Some((_, answer)) = waiting.remove(&id) {
                            let _ = answer.send(Ok(status));
                        }
                    }
                    Some(Message::Error { id, text }) => {
                        if let Some((command, answer)) = waiting.remove(&id) {
                            let _ = answer.send(Err(MonitorError::Refused { command, text }));
                        }
                    }
                    Some(Message::Event(event)) => {
                        debug!(self.log, "QEMU reports an event"; "event" => ?event);
                        if self.event_sender.try_send(event).is_err() {
                            warn!(self.log, "an event of QEMU's was dropped: too many");
                        }
                    }
                    Some(Message::Greeting { .. } | Message::Other) => {}
                },
                request = self.requests.recv() => {
                    let Some((command, answer)) = request else { return Ok(()) };
                    // Those who gave up waiting need no entry.
                    waiting.retain(|_, (_, answer)| !answer.is_closed());
                    send(&mut self.write, command, next_id).await?;
                    waiting.insert(next_id, (command, answer));
                    next_id += 1;
                }
            }
        }
    }
}

async fn send(write: &mut OwnedWriteHalf, command: &str, id: u64) -> Result<(), MonitorError> {
    let line = codec::command(command, id);
    match tokio::time::timeout(ANSWER, write.write_all(line.as_bytes())).await {
        Ok(result) => result.map_err(|source| MonitorError::Io { source }),
        Err(_) => Err(MonitorError::Io {
            source: std::io::ErrorKind::TimedOut.into(),
        }),
    }
}

/// Bounded lines. Cancelling `next` keeps what was read of the line.
struct Lines {
    read: BufReader<OwnedReadHalf>,
    partial: Vec<u8>,
}

impl Lines {
    fn new(read: OwnedReadHalf) -> Self {
        Self {
            read: BufReader::with_capacity(4096, read),
            partial: Vec::new(),
        }
    }

    /// The next message; none at the end of the stream.
    async fn next(&mut self) -> Result<Option<Message>, MonitorError> {
        loop {
            let available = self
                .read
                .fill_buf()
                .await
                .map_err(|source| MonitorError::Io { source })?;
            if available.is_empty() {
                return Ok(None);
            }
            let mut parts = available.splitn(2, |byte| *byte == b'\n');
            let head = parts.next().unwrap_or_default();
            let complete = parts.next().is_some();
            let used = head.len() + usize::from(complete);
            if self.partial.len() + head.len() > MAX_LINE {
                return Err(MonitorError::Line {
                    source: LineError::TooLong,
                });
            }
            self.partial.extend_from_slice(head);
            self.read.consume(used);
            if !complete {
                continue;
            }
            let line = std::mem::take(&mut self.partial);
            let line = line.trim_ascii();
            if !line.is_empty() {
                return codec::parse(line)
                    .map(Some)
                    .map_err(|source| MonitorError::Line { source });
            }
        }
    }
}

#[cfg(test)]
mod tests;
