//! The agent's API as the shim uses it.
//!
//! Answers are the guest's and therefore hostile: [`Bounds`] cuts the connection at the first frame that is too long, no answer
//! or not asked for, and this module bounds and cleans what is in the others.
//! Every call has a deadline but three, which end with the VM: [`Agent::start_process`] (images and models are pulled
//! then), [`Agent::wait_process`] and [`Agent::next_event`]. The VM's supervisor asks for signs of life ([`Agent::ping`]) all
//! the while and ends a VM that gives none, so that these three end as well. A refusal keeps the gRPC code that the agent gave it.

mod container;
mod frames;
mod process;

use std::fmt;
use std::time::{Duration, SystemTime};

use cella_protos::agent as wire;
use cella_protos::agent_ttrpc::AgentClient;
use cella_protos::{AGENT_PORT, STREAM_PORT};
use protobuf::Enum;
use tokio::io::AsyncWriteExt;
use ttrpc::Code;
use ttrpc::context::{Context, with_timeout};

pub use container::{GuestEvent, GuestEventKind, MAX_PROCESSES};
pub use frames::{Bounds, FrameError, MAX_ANSWER};

use self::frames::Frames;
use crate::untrusted::{MAX_MESSAGE, printable};
use crate::vsock::{Stream, Transport, VsockError};

/// For calls that the agent answers from what it knows.
const QUICK: Duration = Duration::from_secs(10);
/// A connection to an agent.
#[derive(Clone)]
pub struct Agent {
    client: AgentClient,
}

/// The agent's first answer, cleaned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// For logs.
    pub version: String,
    /// SHA-256 of the initdata that it obeys.
    pub initdata_digest: [u8; 32],
}

/// A process in the guest, by containerd's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessId {
    /// The container.
    pub container: String,
    /// The exec; empty for the container's own process.
    pub exec: String,
}

impl ProcessId {
    /// The container's own process.
    pub fn first(container: &str) -> Self {
        Self::exec(container, "")
    }

    /// A further process.
    pub fn exec(container: &str, exec: &str) -> Self {
        Self {
            container: container.to_owned(),
            exec: exec.to_owned(),
        }
    }

    /// Whether it is a further process.
    pub fn is_exec(&self) -> bool {
        !self.exec.is_empty()
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_exec() {
            write!(f, "exec {:?} of container {:?}", self.exec, self.container)
        } else {
            write!(f, "container {:?}", self.container)
        }
    }
}

/// Stream numbers of a process's pipes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pipes {
    /// Where stdin goes.
    pub stdin: Option<u32>,
    /// Where stdout comes from; none where the policy keeps it in the guest.
    pub stdout: Option<u32>,
    /// Where stderr comes from; likewise.
    pub stderr: Option<u32>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitInfo {
    /// 128 + signal when killed.
    pub status: u32,
    /// By the guest's clock, replaced by the host's where that makes no sense.
    pub at: SystemTime,
}

/// What the agent says about a process that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub exit: ExitInfo,
    /// Whether a process of the container was killed for want of memory.
    pub out_of_memory: bool,
    /// What it left in its termination log, cut to what Kubernetes takes.
    pub termination_message: Vec<u8>,
}

impl ExitInfo {
    /// An end that the host decided, now.
    pub fn now(status: u32) -> Self {
        Self {
            status,
            at: SystemTime::now(),
        }
    }
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// No connection.
    #[error("cannot reach the agent")]
    Connect {
        /// Why not.
        #[source]
        source: VsockError,
    },
    /// The agent says no; its words, made printable. Most often a denial by the policy.
    #[error("{message}")]
    Refused {
        /// The gRPC code.
        code: Code,
        /// What the agent says.
        message: String,
    },
    /// No answer in time.
    #[error("the agent did not answer {call} in time")]
    Timeout {
        /// The call.
        call: &'static str,
    },
    /// The connection broke or carried something else than ttrpc.
    #[error("the connection to the agent failed during {call}")]
    Broken {
        /// The call.
        call: &'static str,
        /// Why.
        #[source]
        source: Box<ttrpc::Error>,
    },
    /// An answer that no honest agent gives.
    #[error("the agent's answer to {call} is invalid: {what}")]
    Invalid {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Agent {
    /// Connects and says hello, both within `deadline`.
    ///
    /// # Errors
    /// See [`AgentError`]. Until the agent listens, [`AgentError::Connect`].
    pub async fn connect(transport: &dyn Transport, deadline: Duration) -> Result<(Self, Hello), AgentError> {
        let start = tokio::time::Instant::now();
        let stream = transport
            .connect(AGENT_PORT, deadline)
            .await
            .map_err(|source| AgentError::Connect { source })?;
        let socket = ttrpc::asynchronous::transport::Socket::new(Frames::new(stream));
        let agent = Self {
            client: AgentClient::new(ttrpc::asynchronous::Client::new(socket)),
        };
        let left = deadline.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
        let request = wire::HelloRequest::new();
        let answer = bounded("Hello", left, agent.client.hello(within(left), &request)).await?;
        let initdata_digest = answer
            .initdata_digest
            .as_slice()
            .try_into()
            .map_err(|_| AgentError::Invalid {
                call: "Hello",
                what: "the digest has not 32 bytes",
            })?;
        Ok((
            agent,
            Hello {
                version: printable(&answer.agent_version, 64),
                initdata_digest,
            },
        ))
    }

    /// Hands over addresses and routes.
    ///
    /// # Errors
    /// See [`AgentError`]; 10 s at most.
    pub async fn configure_network(&self, request: &wire::ConfigureNetworkRequest) -> Result<(), AgentError> {
        let call = self.client.configure_network(within(QUICK), request);
        bounded("ConfigureNetwork", QUICK, call).await.map(drop)
    }

    /// Takes a pipe's stream; each may be taken once.
    ///
    /// # Errors
    /// See [`AgentError`]; 10 s at most.
    pub async fn open_pipe(transport: &dyn Transport, number: u32) -> Result<Box<dyn Stream>, AgentError> {
        let connect = |source| AgentError::Connect { source };
        let mut stream = transport.connect(STREAM_PORT, QUICK).await.map_err(connect)?;
        let io = |source| {
            connect(VsockError::Connect {
                port: STREAM_PORT,
                source,
            })
        };
        stream.write_all(&number.to_le_bytes()).await.map_err(io)?;
        stream.flush().await.map_err(io)?;
        Ok(stream)
    }

    /// A sign of life, within `deadline`. What it says was checked when the VM came up.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn ping(&self, deadline: Duration) -> Result<(), AgentError> {
        let request = wire::HelloRequest::new();
        bounded("Hello", deadline, self.client.hello(within(deadline), &request))
            .await
            .map(drop)
    }

    /// What the agent says of itself, within `deadline`.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn status(&self, deadline: Duration) -> Result<wire::StatusResponse, AgentError> {
        let request = wire::StatusRequest::new();
        bounded("Status", deadline, self.client.status(within(deadline), &request)).await
    }

    /// Asks the guest to zero model memory and power off, within `deadline`. A connection that ends instead of an answer is a
    /// success.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), AgentError> {
        let request = wire::ShutdownRequest::new();
        match bounded("Shutdown", deadline, self.client.shutdown(within(deadline), &request)).await {
            Ok(_) | Err(AgentError::Broken { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What the agent is told of a deadline: much more than is waited. It goes by its own clock, which the host does not set, and which was seen to run
/// several times too fast where a busy host translated the guest; [`bounded`] goes by this host's.
fn within(deadline: Duration) -> Context {
    let told = deadline * 10;
    with_timeout(i64::try_from(told.as_nanos()).unwrap_or(i64::MAX))
}

/// The answer to `call`, within `deadline`.
async fn bounded<T>(
    name: &'static str,
    deadline: Duration,
    call: impl Future<Output = ttrpc::Result<T>>,
) -> Result<T, AgentError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer.map_err(|error| failure(name, error)),
        Err(_) => Err(AgentError::Timeout { call: name }),
    }
}

fn failure(call: &'static str, error: ttrpc::Error) -> AgentError {
    match error {
        ttrpc::Error::RpcStatus(status) => {
            let code = Code::from_i32(status.code.value()).unwrap_or(Code::UNKNOWN);
            match code {
                Code::DEADLINE_EXCEEDED => AgentError::Timeout { call },
                code => AgentError::Refused {
                    code,
                    message: printable(&status.message, MAX_MESSAGE),
                },
            }
        }
        source => AgentError::Broken {
            call,
            source: Box::new(source),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_keep_their_code_and_lose_control_characters() {
        let error = failure(
            "CreateContainer",
            ttrpc::Error::RpcStatus(ttrpc::get_status(Code::PERMISSION_DENIED, "policy denies\nx")),
        );
        let AgentError::Refused {
            code: Code::PERMISSION_DENIED,
            message,
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!(message, "policy denies?x");
        let long = failure(
            "x",
            ttrpc::Error::RpcStatus(ttrpc::get_status(Code::INTERNAL, "y".repeat(1 << 20))),
        );
        let AgentError::Refused { message, .. } = long else {
            panic!()
        };
        assert!(message.len() <= MAX_MESSAGE + "…".len());
    }

    #[test]
    fn deadlines_and_broken_connections_are_told_apart() {
        let late = ttrpc::Error::RpcStatus(ttrpc::get_status(Code::DEADLINE_EXCEEDED, "x"));
        assert!(matches!(failure("Hello", late), AgentError::Timeout { call: "Hello" }));
        assert!(matches!(
            failure("Hello", ttrpc::Error::RemoteClosed),
            AgentError::Broken { call: "Hello", .. }
        ));
    }
}
