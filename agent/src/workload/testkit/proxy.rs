//! A wire to the registry that can be cut.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Passes connections on to a port. Each of the first `cuts` connections is ended after `bytes` bytes of answers.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    task: tokio::task::JoinHandle<()>,
    cut: Arc<AtomicUsize>,
}

impl Proxy {
    /// Closes them.
    pub(crate) async fn start(to: u16, cuts: usize, bytes: usize) -> Self {
        Self::ending(to, cuts, bytes, false).await
    }

    /// Resets them: the client sees an error in place of an end.
    pub(crate) async fn resetting(to: u16, cuts: usize, bytes: usize) -> Self {
        Self::ending(to, cuts, bytes, true).await
    }

    /// How many were ended so far.
    pub(crate) fn cut(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }

    async fn ending(to: u16, cuts: usize, bytes: usize, reset: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (left, cut) = (Arc::new(AtomicUsize::new(cuts)), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (left, cut) = (Arc::clone(&left), Arc::clone(&counted));
                tokio::spawn(async move {
                    let ends = left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                        .is_ok();
                    let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                    if pass(client, server, if ends { bytes } else { usize::MAX }, reset).await {
                        cut.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { port, task, cut }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Says whether it ended the connection itself.
async fn pass(client: TcpStream, server: TcpStream, mut answers: usize, reset: bool) -> bool {
    if reset {
        client.set_zero_linger().unwrap();
    }
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
    if reset && answers == 0 {
        // Dropped, it would say an orderly end first.
        to_client.forget();
    }
    questions.abort();
    answers == 0
}
