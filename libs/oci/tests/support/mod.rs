//! Registries to test against: Debian's own, and one that says whatever a test wants.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "helpers of tests; no test uses all of them"
)]
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use cella_http::ClientConfig;
use cella_oci::{Descriptor, Digest, Registry};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

const PROGRAM: &str = "/usr/bin/docker-registry";
const DEADLINE: Duration = Duration::from_secs(20);

/// Debian's `docker-registry` on a port and in a folder of its own.
pub(crate) struct DockerRegistry {
    storage: TempDir,
    process: Child,
    pub(crate) client: Registry,
}

impl DockerRegistry {
    pub(crate) async fn start() -> Self {
        assert!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: run `make setup`");
        let storage = TempDir::new().unwrap();
        let config = storage.path().join("config.yml");
        let root = storage.path().join("data");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            root.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut process = Command::new(PROGRAM)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stderr = process.stderr.take().unwrap();
        let port = tokio::time::timeout(DEADLINE, announced_port(BufReader::new(stderr)))
            .await
            .unwrap();
        Self {
            storage,
            process,
            client: client(port),
        }
    }

    /// The file in which the registry keeps a blob or a manifest.
    pub(crate) fn stored(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let blobs = self.storage.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// Changes one byte of what the registry keeps.
    pub(crate) fn flip(&self, digest: &Digest, at: usize) {
        let path = self.stored(digest);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.get_mut(at).unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn stop(&mut self) {
        tokio::time::timeout(DEADLINE, self.process.kill())
            .await
            .unwrap()
            .unwrap();
    }
}

/// Reads the log until it says where it listens, and goes on reading, so that the registry never waits for it.
async fn announced_port(mut log: BufReader<tokio::process::ChildStderr>) -> u16 {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(
            log.read_line(&mut line).await.unwrap(),
            0,
            "docker-registry ended before it listened"
        );
        let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") else {
            continue;
        };
        let port = rest
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap()
            .parse()
            .unwrap();
        tokio::spawn(async move { tokio::io::copy(&mut log, &mut tokio::io::sink()).await });
        return port;
    }
}

/// A server that answers each request with the bytes that `answer` gives for its head, and closes the connection.
pub(crate) struct NastyRegistry {
    task: JoinHandle<()>,
    pub(crate) client: Registry,
    pub(crate) port: u16,
}

impl NastyRegistry {
    pub(crate) async fn start(answer: impl Fn(&str, u16) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).await.is_err() {
                        break;
                    }
                    head.push(byte[0]);
                }
                let answer = answer(&String::from_utf8_lossy(&head), port);
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self {
            task,
            client: client(port),
            port,
        }
    }
}

impl Drop for NastyRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A whole answer.
pub(crate) fn answer(status: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "application/octet-stream".to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        annotations: Default::default(),
        platform: None,
    }
}

fn client(port: u16) -> Registry {
    let origin = format!("http://127.0.0.1:{port}").parse().unwrap();
    let config = ClientConfig {
        read_timeout: DEADLINE,
        ..ClientConfig::default()
    };
    Registry::with_config(origin, None, "registry.example", config).unwrap()
}
