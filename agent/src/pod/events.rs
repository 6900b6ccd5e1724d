//! What happened in the pod that nobody asked for: out of memory, a refusal. The host fetches them one by one.
//!
//! The last `KEPT` are kept, numbered from 1. A host that asks too late is told how many it has missed; one that never
//! asks costs nothing.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use crate::untrusted::one_line;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts from 1.
    pub number: u64,
    /// What happened.
    pub kind: EventKind,
    /// To which container; empty = none in particular.
    pub container: String,
    /// To which of its further processes; empty = its first one, or none in particular.
    pub exec_id: String,
    /// One printable line.
    pub text: String,
    /// When, by the guest's clock.
    pub at: SystemTime,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The kernel killed a process of the container for want of memory.
    OutOfMemory,
    /// The policy denied a request of the host's.
    Denied,
    /// Clients may come in from now on, or no more.
    Ingress,
    /// A program has printed something that the host may not read.
    Output(Amount),
    /// What a job has left was pushed, or could not be.
    Artifact,
}

/// About how much was printed on a stream since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// `stdout`, `stderr`, or `terminal`.
    pub stream: &'static str,
    /// Lines, rounded up.
    pub lines: u64,
    /// Bytes, rounded up.
    pub bytes: u64,
    /// Whether nothing more will come.
    pub ended: bool,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stream,
            lines,
            bytes,
            ended,
        } = self;
        let (line, all) = (
            if *lines == 1 { "line" } else { "lines" },
            if *ended { " in all" } else { "" },
        );
        write!(f, "{stream}: at most {lines} {line}, {bytes} bytes{all}")
    }
}

impl EventKind {
    /// As the API calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutOfMemory => "oom",
            Self::Denied => "denied",
            Self::Ingress => "ingress",
            Self::Output(_) => "output",
            Self::Artifact => "artifact",
        }
    }
}

/// The pod's events. Clones share them.
#[derive(Clone, Debug)]
pub struct Events {
    ring: Arc<watch::Sender<Ring>>,
}

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    kept: VecDeque<Event>,
}

impl Events {
    /// Without events.
    pub fn new() -> Self {
        Self {
            ring: Arc::new(watch::Sender::default()),
        }
    }

    /// Adds an event, and forgets the oldest when there are too many. The same denial again within a minute is none: a host that
    /// asks for the same thing again and again would push everything else out.
    pub fn add(&self, kind: EventKind, container: &str, exec_id: &str, text: &str) {
        let text = one_line(text);
        let is_known = |event: &Event| {
            let age = event.at.elapsed().unwrap_or_default();
            (event.kind, event.container.as_str(), event.exec_id.as_str()) == (kind, container, exec_id)
                && event.text == text
                && age < SAME
        };
        self.ring.send_if_modified(|ring| {
            if kind == EventKind::Denied && ring.kept.iter().any(is_known) {
                return false;
            }
            ring.last = ring.last.saturating_add(1);
            if ring.kept.len() >= KEPT {
                ring.kept.pop_front();
            }
            ring.kept.push_back(Event {
                number: ring.last,
                kind,
                container: container.to_owned(),
                exec_id: exec_id.to_owned(),
                text: text.clone(),
                at: SystemTime::now(),
            });
            true
        });
    }

    /// Waits for the first event behind number `after` that is still kept. Safe to cancel; no deadline of its own.
    pub async fn next(&self, after: u64) -> Event {
        let mut ring = self.ring.subscribe();
        loop {
            let found = ring
                .borrow_and_update()
                .kept
                .iter()
                .find(|event| event.number > after)
                .cloned();
            if let Some(event) = found {
                return event;
            }
            if ring.changed().await.is_err() {
                // The sender is ours and alive.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

/// Events that are kept.
const KEPT: usize = 256;

/// How long a denial is not repeated.
const SAME: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_told_in_order_to_everybody_who_asks() {
        let events = Events::new();
        let early = tokio::spawn({
            let events = events.clone();
            async move { events.next(0).await }
        });
        events.add(EventKind::Denied, "c1", "", "policy denies\nthis");
        events.add(EventKind::OutOfMemory, "c2", "", "");
        let first = early.await.unwrap();
        assert_eq!((first.number, first.kind.as_str()), (1, "denied"));
        assert_eq!(
            (first.container.as_str(), first.text.as_str()),
            ("c1", "policy denies this")
        );
        assert_eq!(events.next(0).await, first);
        assert_eq!(events.next(1).await.kind, EventKind::OutOfMemory);
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), events.next(2)).await;
        assert!(waiting.is_err());
    }

    #[tokio::test]
    async fn the_same_denial_again_is_no_news() {
        let events = Events::new();
        for _ in 0..1000 {
            events.add(EventKind::Denied, "c1", "", "policy denies statistics");
        }
        events.add(EventKind::Denied, "c2", "", "policy denies statistics");
        assert_eq!(events.next(1).await.container, "c2");
        let more = tokio::time::timeout(std::time::Duration::from_millis(20), events.next(2)).await;
        assert!(more.is_err());
    }

    #[tokio::test]
    async fn what_is_too_old_is_skipped() {
        let events = Events::new();
        for _ in 0..KEPT + 10 {
            events.add(EventKind::OutOfMemory, "", "", &"x".repeat(5000));
        }
        let event = events.next(3).await;
        assert_eq!((event.number, event.text.len()), (11, 1024));
    }
}
