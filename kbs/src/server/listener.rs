//! Connections: accepted, bounded in number and in time, and closed.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use slog::{debug, warn};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::{Shared, endpoint};

/// Before accepting again when the system has no room for another socket.
const BACKOFF: Duration = Duration::from_millis(100);
/// Bytes of a request's headers.
const MAX_HEADERS: usize = 16 * 1024;

/// Accepts until told to stop; then waits for the connections.
pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>, bound: usize, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(bound));
    let mut connections = JoinSet::new();
    loop {
        // Cancel safe: a permit or a connection that was not taken stays where it is.
        let accept = async {
            let permit = room.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = told(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accept => match accepted {
                Ok((stream, peer)) => {
                    let (shared, stop) = (shared.clone(), stop.clone());
                    connections.spawn(async move {
                        let _permit = permit;
                        serve(stream, peer, shared, stop).await;
                    });
                }
                Err(error) => {
                    warn!(shared.log, "accepting failed"; "error" => %error);
                    sleep(BACKOFF).await;
                }
            },
        }
    }
    drop(listener);
    // Each ends within the deadline for that: `serve` sees the same signal.
    while connections.join_next().await.is_some() {}
}

/// Waits until told to stop, or until nobody is left who could tell. Cancel safe.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _gone = stop.wait_for(|stop| *stop).await.is_err();
}

/// One connection, from handshake to end.
async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let deadlines = shared.deadlines;
    // Before the handshake, which costs the broker more than the peer.
    let Some(place) = shared.sources.connect(peer.ip(), shared.clock.uptime()) else {
        return debug!(shared.log, "too many connections of one source"; "peer" => peer.to_string());
    };
    let log = shared.log.new(slog::o!("peer" => peer.to_string()));
    let handshake = timeout(
        deadlines.handshake,
        TlsAcceptor::from(shared.tls.clone()).accept(stream),
    );
    let stream = tokio::select! {
        () = told(&mut stop) => return,
        done = handshake => match done {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(log, "TLS handshake failed"; "error" => %error),
            Err(_) => return debug!(log, "TLS handshake took too long"),
        },
    };
    let service = service_fn(|request| endpoint::answer(shared.clone(), request, &place, log.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(deadlines.headers)
        .max_header_size(MAX_HEADERS)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        () = told(&mut stop) => {}
        () = sleep(deadlines.connection) => {}
        done = connection.as_mut() => {
            if let Err(error) = done {
                debug!(log, "connection failed"; "error" => %error);
            }
            return;
        }
    }
    connection.as_mut().graceful_shutdown();
    if timeout(deadlines.drain, connection).await.is_err() {
        debug!(log, "connection did not end in time");
    }
}
