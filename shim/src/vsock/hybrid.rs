//! Connections through a vhost-user backend's Unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{Handshake, Progress, Stream, Transport, VsockError};

/// The backend's `uds-path`.
#[derive(Clone, Debug)]
pub struct Hybrid {
    socket: PathBuf,
}

impl Hybrid {
    /// Connects through the socket at `path`.
    pub fn new(path: &Path) -> Self {
        Self {
            socket: path.to_owned(),
        }
    }

    async fn handshake(&self, port: u32) -> Result<UnixStream, VsockError> {
        let connect = |source| VsockError::Connect { port, source };
        let mut stream = UnixStream::connect(&self.socket).await.map_err(connect)?;
        stream
            .write_all(Handshake::request(port).as_bytes())
            .await
            .map_err(connect)?;
        let mut handshake = Handshake::default();
        loop {
            let mut byte = [0];
            let read = match stream.read(&mut byte).await {
                Ok(read) => read,
                // The backend closed before it had read our line: the same as an end of file.
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => 0,
                Err(source) => return Err(connect(source)),
            };
            if read == 0 {
                return Err(VsockError::NoListener { port });
            }
            let [byte] = byte;
            if let Progress::Done { .. } = handshake
                .push(byte)
                .map_err(|source| VsockError::Handshake { port, source })?
            {
                return Ok(stream);
            }
        }
    }
}

#[async_trait]
impl Transport for Hybrid {
    async fn connect(&self, port: u32, deadline: Duration) -> Result<Box<dyn Stream>, VsockError> {
        match tokio::time::timeout(deadline, self.handshake(port)).await {
            Ok(result) => result.map(|stream| Box::new(stream) as Box<dyn Stream>),
            Err(_) => Err(VsockError::Timeout { port, after: deadline }),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncBufReadExt;
    use tokio::net::UnixListener;

    use super::*;

    /// A backend that answers one connection with `answer`, after it has read the request, and then with `rest`.
    async fn against(answer: &'static [u8], keep_open: bool) -> Result<Box<dyn Stream>, VsockError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let backend = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = tokio::io::BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, "CONNECT 1024\n");
            stream.write_all(answer).await.unwrap();
            if keep_open {
                std::future::pending::<()>().await;
            }
        });
        let result = Hybrid::new(&path).connect(1024, Duration::from_millis(500)).await;
        backend.abort();
        result
    }

    #[tokio::test]
    async fn bytes_after_the_answer_belong_to_the_stream() {
        let mut stream = against(b"OK 5\nhello", false).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "hello");
    }

    #[tokio::test]
    async fn each_failure_has_its_variant() {
        assert!(matches!(
            against(b"", false).await,
            Err(VsockError::NoListener { port: 1024 })
        ));
        assert!(matches!(
            against(b"OK", false).await,
            Err(VsockError::NoListener { port: 1024 })
        ));
        assert!(matches!(
            against(b"", true).await,
            Err(VsockError::Timeout { port: 1024, .. })
        ));
        assert!(matches!(
            against(b"NO 1\n", true).await,
            Err(VsockError::Handshake { port: 1024, .. })
        ));
        let nowhere = Hybrid::new(Path::new("/nonexistent/vsock"));
        let result = nowhere.connect(1, Duration::from_secs(1)).await;
        assert!(matches!(result, Err(VsockError::Connect { port: 1, .. })));
    }
}
