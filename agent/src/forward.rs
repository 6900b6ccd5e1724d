//! Connections of the host's to ports of the pod, for `kubectl port-forward`.
//!
//! A peer connects to [`cella_protos::FORWARD_PORT`] and sends a TCP port's number as u16 (little endian). Where the policy
//! lets the host in there, and the pod's ingress is open, the agent connects to the port on the pod's loopback, IPv4 before IPv6, answers one byte 0, and
//! raw bytes flow both ways, each direction ending by itself, and both when the ingress shuts. Otherwise the connection is closed without an answer, and
//! what the policy denied becomes an event. Nothing of the guest's but its programs' own ports can be reached.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use cella_policy::{
    PodPolicy,
    check::{Denial, check_forward},
};
use slog::{Logger, debug, warn};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use crate::{
    pod::{EventKind, Events, Ingress},
    stream::StreamListener,
};

/// What decides about such connections, and who is told.
#[derive(Clone)]
pub struct Forwarder {
    policy: PodPolicy,
    ingress: Ingress,
    events: Events,
    log: Logger,
}

impl Forwarder {
    /// Obeys `policy` and `ingress`; what they deny becomes one of `events`.
    pub fn new(policy: PodPolicy, ingress: Ingress, events: Events, log: Logger) -> Self {
        Self {
            policy,
            ingress,
            events,
            log,
        }
    }

    /// Serves one connection. Returns when it is over.
    pub async fn serve(&self, mut connection: impl AsyncRead + AsyncWrite + Unpin) {
        let port = match timeout(STEP_LIMIT, connection.read_u16_le()).await {
            Ok(Ok(port)) => port,
            _ => return warn!(self.log, "a forwarding connection named no port"),
        };
        if let Err(denial) = self.may_connect(port) {
            let text = denial.to_string();
            warn!(self.log, "request denied"; "request" => "forward", "reason" => &text);
            return self.events.add(EventKind::Denied, "", "", &text);
        }
        let mut target = match connect(port).await {
            Ok(target) => target,
            Err(error) => {
                return warn!(self.log, "nobody listens on a forwarded port"; "port" => port, "error" => %error);
            }
        };
        if !matches!(timeout(STEP_LIMIT, connection.write_all(&[0])).await, Ok(Ok(()))) {
            return;
        }
        // Either side may end it at any time.
        let copied = tokio::select! {
            copied = copy_bidirectional_with_sizes(&mut connection, &mut target, CHUNK, CHUNK) => copied,
            () = self.ingress.shut() => return warn!(self.log, "the ingress shut: forwarding ended"; "port" => port),
        };
        let (sent, received) = copied.unwrap_or_default();
        debug!(self.log, "forwarding ended"; "port" => port, "to pod" => sent, "from pod" => received);
    }
}

impl Forwarder {
    fn may_connect(&self, port: u16) -> Result<(), Denial> {
        check_forward(&self.policy, port)?;
        match self.ingress.shut_because() {
            None => Ok(()),
            Some(missing) => Err(Denial::Shut { port, missing }),
        }
    }
}

/// Serves connections for ever, at most `MAX_CONNECTIONS` at once.
pub async fn listen(listener: impl StreamListener, forwarder: Forwarder) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok(connection) => {
                let forwarder = forwarder.clone();
                tokio::spawn(async move {
                    forwarder.serve(connection).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(forwarder.log, "accepting a forwarding connection failed"; "error" => %error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        match timeout(STEP_LIMIT, TcpStream::connect((address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
    }
    Err(last)
}

/// Forwarded connections at once.
const MAX_CONNECTIONS: usize = 64;

/// From connecting to the port's number, to the pod's program, and to the answer's writing.
const STEP_LIMIT: Duration = Duration::from_secs(5);

/// Bytes of one write. Below 32 KiB: vhost-device-vsock 0.3 loses the descriptor of larger packets.
const CHUNK: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use cella_policy::{Policy, check::Turn};
    use tokio::{
        io::{DuplexStream, duplex},
        net::TcpListener,
    };

    use super::*;

    /// A policy that lets the host reach one port.
    fn forwarder(port: u16) -> Forwarder {
        let policy = include_str!("../tests/common/policy.toml");
        let policy = policy.replacen("[pod]\n", &format!("[pod]\nforward-ports = [{port}]\n"), 1);
        let (policy, events) = (Policy::parse(&policy).unwrap(), Events::new());
        let ingress = Ingress::new(&policy, events.clone());
        let log = Logger::root(slog::Discard, slog::o!());
        Forwarder::new(policy.pod().clone(), ingress, events, log)
    }

    /// The same, and everybody is there.
    fn open(port: u16) -> Forwarder {
        let forwarder = forwarder(port);
        forwarder.ingress.note("server", Turn::Running);
        forwarder
    }

    async fn ask(forwarder: &Forwarder, port: u16) -> DuplexStream {
        let (mut host, guest) = duplex(64);
        let forwarder = forwarder.clone();
        tokio::spawn(async move { forwarder.serve(guest).await });
        host.write_all(&port.to_le_bytes()).await.unwrap();
        host
    }

    #[tokio::test]
    async fn bytes_flow_both_ways_over_ipv4_and_ipv6() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut host = ask(&open(port), port).await;
            let (mut pod, _) = listener.accept().await.unwrap();
            assert_eq!(host.read_u8().await.unwrap(), 0);
            host.write_all(b"question").await.unwrap();
            host.shutdown().await.unwrap();
            let mut read = String::new();
            pod.read_to_string(&mut read).await.unwrap();
            pod.write_all(b"answer").await.unwrap();
            drop(pod);
            let mut answer = String::new();
            host.read_to_string(&mut answer).await.unwrap();
            assert_eq!((read.as_str(), answer.as_str()), ("question", "answer"));
        }
    }

    #[tokio::test]
    async fn t1_a_port_that_the_policy_does_not_name_is_not_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let forwarder = open(port ^ 1);
        let mut host = ask(&forwarder, port).await;
        assert!(host.read_u8().await.is_err());
        let event = forwarder.events.next(1).await;
        assert!(event.text.contains(&format!("port {port}")), "{}", event.text);
    }

    #[tokio::test]
    async fn t1_nobody_comes_in_while_a_required_container_is_missing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let forwarder = forwarder(port);
        assert!(ask(&forwarder, port).await.read_u8().await.is_err());
        let event = forwarder.events.next(0).await;
        assert_eq!(
            event.text,
            format!(
                "policy denies forwarding to port {port}: the ingress is shut by presence, container \"server\" does not run"
            )
        );
        forwarder.ingress.note("server", Turn::Running);
        let mut host = ask(&forwarder, port).await;
        let (mut pod, _) = listener.accept().await.unwrap();
        assert_eq!(host.read_u8().await.unwrap(), 0);
        host.write_all(b"question").await.unwrap();
        let mut read = [0; 8];
        pod.read_exact(&mut read).await.unwrap();
        // What was let in goes out again with it.
        let ended = Turn::Ended {
            status: 0,
            paused: false,
        };
        forwarder.ingress.note("server", ended);
        assert!(host.read_u8().await.is_err());
        assert_eq!(pod.read(&mut read).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn where_nobody_listens_there_is_no_answer() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        assert!(ask(&open(port), port).await.read_u8().await.is_err());
    }
}
