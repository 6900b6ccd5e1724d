//! The Trace Event Format, object form: complete events (`ph` = `X`, µs) of two processes, the host's shim and the guest.

use std::time::Instant;

use serde_json::{Value, json};

use super::picture;
use crate::terminal::escaped;

/// Characters of a name or subject, and of a failure, that are shown.
const MAX_TEXT: usize = 200;
pub(super) const HOST: u32 = 1;
pub(super) const GUEST: u32 = 2;

/// A step of the host's or a stage of the guest's, by its side's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) start_us: u64,
    /// `None` while it goes on.
    pub(super) end_us: Option<u64>,
    /// "" for none.
    pub(super) failure: String,
}

/// What a clock showed at a moment that is known up to `uncertain_us`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    at: Instant,
    uncertain_us: u64,
    shows_us: u64,
}

impl Clock {
    /// The answer to a question that was `asked` has just come.
    pub(super) fn read(asked: Instant) -> Self {
        let half = asked.elapsed() / 2;
        Self {
            at: asked + half,
            uncertain_us: u64::try_from(half.as_micros()).unwrap_or(u64::MAX),
            shows_us: 0,
        }
    }

    /// The answer said this.
    pub(super) fn showing(self, shows_us: u64) -> Self {
        Self { shows_us, ..self }
    }

    /// What `us` of this clock is on `other`.
    fn on(&self, other: &Self, us: u64) -> i64 {
        let between =
            |a: Instant, b: Instant| i64::try_from(a.saturating_duration_since(b).as_micros()).unwrap_or(i64::MAX);
        let apart = between(self.at, other.at).saturating_sub(between(other.at, self.at));
        let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        signed(us)
            .saturating_sub(signed(self.shows_us))
            .saturating_add(signed(other.shows_us))
            .saturating_add(apart)
    }
}

/// Both sides of a pod.
pub(super) struct Trace {
    pub(super) pod: String,
    pub(super) host: Vec<Span>,
    pub(super) host_clock: Clock,
    pub(super) guest: Vec<Span>,
    pub(super) guest_clock: Clock,
}

/// A span on the host's clock.
pub(super) struct Placed<'a> {
    pub(super) process: u32,
    pub(super) lane: usize,
    pub(super) start_us: i64,
    pub(super) length_us: i64,
    pub(super) span: &'a Span,
}

impl Trace {
    /// The trace as JSON, one event a line. Times begin at 0 with the first span.
    pub(super) fn render(&self) -> String {
        let mut events = Vec::new();
        for (process, name) in [(HOST, "host: containerd-shim-cella-v2"), (GUEST, "guest: cella-agent")] {
            events.push(json!({"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}}));
        }
        events.extend(self.placed().iter().map(Placed::event));
        let events: Vec<_> = events.iter().map(Value::to_string).collect();
        let other = json!({
            "pod": self.pod,
            "clocks_agree_within_us": self.guest_clock.uncertain_us.saturating_add(self.host_clock.uncertain_us),
        });
        format!(
            "{{\"displayTimeUnit\":\"ms\",\"otherData\":{other},\"traceEvents\":[\n{}\n]}}\n",
            events.join(",\n")
        )
    }

    /// One line a span, in order of time.
    pub(super) fn summary(&self) -> String {
        let mut text = String::from("START s   TOOK s  SIDE   STEP (*: on the critical path)\n");
        let placed = self.placed();
        for (placed, critical) in placed.iter().zip(picture::critical(&placed)) {
            let side = if placed.process == HOST { "host" } else { "guest" };
            let step = format!(
                "{} {}",
                escaped(&placed.span.name, MAX_TEXT),
                escaped(&placed.span.subject, MAX_TEXT)
            );
            let state = match (placed.span.end_us, placed.span.failure.as_str()) {
                (None, _) => " (goes on)",
                (_, "") => "",
                _ => " (failed)",
            };
            let line = format!(
                "{:>7}  {:>7}  {side:<5} {}{}{state}",
                seconds(placed.start_us),
                seconds(placed.length_us),
                if critical { '*' } else { ' ' },
                step.trim_end()
            );
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// All spans in order of time.
    pub(super) fn placed(&self) -> Vec<Placed<'_>> {
        let host_now = self.host_clock.shows_us;
        let guest_now = self.guest_clock.shows_us;
        let host = self.host.iter().map(|span| {
            (
                HOST,
                span,
                place(span, host_now, |us| us.try_into().unwrap_or(i64::MAX)),
            )
        });
        let on_host = |us| self.guest_clock.on(&self.host_clock, us);
        let guest = self
            .guest
            .iter()
            .map(|span| (GUEST, span, place(span, guest_now, on_host)));
        let mut all: Vec<_> = host.chain(guest).collect();
        // What begins together: the longer one first, so that it stands above what happens within it.
        all.sort_by_key(|(process, _, (start, end))| (*start, *process, std::cmp::Reverse(*end)));
        let first = all.first().map_or(0, |(_, _, (start, _))| *start);
        // Spans that overlap stand on lines of their own.
        let mut lanes: Vec<(u32, i64)> = Vec::new();
        let placed = all.into_iter().map(|(process, span, (start, end))| {
            let free = lanes
                .iter()
                .position(|(of, busy_until)| *of == process && *busy_until <= start);
            let lane = match free.and_then(|lane| lanes.get_mut(lane).map(|kept| (lane, kept))) {
                Some((lane, kept)) => {
                    kept.1 = end;
                    lane
                }
                None => {
                    lanes.push((process, end));
                    lanes.len() - 1
                }
            };
            Placed {
                process,
                lane,
                start_us: start.saturating_sub(first),
                length_us: end.saturating_sub(start),
                span,
            }
        });
        placed.collect()
    }
}

impl Placed<'_> {
    pub(super) fn end_us(&self) -> i64 {
        self.start_us.saturating_add(self.length_us)
    }

    fn event(&self) -> Value {
        let name = escaped(&self.span.name, MAX_TEXT);
        let mut args = serde_json::Map::new();
        args.insert("subject".to_owned(), escaped(&self.span.subject, MAX_TEXT).into());
        if !self.span.failure.is_empty() {
            args.insert("failure".to_owned(), escaped(&self.span.failure, MAX_TEXT).into());
        }
        if self.span.end_us.is_none() {
            args.insert("goes-on".to_owned(), true.into());
        }
        json!({
            "ph": "X", "cat": if self.process == HOST { "host" } else { "guest" }, "name": name, "pid": self.process,
            "tid": self.lane + 1, "ts": self.start_us, "dur": self.length_us, "args": args,
        })
    }
}

/// Start and end by the host's clock; what goes on ends now, and nothing ends before it began.
fn place(span: &Span, now_us: u64, on_host: impl Fn(u64) -> i64) -> (i64, i64) {
    let start = on_host(span.start_us);
    (start, on_host(span.end_us.unwrap_or(now_us)).max(start))
}

fn seconds(us: i64) -> String {
    let ms = us / 1000;
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    pub(in super::super) fn span(name: &str, start_us: u64, end_us: impl Into<Option<u64>>) -> Span {
        Span {
            name: name.to_owned(),
            subject: String::new(),
            start_us,
            end_us: end_us.into(),
            failure: String::new(),
        }
    }

    /// The guest's clock shows 2 s when the host's shows 5 s; it is asked 1 s later.
    pub(in super::super) fn trace(host: Vec<Span>, guest: Vec<Span>) -> Trace {
        let at = Instant::now();
        let clock = |at, shows_us| Clock {
            at,
            uncertain_us: 7,
            shows_us,
        };
        Trace {
            pod: "p".to_owned(),
            host,
            host_clock: clock(at, 5_000_000),
            guest,
            guest_clock: clock(at + Duration::from_secs(1), 3_000_000),
        }
    }

    fn events(trace: &Trace) -> Vec<Value> {
        let value: Value = serde_json::from_str(&trace.render()).unwrap();
        let events = value["traceEvents"].as_array().unwrap().clone();
        events.into_iter().filter(|event| event["ph"] == "X").collect()
    }

    #[test]
    fn both_clocks_are_brought_together() {
        let trace = trace(vec![span("qemu", 1_000_000, 3_500_000)], vec![span("boot", 0, 500_000)]);
        let [qemu, boot] = events(&trace).try_into().unwrap();
        assert_eq!((&qemu["ts"], &qemu["dur"]), (&0.into(), &2_500_000.into()));
        // The guest's kernel began at 3 s of the host's clock, 2 s after the first span.
        assert_eq!((&boot["ts"], &boot["dur"]), (&2_000_000.into(), &500_000.into()));
        assert_ne!(qemu["pid"], boot["pid"]);
        let whole: Value = serde_json::from_str(&trace.render()).unwrap();
        assert_eq!(whole["otherData"]["clocks_agree_within_us"], 14);
    }

    #[test]
    fn what_overlaps_stands_on_lines_of_its_own() {
        let guest = vec![
            span("attest", 0, 10),
            span("image", 5, 20),
            span("keys", 10, 15),
            span("start", 20, None),
        ];
        let trace = trace(vec![span("create", 0, 5_000_000), span("configuration", 0, 10)], guest);
        let lane = |name: &str| {
            let events = events(&trace);
            let event = events.iter().find(|event| event["name"] == name).unwrap();
            (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap())
        };
        assert_eq!(lane("attest"), lane("keys"));
        assert_ne!(lane("attest"), lane("image"));
        assert_ne!(lane("create"), lane("configuration"));
        let text = trace.summary();
        assert!(text.contains("start (goes on)"), "{text}");
        assert!(text.lines().nth(1).unwrap().ends_with("create"), "{text}");
    }

    #[test]
    fn a_guest_cannot_break_the_trace_or_the_terminal() {
        let mut bad = span("bo\u{1b}[31mot\n", u64::MAX, 3);
        bad.failure = "\u{9b}2J\u{202e}".repeat(500);
        let trace = trace(Vec::new(), vec![bad]);
        let [event] = events(&trace).try_into().unwrap();
        assert_eq!(event["dur"], 0);
        let text = format!("{}{}", trace.render(), trace.summary());
        assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{202e}']));
        assert!(text.len() < 2000);
    }
}
