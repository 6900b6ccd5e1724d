//! `cellactl status`: how far a guest is and what it holds, from the agent's own account.
//!
//! The agent is asked over the machine's vsock, which ends in a Unix socket of the VMM (hybrid vsock) on the host. What it
//! answers is the guest's word: evidence that can be verified comes from the ingress, not from here.

mod connect;
mod json;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use cella_protos::agent::{StatusRequest, StatusResponse};
use cella_protos::agent_ttrpc::AgentClient;
use ttrpc::r#async::{Client, transport::Socket};

use self::connect::ConnectError;

/// `cellactl status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// The VMM's Unix socket for the machine's vsock.
    #[arg(long, value_name = "SOCKET")]
    vsock: PathBuf,
    /// Port of the agent.
    #[arg(long, default_value_t = cella_protos::AGENT_PORT)]
    port: u32,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// Asks once.
pub(crate) async fn run(args: &StatusArgs) -> Result<String, StatusError> {
    let status = fetch(args).await?;
    Ok(if args.json {
        json::render(&status)
    } else {
        table::render(&status)
    })
}

async fn fetch(args: &StatusArgs) -> Result<StatusResponse, StatusError> {
    let stream = connect::connect(&args.vsock, args.port).await?;
    let agent = AgentClient::new(Client::new(Socket::new(stream)));
    let context = ttrpc::context::with_duration(TIMEOUT);
    agent
        .status(context, &StatusRequest::new())
        .await
        .map_err(|source| StatusError::Agent {
            source: Box::new(source),
        })
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StatusError {
    /// The way to the agent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The agent itself.
    #[error("the agent does not answer")]
    Agent { source: Box<ttrpc::Error> },
}

const TIMEOUT: Duration = Duration::from_secs(10);
