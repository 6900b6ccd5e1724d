//! Hybrid vsock: `CONNECT <port>` on the VMM's Unix socket, `OK <port>` back, then the stream is the guest's.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_vsock::{VsockAddr, VsockStream};

/// A stream to `port` of the guest.
pub(super) async fn connect(socket: &Path, port: u32) -> Result<UnixStream, ConnectError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ConnectError::Socket {
            path: socket.to_owned(),
            source,
        })?;
    match tokio::time::timeout(TIMEOUT, handshake(stream, port)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::Silent {
            path: socket.to_owned(),
            port,
            after: TIMEOUT,
        }),
    }
}

/// A stream to `port` of the guest with the kernel's vsock address `cid`.
pub(super) async fn connect_kernel(cid: u32, port: u32) -> Result<VsockStream, ConnectError> {
    match tokio::time::timeout(TIMEOUT, VsockStream::connect(VsockAddr::new(cid, port))).await {
        Ok(outcome) => outcome.map_err(|source| ConnectError::Handshake { port, source }),
        Err(_) => Err(ConnectError::Silent {
            path: PathBuf::from(format!("vsock address {cid}")),
            port,
            after: TIMEOUT,
        }),
    }
}

async fn handshake(mut stream: UnixStream, port: u32) -> Result<UnixStream, ConnectError> {
    let failed = |source| ConnectError::Handshake { port, source };
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await
        .map_err(failed)?;
    // Byte by byte: what follows the line is the guest's.
    let mut line = Vec::with_capacity(MAX_LINE);
    while line.last() != Some(&b'\n') {
        if line.len() == MAX_LINE {
            return Err(ConnectError::Answer { port });
        }
        match stream.read_u8().await {
            Ok(byte) => line.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ConnectError::Closed { port }),
            Err(source) => return Err(failed(source)),
        }
    }
    if line.starts_with(b"OK ") {
        Ok(stream)
    } else {
        Err(ConnectError::Answer { port })
    }
}

/// Why the guest cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConnectError {
    /// No socket.
    #[error("connecting to {}; is the machine running, and is this its vsock?", path.display())]
    Socket { path: PathBuf, source: io::Error },
    /// The VMM says nothing.
    #[error("{} says nothing about vsock port {port} for {} s", path.display(), after.as_secs())]
    Silent { path: PathBuf, port: u32, after: Duration },
    /// The connection broke.
    #[error("asking for vsock port {port}")]
    Handshake { port: u32, source: io::Error },
    /// Nobody listens in the guest.
    #[error("nobody listens on vsock port {port} in the guest; the agent may not be ready yet")]
    Closed { port: u32 },
    /// Another protocol.
    #[error("the answer about vsock port {port} is not \"OK\"; is this a vsock socket?")]
    Answer { port: u32 },
}

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_LINE: usize = 32;

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// A VMM that gives one answer.
    async fn answer(text: &'static [u8]) -> Result<Vec<u8>, ConnectError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let vmm = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 13];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"CONNECT 1024\n");
            stream.write_all(text).await.unwrap();
        });
        let outcome = connect(&path, 1024).await;
        vmm.await.unwrap();
        let mut rest = Vec::new();
        outcome?.read_to_end(&mut rest).await.unwrap();
        Ok(rest)
    }

    #[tokio::test]
    async fn the_stream_begins_behind_the_line() {
        assert_eq!(answer(b"OK 1024\nguest").await.unwrap(), b"guest");
    }

    #[tokio::test]
    async fn other_answers_are_told_apart() {
        assert!(matches!(answer(b"").await, Err(ConnectError::Closed { port: 1024 })));
        assert!(matches!(answer(b"ERR\n").await, Err(ConnectError::Answer { .. })));
        assert!(matches!(answer(&[b'x'; 64]).await, Err(ConnectError::Answer { .. })));
        let missing = connect(Path::new("/nonexistent/vsock"), 1024).await;
        assert!(matches!(missing, Err(ConnectError::Socket { .. })));
    }
}
