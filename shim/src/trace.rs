//! What the host did for this pod, and when: one span a step, read with `GET /trace` on the metrics' socket.
//!
//! `cellactl trace` puts them beside the guest's own stages. Times are microseconds since the shim's start by a clock that nobody sets;
//! the answer says what that clock shows now, so that a reader can place it on one of its own.
//!
//! ```json
//! {"now_us": 9200417, "spans": [{"name": "qemu", "subject": "", "start_us": 81250, "end_us": 301022}]}
//! ```
//! `end_us` is null while a step goes on. A step that failed has ended, too: why, is said where it always is.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

/// Steps that are kept; a pod that starts containers again and again has its first ones here.
const MAX_SPANS: usize = 256;
/// Characters of a subject.
const MAX_SUBJECT: usize = 128;

/// This process's steps: one shim is one pod.
pub fn global() -> &'static Trace {
    static TRACE: LazyLock<Trace> = LazyLock::new(Trace::new);
    &TRACE
}

/// Steps of one pod.
pub struct Trace {
    begun: Instant,
    spans: Mutex<Vec<Span>>,
}

#[derive(Clone, Debug, Serialize)]
struct Span {
    name: &'static str,
    subject: String,
    start_us: u64,
    end_us: Option<u64>,
}

#[derive(Serialize)]
struct Answer<'a> {
    now_us: u64,
    spans: &'a [Span],
}

impl Trace {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            spans: Mutex::default(),
        }
    }

    /// A step begins; it ends when what is given back is dropped.
    pub fn step(&self, name: &'static str, subject: &str) -> Step<'_> {
        let start_us = self.now_us();
        let mut spans = self.spans();
        let index = spans.len();
        if index < MAX_SPANS {
            spans.push(Span {
                name,
                subject: subject.chars().take(MAX_SUBJECT).collect(),
                start_us,
                end_us: None,
            });
        }
        Step { trace: self, index }
    }

    /// All of it, as JSON.
    pub fn render(&self) -> String {
        let spans = self.spans();
        let answer = Answer {
            now_us: self.now_us(),
            spans: &spans,
        };
        // Numbers and strings: there is nothing in it that JSON cannot hold.
        serde_json::to_string(&answer).unwrap_or_default()
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A step that goes on.
#[must_use = "the step ends when this is dropped"]
pub struct Step<'a> {
    trace: &'a Trace,
    index: usize,
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        let end = self.trace.now_us();
        if let Some(span) = self.trace.spans().get_mut(self.index) {
            span.end_us = Some(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(trace: &Trace) -> Vec<serde_json::Value> {
        let value: serde_json::Value = serde_json::from_str(&trace.render()).unwrap();
        value["spans"].as_array().unwrap().clone()
    }

    #[test]
    fn a_step_ends_when_it_is_dropped() {
        let trace = Trace::new();
        let outer = trace.step("create", "pod");
        drop(trace.step("qemu", ""));
        let [first, second] = spans(&trace).try_into().unwrap();
        assert_eq!((&first["name"], &first["subject"]), (&"create".into(), &"pod".into()));
        assert!(first["end_us"].is_null());
        assert!(second["start_us"].as_u64() >= first["start_us"].as_u64());
        assert!(second["end_us"].as_u64() >= second["start_us"].as_u64());
        drop(outer);
        assert!(spans(&trace)[0]["end_us"].as_u64() >= second["end_us"].as_u64());
    }

    #[test]
    fn there_is_a_bound() {
        let trace = Trace::new();
        for _ in 0..MAX_SPANS + 10 {
            drop(trace.step("start", &"x".repeat(1000)));
        }
        let spans = spans(&trace);
        assert_eq!(spans.len(), MAX_SPANS);
        assert_eq!(spans[0]["subject"].as_str().unwrap().len(), MAX_SUBJECT);
    }
}
