//! Events to containerd, in order and flushed before the shim ends.
//!
//! `containerd-shim`'s own publisher sends a failed event later than its successors and loses its queue at exit, so this is
//! one task that owns the connection: an event is tried until it is through or given up, then the next one.

use std::time::Duration;

use containerd_shim::event::Event;
use containerd_shim::protos::shim::event::Envelope;
use containerd_shim::protos::shim::events::ForwardRequest;
use containerd_shim::protos::shim_async::{Client, EventsClient};
use containerd_shim::util::convert_to_any;
use containerd_shim_protos::ttrpc::context::with_timeout;
use slog::{Logger, debug, error, warn};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// Most events that wait.
const QUEUE: usize = 256;
/// One try.
const TRY_NS: i64 = 5_000_000_000;
/// Tries for one event: containerd may be restarting.
const TRIES: u32 = 6;
/// Between tries.
const PAUSE: Duration = Duration::from_secs(1);

enum Item {
    Event(Box<Envelope>),
    Flush(oneshot::Sender<()>),
}

/// Queues events for containerd.
#[derive(Clone)]
pub struct Publisher {
    namespace: String,
    items: mpsc::Sender<Item>,
    log: Logger,
}

impl Publisher {
    /// Sends to the ttrpc socket at `address`, for the containers of `namespace`.
    pub fn start(address: &str, namespace: &str, log: Logger) -> Self {
        let (items, receiver) = mpsc::channel(QUEUE);
        let address = if address.contains("://") {
            address.to_owned()
        } else {
            format!("unix://{address}")
        };
        let forwarder = Forwarder {
            address,
            client: None,
            log: log.clone(),
        };
        tokio::spawn(forwarder.run(receiver));
        Self {
            namespace: namespace.to_owned(),
            items,
            log,
        }
    }

    /// Queues an event. Never waits; with a full queue the event is lost, which is logged.
    pub fn publish(&self, event: impl Event) {
        let topic = event.topic();
        crate::metrics::global().task_event(&topic);
        let mut envelope = Envelope::new();
        envelope.set_timestamp(super::timestamp(std::time::SystemTime::now()));
        envelope.set_namespace(self.namespace.clone());
        envelope.set_topic(topic.clone());
        match convert_to_any(Box::new(event)) {
            Ok(any) => envelope.set_event(any),
            Err(error) => return error!(self.log, "an event cannot be encoded"; "topic" => topic, "error" => %error),
        }
        if self.items.try_send(Item::Event(Box::new(envelope))).is_err() {
            error!(self.log, "an event is lost: too many wait for containerd"; "topic" => topic);
        }
    }

    /// Waits until everything that was queued before is through or given up, for up to `patience`.
    pub async fn flush(&self, patience: Duration) {
        let (done, flushed) = oneshot::channel();
        let flush = async {
            if self.items.send(Item::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        };
        if timeout(patience, flush).await.is_err() {
            warn!(self.log, "containerd did not take all events in time");
        }
    }
}

struct Forwarder {
    address: String,
    client: Option<EventsClient>,
    log: Logger,
}

impl Forwarder {
    /// Ends when every [`Publisher`] is gone.
    async fn run(mut self, mut items: mpsc::Receiver<Item>) {
        while let Some(item) = items.recv().await {
            match item {
                Item::Event(envelope) => self.forward(*envelope).await,
                Item::Flush(done) => drop(done.send(())),
            }
        }
    }

    async fn forward(&mut self, envelope: Envelope) {
        let topic = envelope.topic().to_owned();
        let mut request = ForwardRequest::new();
        request.set_envelope(envelope);
        for tries in 1..=TRIES {
            match self.try_forward(&request).await {
                Ok(()) => return debug!(self.log, "event published"; "topic" => topic),
                Err(error) => {
                    warn!(self.log, "containerd did not take an event"; "topic" => &topic, "try" => tries, "error" => %error);
                    self.client = None;
                }
            }
            if tries < TRIES {
                sleep(PAUSE).await;
            }
        }
        error!(self.log, "an event is lost"; "topic" => topic);
    }

    async fn try_forward(&mut self, request: &ForwardRequest) -> Result<(), containerd_shim_protos::ttrpc::Error> {
        let client = match self.client.take() {
            Some(client) => client,
            None => EventsClient::new(Client::connect(&self.address).await?),
        };
        let sent = client.forward(with_timeout(TRY_NS), request).await;
        self.client = Some(client);
        sent.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use containerd_shim::TtrpcContext;
    use containerd_shim::protos::events::task::{TaskExit, TaskStart};
    use containerd_shim::protos::shim_async::{Events, create_events};
    use containerd_shim::protos::types::empty::Empty;
    use containerd_shim_protos::ttrpc::asynchronous::Server;

    use super::*;

    struct Containerd(mpsc::Sender<(String, String)>);

    #[async_trait]
    impl Events for Containerd {
        async fn forward(&self, _: &TtrpcContext, req: ForwardRequest) -> containerd_shim::TtrpcResult<Empty> {
            let envelope = req.envelope();
            self.0
                .send((envelope.namespace().to_owned(), envelope.topic().to_owned()))
                .await
                .unwrap();
            Ok(Empty::new())
        }
    }

    fn log() -> Logger {
        Logger::root(slog::Discard, slog::o!())
    }

    #[tokio::test]
    async fn order_is_kept_over_a_late_containerd() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.sock").display().to_string();
        let publisher = Publisher::start(&path, "k8s.io", log());
        publisher.publish(TaskStart::new());
        publisher.publish(TaskExit::new());
        let (seen, mut events) = mpsc::channel(4);
        let mut server = Server::new()
            .bind(&format!("unix://{path}"))
            .unwrap()
            .register_service(create_events(Arc::new(Containerd(seen))));
        server.start().await.unwrap();
        publisher.flush(Duration::from_secs(20)).await;
        let expected = ["/tasks/start", "/tasks/exit"].map(|topic| Some(("k8s.io".to_owned(), topic.to_owned())));
        assert_eq!([events.recv().await, events.recv().await], expected);
        server.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn flush_does_not_wait_for_ever() {
        let publisher = Publisher::start("/nonexistent/events.sock", "x", log());
        publisher.publish(TaskExit::new());
        publisher.flush(Duration::from_millis(50)).await;
    }
}
