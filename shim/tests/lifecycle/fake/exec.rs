//! The stand-in agent's execs, by their first argument: `cat` copies stdin to stdout, `exit N` ends at once, `flood N` writes N
//! bytes, `sleep` waits for a signal, `tty` says the size of its terminal, `missing` cannot be started, `denied` is refused,
//! `mute` never starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use cella_protos::agent as wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, watch};
use ttrpc::Code;

use super::agent::refused;

/// The first stream number; an exec has two.
const FIRST: u32 = 100;

#[derive(Default)]
pub(super) struct Execs(Mutex<BTreeMap<String, Arc<Exec>>>);

struct Exec {
    args: Vec<String>,
    first_stream: u32,
    stdin: Mutex<Option<UnixStream>>,
    stdout: Mutex<Option<UnixStream>>,
    exit: watch::Sender<Option<u32>>,
}

impl Execs {
    pub(super) async fn create(&self, req: wire::ExecProcessRequest) -> ttrpc::Result<wire::CreateContainerResponse> {
        if req.args[0] == "denied" {
            return refused(
                Code::PERMISSION_DENIED,
                "policy denies container \"app\": exec is not allowed",
            );
        }
        let mut execs = self.0.lock().await;
        if execs.contains_key(&req.exec_id) {
            return refused(Code::ALREADY_EXISTS, "the exec exists");
        }
        let first_stream = execs.values().map(|exec| exec.first_stream + 2).max().unwrap_or(FIRST);
        let exec = Exec {
            args: req.args,
            first_stream,
            stdin: Mutex::new(None),
            stdout: Mutex::new(None),
            exit: watch::Sender::new(None),
        };
        execs.insert(req.exec_id, Arc::new(exec));
        let pipe = |wanted, number| if wanted { number } else { 0 };
        Ok(wire::CreateContainerResponse {
            stdin_stream: pipe(req.stdin, first_stream),
            stdout_stream: pipe(req.stdout, first_stream + 1),
            ..Default::default()
        })
    }

    pub(super) async fn attach(&self, number: u32, stream: UnixStream) {
        for exec in self.0.lock().await.values() {
            match number.checked_sub(exec.first_stream) {
                Some(0) => return *exec.stdin.lock().await = Some(stream),
                Some(1) => return *exec.stdout.lock().await = Some(stream),
                _ => {}
            }
        }
        panic!("pipe {number}");
    }

    pub(super) async fn start(&self, exec_id: &str) -> ttrpc::Result<wire::StartContainerResponse> {
        let exec = self.find(exec_id).await?;
        match exec.args[0].as_str() {
            "missing" => return refused(Code::INVALID_ARGUMENT, "exec \"missing\": no such file"),
            "mute" => std::future::pending().await,
            "tty" => exec.say(b"runs\n").await,
            _ => {}
        }
        tokio::spawn(exec.run());
        Ok(wire::StartContainerResponse {
            pid: 10,
            ..Default::default()
        })
    }

    pub(super) async fn wait(&self, exec_id: &str) -> ttrpc::Result<wire::WaitContainerResponse> {
        let mut exit = self.find(exec_id).await?.exit.subscribe();
        let exit_status = exit.wait_for(Option::is_some).await.unwrap().unwrap();
        Ok(wire::WaitContainerResponse {
            exit_status,
            exited_at_unix_ns: 1,
            ..Default::default()
        })
    }

    pub(super) async fn signal(&self, exec_id: &str, signal: u32) -> ttrpc::Result<wire::Empty> {
        let exec = self.find(exec_id).await?;
        exec.end(128 + signal).await;
        Ok(wire::Empty::new())
    }

    pub(super) async fn resize(&self, req: &wire::ResizeTerminalRequest) -> ttrpc::Result<wire::Empty> {
        let exec = self.find(&req.exec_id).await?;
        exec.say(format!("{}x{}\n", req.columns, req.rows).as_bytes()).await;
        Ok(wire::Empty::new())
    }

    pub(super) async fn delete(&self, exec_id: &str) -> ttrpc::Result<()> {
        match self.0.lock().await.remove(exec_id) {
            Some(_) => Ok(()),
            None => refused(Code::NOT_FOUND, "no such exec"),
        }
    }

    pub(super) async fn end_all(&self, status: u32) {
        for exec in self.0.lock().await.values() {
            exec.end(status).await;
        }
    }

    async fn find(&self, exec_id: &str) -> ttrpc::Result<Arc<Exec>> {
        match self.0.lock().await.get(exec_id) {
            Some(exec) => Ok(exec.clone()),
            None => refused(Code::NOT_FOUND, "no such exec"),
        }
    }
}

impl Exec {
    async fn run(self: Arc<Self>) {
        match self.args[0].as_str() {
            "cat" => {
                let mut stdin = self.stdin.lock().await.take().unwrap();
                let mut buffer = [0; 1024];
                loop {
                    let read = stdin.read(&mut buffer).await.unwrap_or(0);
                    if read == 0 {
                        break;
                    }
                    self.say(&buffer[..read]).await;
                }
                self.end(0).await;
            }
            "exit" => self.end(self.args[1].parse().unwrap()).await,
            "flood" => {
                let (chunk, mut left) = (vec![b'x'; 4096], self.args[1].parse::<usize>().unwrap());
                while left > 0 {
                    let now = left.min(chunk.len());
                    self.say(&chunk[..now]).await;
                    left -= now;
                }
                self.end(0).await;
            }
            _ => {}
        }
    }

    async fn say(&self, bytes: &[u8]) {
        if let Some(stdout) = self.stdout.lock().await.as_mut() {
            let _ = stdout.write_all(bytes).await;
        }
    }

    async fn end(&self, status: u32) {
        self.exit.send_if_modified(|exit| {
            let first = exit.is_none();
            exit.get_or_insert(status);
            first
        });
        self.stdout.lock().await.take();
        self.stdin.lock().await.take();
    }
}
