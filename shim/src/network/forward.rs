//! `crictl port-forward`: from the loopback of the pod's namespace into the guest.
//!
//! containerd connects to `localhost:<port>` inside the namespace, where nothing of the pod runs. The rule of [`nat`] sends
//! the connection to a listener here, which asks the kernel for the port that was meant, connects to vsock port 1026 and says
//! it; the agent answers one byte and from then on bytes are copied both ways, each way ended on its own. Whether the guest
//! takes the port is the policy's to say; a connection that it does not take is reset.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use cella_protos::FORWARD_PORT;
use rustix::net::sockopt;
use slog::{Logger, debug, warn};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::error::NetworkError;
use super::nat;
use super::netlink::Netlink;
use crate::vsock::{Stream, Transport, VsockError};

/// Connections of one pod at once; further ones are reset.
const MAX_CONNECTIONS: usize = 128;
/// For the guest to take or refuse a connection.
const ANSWER: Duration = Duration::from_secs(10);
/// After an accept that failed, which is the host's lack of descriptors.
const RETRY: Duration = Duration::from_millis(100);
/// For each direction of each connection, in bytes.
const BUFFER: usize = 16 * 1024;

/// Listeners on the pod's loopback, and the rule that leads to them. Dropped, nothing is left of either.
#[derive(Debug)]
pub struct Listeners {
    v4: StdListener,
    v6: Option<StdListener>,
    /// Owns the nftables table.
    _table: Netlink,
}

/// Serves a pod's connections until it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    task: JoinHandle<()>,
}

/// A connection that the guest did not take.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("the port that was meant is not known")]
    NoPort(#[source] rustix::io::Errno),
    #[error("the guest cannot be reached")]
    Vsock(#[from] VsockError),
    #[error("the guest ended the connection")]
    Ended(#[source] io::Error),
    #[error("the guest did not answer within {ANSWER:?}")]
    Silent,
    #[error("the guest refuses the port (answer {0})")]
    Refused(u8),
}

impl Listeners {
    /// Listens in the network namespace of the calling thread and makes the rule.
    ///
    /// # Errors
    /// No IPv4 loopback, or no nftables in the kernel.
    pub(super) fn open() -> Result<Self, NetworkError> {
        let listen = |address| {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let port = listener.local_addr()?.port();
            Ok((listener, port))
        };
        let (v4, port_v4) = listen((Ipv4Addr::LOCALHOST, 0).into()).map_err(NetworkError::Listen)?;
        // A namespace may have no IPv6.
        let v6: io::Result<_> = listen(std::net::SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
        let (v6, port_v6) = v6.ok().unzip();
        let mut table = Netlink::netfilter()?;
        let forwarding = |source| NetworkError::Forwarding { source };
        nat::remove(&mut table).map_err(forwarding)?;
        nat::install(&mut table, port_v4, port_v6).map_err(forwarding)?;
        Ok(Self { v4, v6, _table: table })
    }
}

impl Forwarder {
    /// Starts serving.
    ///
    /// # Errors
    /// The listeners cannot be given to the runtime.
    pub fn start(listeners: Listeners, transport: Arc<dyn Transport>, log: Logger) -> io::Result<Self> {
        let v4 = TcpListener::from_std(listeners.v4)?;
        let v6 = listeners.v6.map(TcpListener::from_std).transpose()?;
        let table = listeners._table;
        let task = tokio::spawn(async move {
            // Owned by the task: the rule goes with the listeners.
            let _table = table;
            serve(v4, v6, transport, log).await;
        });
        Ok(Self { task })
    }

    /// Ends every connection and waits until the listeners are closed and the rule is gone.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(v4: TcpListener, v6: Option<TcpListener>, transport: Arc<dyn Transport>, log: Logger) {
    // Aborted with this task.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = v4.accept() => accepted.map(|(stream, _)| (port_v4(&stream), stream)),
            accepted = accept(v6.as_ref()) => accepted.map(|stream| (port_v6(&stream), stream)),
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((_, stream)) if connections.len() >= MAX_CONNECTIONS => {
                warn!(log, "a forwarded connection is reset: there are too many"; "limit" => MAX_CONNECTIONS);
                reset(stream);
            }
            Ok((port, stream)) => {
                connections.spawn(forward(port, stream, transport.clone(), log.clone()));
            }
            Err(error) => {
                warn!(log, "a forwarded connection was not accepted"; "error" => %error);
                sleep(RETRY).await;
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

fn port_v4(stream: &TcpStream) -> Result<u16, rustix::io::Errno> {
    sockopt::ip_original_dst(stream).map(|address| address.port())
}

fn port_v6(stream: &TcpStream) -> Result<u16, rustix::io::Errno> {
    sockopt::ipv6_original_dst(stream).map(|address| address.port())
}

async fn forward(
    port: Result<u16, rustix::io::Errno>,
    mut stream: TcpStream,
    transport: Arc<dyn Transport>,
    log: Logger,
) {
    let opened = async {
        let port = port.map_err(ForwardError::NoPort)?;
        open(transport.as_ref(), port).await
    };
    match opened.await {
        Ok(mut guest) => {
            // Either end may break it off; that is theirs to explain.
            let ended = copy_bidirectional_with_sizes(&mut stream, &mut guest, BUFFER, BUFFER).await;
            debug!(log, "a forwarded connection ended"; "port" => ?port, "result" => ?ended);
            if ended.is_err() {
                reset(stream);
            }
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            warn!(log, "a forwarded connection is reset"; "port" => ?port, "error" => %error, "cause" => cause);
            reset(stream);
        }
    }
}

/// A stream to a TCP port of the pod's loopback in the guest.
async fn open(transport: &dyn Transport, port: u16) -> Result<Box<dyn Stream>, ForwardError> {
    let mut guest = transport.connect(FORWARD_PORT, ANSWER).await?;
    let mut answer = [0];
    let asked = async {
        guest.write_all(&port.to_le_bytes()).await?;
        guest.flush().await?;
        guest.read_exact(&mut answer).await
    };
    let answered = timeout(ANSWER, asked).await.map_err(|_| ForwardError::Silent)?;
    answered.map_err(ForwardError::Ended)?;
    match answer {
        [0] => Ok(guest),
        [other] => Err(ForwardError::Refused(other)),
    }
}

/// Closes so that the client sees an error, not the end of an empty answer.
fn reset(stream: TcpStream) {
    let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
}
