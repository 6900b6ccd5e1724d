//! containerd's side: events, fifos, requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim::protos::events::task::TaskExit;
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::shim::events::ForwardRequest;
use containerd_shim::protos::shim_async::{Events, create_events};
use containerd_shim::protos::types::empty::Empty;
use containerd_shim::{TtrpcContext, TtrpcResult};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use ttrpc::asynchronous::Server;

/// Takes events down in order: "create", "start", "exit 7", "exit 0 of e1", "delete".
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    /// Listens on `path`.
    pub(crate) async fn listen(path: &str) -> (Self, Server) {
        let recorder = Self::default();
        let service = create_events(Arc::new(recorder.clone()));
        let mut server = Server::new()
            .bind(&format!("unix://{path}"))
            .unwrap()
            .register_service(service);
        server.start().await.unwrap();
        (recorder, server)
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl Events for Recorder {
    async fn forward(&self, _: &TtrpcContext, req: ForwardRequest) -> TtrpcResult<Empty> {
        let envelope = req.envelope();
        let topic = envelope.topic().strip_prefix("/tasks/").unwrap().to_owned();
        let line = if topic == "exit" {
            let exit = TaskExit::parse_from_bytes(&envelope.event().value).unwrap();
            if exit.id == exit.container_id {
                format!("exit {}", exit.exit_status)
            } else {
                format!("exit {} of {}", exit.exit_status, exit.id)
            }
        } else {
            topic
        };
        self.0.lock().unwrap().push(line);
        Ok(Empty::new())
    }
}

/// Reads a fifo until its writer is gone.
pub(crate) async fn read_to_end(mut fifo: pipe::Receiver) -> String {
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(20), fifo.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    text
}
