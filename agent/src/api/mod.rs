//! The agent's API on vsock, for a host that is not trusted with anything.
//!
//! `service` does what the requests ask (`pod`: those about the pod), `refusal` answers all of them when the guest refuses to serve, `convert` turns
//! messages into the policy's and our own types, `error` maps failures to ttrpc codes: one function, and no cause chain
//! goes out but as one printable line.

mod convert;
mod error;
mod pod;
mod refusal;
mod service;
mod stats;
mod status;

use std::{sync::Arc, time::Duration};

use cella_protos::{AGENT_PORT, FORWARD_PORT, STREAM_PORT, agent_ttrpc};
use slog::{Logger, info};
use tokio::sync::Notify;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};
use ttrpc::asynchronous::Server;

pub use error::{ApiError, one_line};
pub use refusal::RefusingAgent;
pub use service::AgentService;

use crate::{
    boot::{BootError, BootInfo},
    container::Containers,
    forward::{self, Forwarder},
    stage::StageLog,
    stream,
};

/// What boot came to.
pub enum Outcome {
    /// A pod can be served.
    Ready {
        /// What to obey.
        boot: Arc<BootInfo>,
        /// Where its containers go.
        containers: Containers,
        /// What has been done so far.
        stages: StageLog,
    },
    /// No pod is served, and the host is told why.
    Refused(BootError),
}

/// Serves until the guest has to end: after a Shutdown, or after a fatal refusal was told or nobody asked for it.
pub async fn serve(outcome: Outcome, log: Logger) -> Result<(), ServeError> {
    let end = Arc::new(Notify::new());
    let (service, limit): (Arc<dyn agent_ttrpc::Agent + Send + Sync>, _) = match outcome {
        Outcome::Ready {
            boot,
            containers,
            stages,
        } => {
            let listener =
                VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, STREAM_PORT)).map_err(ServeError::Streams)?;
            tokio::spawn(stream::listen(listener, containers.streams().clone()));
            let listener =
                VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, FORWARD_PORT)).map_err(ServeError::Forwarding)?;
            let events = containers.pod().events().clone();
            let ingress = containers.ingress().clone();
            let forwarder = Forwarder::new(boot.policy.pod().clone(), ingress, events, log.clone());
            tokio::spawn(forward::listen(listener, forwarder));
            let service = AgentService::new(boot, containers, stages, Arc::clone(&end), log.clone());
            (Arc::new(service), None)
        }
        Outcome::Refused(refusal) => {
            let limit = refusal.is_fatal().then_some(REFUSAL_LIMIT);
            (Arc::new(RefusingAgent::new(&refusal, Arc::clone(&end))), limit)
        }
    };
    let mut server = Server::new()
        .bind(&format!("vsock://-1:{AGENT_PORT}"))
        .map_err(ServeError::Rpc)?
        .register_service(agent_ttrpc::create_agent(service));
    server.start().await.map_err(ServeError::Rpc)?;
    info!(log, "agent ready"; "port" => AGENT_PORT);
    match limit {
        None => end.notified().await,
        // Whoever asks first ends the wait; nobody has to.
        Some(limit) => drop(tokio::time::timeout(limit, end.notified()).await),
    }
    // The answer is on its way to the host.
    tokio::time::sleep(ANSWER_LIMIT).await;
    info!(log, "agent ending");
    Ok(())
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The API's port.
    #[error("opening vsock port {AGENT_PORT} failed")]
    Rpc(#[source] ttrpc::Error),
    /// The streams' port.
    #[error("opening vsock port {STREAM_PORT} failed")]
    Streams(#[source] std::io::Error),
    /// The forwarded ports' port.
    #[error("opening vsock port {FORWARD_PORT} failed")]
    Forwarding(#[source] std::io::Error),
}

/// How long a guest that will not serve waits to be asked why.
const REFUSAL_LIMIT: Duration = Duration::from_secs(10);

/// From an answer's writing to its arrival at the host.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);
