//! What the guest tells by itself: processes killed for want of memory, requests that the policy refused.
//!
//! The teller is not trusted: its words are printable and bounded, and it is not listened to more often than
//! [`BETWEEN_EVENTS`] allows, so that it can fill neither the log nor containerd's queue.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim::protos::events::task::TaskOOM;
use slog::{debug, info, warn};

use super::super::container::Container;
use super::Pod;
use crate::agent::{GuestEvent, GuestEventKind};
use crate::metrics;
use crate::vm::Vm;

/// Least time from one event to the next.
const BETWEEN_EVENTS: Duration = Duration::from_millis(50);

impl Pod {
    /// Passes on the guest's events until the VM is gone or the agent has no more.
    pub(super) async fn watch_guest(self: Arc<Self>, vm: Arc<Vm>) {
        let mut after = 0;
        loop {
            let event = tokio::select! {
                event = vm.agent().next_event(after) => event,
                _ = vm.stopped() => return,
            };
            match event {
                Ok(event) => {
                    after = event.number;
                    self.pass_on(&event);
                }
                // Whoever waits for a process sees a broken connection too, and acts on it.
                Err(error) => return debug!(self.parts.log, "the guest tells no more events"; "error" => %error),
            }
            tokio::time::sleep(BETWEEN_EVENTS).await;
        }
    }

    /// Says that a process of `container` was killed for want of memory, if nobody has yet.
    pub(super) fn out_of_memory_at_end(&self, container: &Container) {
        if container.note_out_of_memory() {
            self.publish_out_of_memory(container);
        }
    }

    fn pass_on(&self, event: &GuestEvent) {
        let log = &self.parts.log;
        if event.lost > 0 {
            warn!(log, "events of the guest are lost"; "lost" => event.lost);
        }
        metrics::global().guest_event(event.kind.as_str());
        match &event.kind {
            GuestEventKind::OutOfMemory => {
                info!(log, "the guest killed a process for want of memory"; "container" => &event.container);
                if let Ok(container) = self.container(&event.container) {
                    container.note_out_of_memory();
                    self.publish_out_of_memory(&container);
                }
            }
            GuestEventKind::Denied => {
                warn!(log, "the guest's policy refused a request";
                    "container" => &event.container, "exec" => &event.exec, "rule" => &event.text);
            }
            GuestEventKind::Ingress => info!(log, "the pod's way in has changed"; "state" => &event.text),
            GuestEventKind::Output => {
                debug!(log, "a program printed what is not for the host";
                    "container" => &event.container, "exec" => &event.exec, "amount" => &event.text);
            }
            GuestEventKind::Artifact => {
                info!(log, "the output of a job"; "container" => &event.container, "told" => &event.text);
            }
            GuestEventKind::Other(kind) => debug!(log, "an event of an unknown kind"; "kind" => kind),
        }
    }

    fn publish_out_of_memory(&self, container: &Container) {
        self.parts.events.publish(TaskOOM {
            container_id: container.id().to_owned(),
            ..Default::default()
        });
    }
}
