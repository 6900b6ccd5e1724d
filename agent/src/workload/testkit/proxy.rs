//! A wire to the registry that can be cut.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Passes connections on to a port. Each of the first `cuts` connections is closed after `bytes` bytes of answers.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(to: u16, cuts: usize, bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicUsize::new(cuts));
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let left = Arc::clone(&left);
                tokio::spawn(async move {
                    let cut = left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                        .is_ok();
                    let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                    pass(client, server, if cut { bytes } else { usize::MAX }).await;
                });
            }
        });
        Self { port, task }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: TcpStream, mut answers: usize) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let questions = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 16 * 1024];
    while answers > 0 {
        let take = buffer.len().min(answers);
        match from_server.read(&mut buffer[..take]).await {
            Ok(read) if read > 0 && to_client.write_all(&buffer[..read]).await.is_ok() => answers -= read,
            _ => break,
        }
    }
    questions.abort();
}
