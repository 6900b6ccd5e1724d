//! Connections to the pod's loopback, forwarded to a stand-in for the guest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cella_shim::network::{Forwarder, NetNs, attach, detach};
use cella_shim::vsock::{Stream, Transport, VsockError};
use slog::Logger;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::lab::Lab;

const PATIENCE: Duration = Duration::from_secs(5);
/// The one port that the guest refuses.
const CLOSED: u16 = 81;

/// Echoes what it is sent in capitals, and says goodbye at the end of its input.
#[derive(Default)]
struct Guest {
    asked: Arc<Mutex<Vec<(u32, u16)>>>,
}

#[async_trait]
impl Transport for Guest {
    async fn connect(&self, vsock_port: u32, _: Duration) -> Result<Box<dyn Stream>, VsockError> {
        let (host, guest) = duplex(1024);
        tokio::spawn(answer(vsock_port, guest, self.asked.clone()));
        Ok(Box::new(host))
    }
}

async fn answer(vsock_port: u32, mut stream: DuplexStream, asked: Arc<Mutex<Vec<(u32, u16)>>>) {
    let mut port = [0; 2];
    stream.read_exact(&mut port).await.unwrap();
    let port = u16::from_le_bytes(port);
    asked.lock().unwrap().push((vsock_port, port));
    if port == CLOSED {
        stream.write_all(&[1]).await.unwrap();
        return;
    }
    stream.write_all(&[0]).await.unwrap();
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        stream.write_all(&buffer[..length].to_ascii_uppercase()).await.unwrap();
    }
    let _ = stream.write_all(b"bye").await;
}

/// As containerd does it: a socket of the pod's namespace.
async fn dial(netns: &NetNs, address: IpAddr, port: u16) -> TcpStream {
    let address = SocketAddr::from((address, port));
    let connected = netns.run(|| Ok(std::net::TcpStream::connect_timeout(&address, PATIENCE)));
    let stream = connected.unwrap().unwrap();
    stream.set_nonblocking(true).unwrap();
    TcpStream::from_std(stream).unwrap()
}

async fn talk(mut stream: TcpStream) -> std::io::Result<String> {
    stream.write_all(b"hello ").await?;
    stream.shutdown().await?;
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap()?;
    Ok(text)
}

struct Served {
    lab: Lab,
    netns: NetNs,
    forwarder: Forwarder,
    asked: Arc<Mutex<Vec<(u32, u16)>>>,
}

fn served() -> Served {
    let lab = Lab::bridged();
    let netns = lab.pod();
    let log = Logger::root(slog::Discard, slog::o!());
    let listeners = attach(&netns, &log)
        .unwrap()
        .listeners
        .expect("nftables in this kernel");
    let guest = Guest::default();
    let asked = guest.asked.clone();
    let forwarder = Forwarder::start(listeners, Arc::new(guest), log).unwrap();
    Served {
        lab,
        netns,
        forwarder,
        asked,
    }
}

#[tokio::test]
async fn any_port_of_the_pods_loopback_leads_to_that_port_of_the_guest() {
    let served = served();
    for (address, port) in [
        (IpAddr::from(Ipv4Addr::LOCALHOST), 8080),
        (Ipv6Addr::LOCALHOST.into(), 8080),
        (Ipv4Addr::LOCALHOST.into(), 1),
        (Ipv4Addr::new(127, 1, 2, 3).into(), 65535),
    ] {
        let stream = dial(&served.netns, address, port).await;
        assert_eq!(talk(stream).await.unwrap(), "HELLO bye", "{address} {port}");
    }
    let asked = served.asked.lock().unwrap().clone();
    assert_eq!(asked, [(1026, 8080), (1026, 8080), (1026, 1), (1026, 65535)]);
    // Once it has stopped, nothing listens there any more and no rule is left.
    served.forwarder.stop().await;
    let refused = served.netns.run(|| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        Ok(std::net::TcpStream::connect_timeout(&address, PATIENCE).map(drop))
    });
    assert_eq!(
        refused.unwrap().unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    detach(served.netns.id()).unwrap();
    served.lab.assert_untouched();
}

#[tokio::test]
async fn a_port_that_the_guest_refuses_is_reset() {
    let served = served();
    let stream = dial(&served.netns, Ipv4Addr::LOCALHOST.into(), CLOSED).await;
    assert_eq!(
        talk(stream).await.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn too_many_connections_are_reset_and_the_others_live() {
    let served = served();
    let mut held = Vec::new();
    for _ in 0..128 {
        let mut stream = dial(&served.netns, Ipv4Addr::LOCALHOST.into(), 80).await;
        // Answered, so it counts.
        stream.write_all(b"x").await.unwrap();
        let mut answer = [0];
        timeout(PATIENCE, stream.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        held.push(stream);
    }
    let further = dial(&served.netns, Ipv4Addr::LOCALHOST.into(), 80).await;
    let error = talk(further).await.unwrap_err().kind();
    assert!(
        matches!(
            error,
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::NotConnected
        ),
        "{error:?}"
    );
    assert_eq!(talk(held.pop().unwrap()).await.unwrap(), "HELLO bye");
}
