//! The broker over HTTPS: listener, connections, routing, bounds.
//!
//! Whose bytes: anybody's. What a peer can hold is bounded: connections (`limits.connections`, and of one source
//! `limits.connections-per-source`), requests a second, time ([`Deadlines`]),
//! bytes of headers (16 KiB) and of bodies (2 MiB for `/attest`, 64 KiB elsewhere). A connection that breaks a bound is
//! closed, with an answer where HTTP has one.
//!
//! HTTP/1.1 over TLS 1.3 and nothing older, one certificate, no client certificates, no 0-RTT. Nothing is served without TLS.
//!
//! One task accepts and owns all connection tasks; it ends when [`Server::stop`] is called or the `Server` is dropped,
//! after open requests have had 5 s to finish.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use slog::{Logger, error, info};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::broker::{Broker, OpenError};
use crate::clock::Clock;
use crate::config::{Config, Deadlines};
use crate::files::{self, FileError};

mod body;
mod endpoint;
mod listener;
mod metrics;
mod route;
mod sources;
mod tls;

pub use tls::TlsError;

use metrics::Metrics;
use sources::Sources;

/// A running broker.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    listening: JoinHandle<()>,
    broker: Arc<Broker>,
    config: Arc<Config>,
    log: Logger,
}

/// What every connection shares.
struct Shared {
    broker: Arc<Broker>,
    tls: Arc<ServerConfig>,
    deadlines: Deadlines,
    sources: Arc<Sources>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    log: Logger,
}

impl Server {
    /// Opens the broker's files and the port. Writes the address file last: whoever finds it can connect.
    pub async fn start(config: Config, clock: Arc<dyn Clock>, log: Logger) -> Result<Self, StartError> {
        let opening = clock.clone();
        let (tls, broker, config) = tokio::task::spawn_blocking(move || open(config, opening))
            .await
            .map_err(|_| StartError::Panicked)??;

        let fail = |source| StartError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let broker = Arc::new(broker);
        let shared = Arc::new(Shared {
            broker: broker.clone(),
            tls,
            deadlines: config.deadlines,
            sources: Arc::new(Sources::new(
                config.limits.connections_per_source,
                config.limits.requests_per_second,
            )),
            metrics: Metrics::default(),
            clock,
            log: log.clone(),
        });
        let (stop, stopped) = watch::channel(false);
        let listening = tokio::spawn(listener::run(listener, shared, config.limits.connections, stopped));
        let server = Self {
            address,
            stop,
            listening,
            broker,
            config: Arc::new(config),
            log: log.clone(),
        };
        let config = &server.config;
        if let Some(path) = config.address_file.clone() {
            let write = move || files::replace(&path, format!("{address}\n").as_bytes());
            tokio::task::spawn_blocking(write)
                .await
                .map_err(|_| StartError::Panicked)??;
        }
        for root in [&config.simulated_root, &config.tdx.simulated_root]
            .into_iter()
            .flatten()
        {
            let root = root.display().to_string();
            slog::warn!(log, "evidence of a simulated platform is accepted where a rule allows it"; "root" => root);
        }
        info!(log, "cella-kbs listening on https://{address}");
        Ok(server)
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads roots, revocation lists, TDX collateral and reference signers again. If one of them cannot be used, those of before stay, and the log
    /// says so.
    pub async fn reload(&self) {
        let (broker, config) = (self.broker.clone(), self.config.clone());
        match tokio::task::spawn_blocking(move || broker.reload(&config)).await {
            Ok(Ok(collateral)) => info!(self.log, "reloaded"; "tdx-collateral" => collateral),
            Ok(Err(error)) => {
                error!(self.log, "not reloaded: what was read before stays"; "error" => endpoint::chain(&error))
            }
            Err(_) => error!(self.log, "not reloaded: what was read before stays"; "error" => "panicked"),
        }
    }

    /// Stops accepting, lets open requests finish for 5 s, and closes everything.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // It can only have been cancelled, and then it has stopped too.
        self.listening.await.unwrap_or(());
    }
}

/// Reads every file, and removes the address of an earlier run. Blocks.
fn open(config: Config, clock: Arc<dyn Clock>) -> Result<(Arc<ServerConfig>, Broker, Config), StartError> {
    if let Some(path) = &config.address_file {
        files::remove(path)?;
    }
    let tls = tls::load(&config.tls)?;
    let broker = Broker::open(&config, clock)?;
    Ok((tls, broker, config))
}

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The broker's files cannot be used.
    #[error("the broker cannot be opened")]
    Open(#[from] OpenError),
    /// The TLS identity cannot be used.
    #[error("the TLS identity cannot be used")]
    Tls(#[from] TlsError),
    /// The port cannot be opened.
    #[error("listening on {address}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The address file cannot be written.
    #[error("the address file cannot be written")]
    AddressFile(#[from] FileError),
    /// Opening the files panicked.
    #[error("starting failed")]
    Panicked,
}
