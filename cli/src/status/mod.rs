//! `cellactl status`: how far a guest is and what it holds, from the agent's own account.
//!
//! The agent is asked over the machine's vsock: the kernel's, or one that ends in a Unix socket of the VMM (hybrid vsock) on
//! the host. What it answers is the guest's word: evidence that can be verified comes from the ingress, not from here.

mod connect;
mod json;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use cella_protos::agent::{StatusRequest, StatusResponse};
use cella_protos::agent_ttrpc::AgentClient;
use ttrpc::r#async::{Client, transport::Socket};

pub(crate) use self::connect::ConnectError;
use crate::node::{NodeArgs, NodeError, Pod};

/// `cellactl status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    target: Target,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// Whose agent is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The pod on this node: its name, namespace/name, sandbox id or the beginning of it.
    #[arg(required_unless_present = "vsock")]
    pod: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
    /// In place of a pod: the VMM's Unix socket for the machine's vsock.
    #[arg(long, value_name = "SOCKET", conflicts_with = "pod")]
    vsock: Option<PathBuf>,
    /// Port of the agent, with --vsock.
    #[arg(long, default_value_t = cella_protos::AGENT_PORT)]
    port: u32,
}

/// Asks once.
pub(crate) async fn run(args: &StatusArgs) -> Result<String, StatusError> {
    let status = args.target.ask(StatusRequest::new()).await?;
    Ok(if args.json {
        json::render(&status)
    } else {
        table::render(&status)
    })
}

impl Target {
    /// Asks the agent for its status.
    pub(crate) async fn ask(&self, request: StatusRequest) -> Result<StatusResponse, StatusError> {
        let agent = match (&self.vsock, &self.pod) {
            (Some(socket), _) => client(connect::connect(socket, self.port).await?),
            (None, pod) => agent_of(&self.node.pod(pod.as_deref().unwrap_or_default())?).await?,
        };
        let context = ttrpc::context::with_duration(TIMEOUT);
        let status = agent.status(context, &request).await;
        status.map_err(|source| StatusError::Agent {
            source: Box::new(source),
        })
    }
}

/// The agent of a pod on this node.
pub(crate) async fn agent_of(pod: &Pod) -> Result<AgentClient, ConnectError> {
    match pod.state.as_ref().ok().and_then(|state| state.cid) {
        Some(cid) => Ok(client(connect::connect_kernel(cid, cella_protos::AGENT_PORT).await?)),
        None => Ok(client(
            connect::connect(&pod.dir.join("vsock"), cella_protos::AGENT_PORT).await?,
        )),
    }
}

fn client(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Sync + 'static) -> AgentClient {
    AgentClient::new(Client::new(Socket::new(stream)))
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StatusError {
    /// No such pod.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The way to the agent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The agent itself.
    #[error("the agent does not answer")]
    Agent { source: Box<ttrpc::Error> },
}

const TIMEOUT: Duration = Duration::from_secs(10);
