//! How far a long work is, on standard error: a bar on a terminal, a plain line every few seconds elsewhere.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::units;

/// A work of known length. Dropped, it takes its bar away; [`Progress::finish`] says what was done.
pub(crate) struct Progress {
    counter: Counter,
    started: Instant,
    drawer: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

/// Counts for a [`Progress`], from any thread.
#[derive(Clone)]
pub(crate) struct Counter {
    shared: Arc<Shared>,
}

struct Shared {
    /// As in `sealing`.
    doing: &'static str,
    total: u64,
    done: AtomicU64,
    is_terminal: bool,
}

impl Progress {
    /// Begins; `doing` is a word like `sealing`, `total` the bytes to do.
    pub(crate) fn start(doing: &'static str, total: u64) -> Self {
        let counter = Counter {
            shared: Arc::new(Shared {
                doing,
                total,
                done: AtomicU64::new(0),
                is_terminal: io::stderr().is_terminal(),
            }),
        };
        let started = Instant::now();
        let (stop, stopped) = mpsc::channel();
        let drawn = counter.clone();
        let drawer = std::thread::spawn(move || draw(&drawn, started, &stopped));
        Self {
            counter,
            started,
            drawer: Some((stop, drawer)),
        }
    }

    /// For whoever does the work.
    pub(crate) fn counter(&self) -> Counter {
        self.counter.clone()
    }

    /// The last line: what was done, how long it took, and how fast it was.
    pub(crate) fn finish(mut self, done: &str) {
        self.stop();
        let (shared, elapsed) = (&self.counter.shared, self.started.elapsed());
        let rate = per_second(shared.total, elapsed);
        eprintln!(
            "{done}: {} in {}, {}/s",
            units::bytes(shared.total),
            units::duration(elapsed),
            units::bytes(rate)
        );
    }

    fn stop(&mut self) {
        if let Some((stop, drawer)) = self.drawer.take() {
            drop(stop);
            // A drawer that panicked has nothing more to draw.
            let _ = drawer.join();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Counter {
    /// So many bytes more.
    pub(crate) fn add(&self, bytes: u64) {
        self.shared.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes have to be done again.
    pub(crate) fn take_back(&self, bytes: u64) {
        self.shared.done.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Something that the user should know while the work goes on.
    pub(crate) fn say(&self, text: &str) {
        let clear = if self.shared.is_terminal { CLEAR } else { "" };
        eprintln!("{clear}{text}");
    }

    fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed).min(self.shared.total)
    }
}

/// Follows one part of the work, which may have to go back.
pub(crate) struct Part {
    counter: Counter,
    at: u64,
}

impl Part {
    pub(crate) fn new(counter: &Counter) -> Self {
        Self {
            counter: counter.clone(),
            at: 0,
        }
    }

    /// How far it is.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The part is done up to this byte.
    pub(crate) fn reach(&mut self, at: u64) {
        match at.checked_sub(self.at) {
            Some(more) => self.counter.add(more),
            None => self.counter.take_back(self.at - at),
        }
        self.at = at;
    }
}

fn draw(counter: &Counter, started: Instant, stopped: &mpsc::Receiver<()>) {
    let shared = &counter.shared;
    let tick = if shared.is_terminal { BAR_TICK } else { LINE_TICK };
    let mut rate = Rate::default();
    let mut drawn = false;
    while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
        let done = counter.done();
        let line = line(shared.doing, done, shared.total, rate.at(started.elapsed(), done));
        let mut out = io::stderr().lock();
        // Where standard error is closed there is nobody to tell.
        let _ = if shared.is_terminal {
            write!(out, "{CLEAR}{} {line}", bar(done, shared.total)).and_then(|()| out.flush())
        } else {
            writeln!(out, "{line}")
        };
        drawn = true;
    }
    if drawn && shared.is_terminal {
        eprint!("{CLEAR}");
    }
}

/// Bytes a second over the last few seconds.
#[derive(Default)]
struct Rate {
    seen: VecDeque<(Duration, u64)>,
}

impl Rate {
    /// Notes how far it is now, gives the rate.
    fn at(&mut self, now: Duration, done: u64) -> u64 {
        self.seen.push_back((now, done));
        while self.seen.len() > 2
            && self
                .seen
                .front()
                .is_some_and(|(then, _)| now.saturating_sub(*then) > WINDOW)
        {
            self.seen.pop_front();
        }
        let (then, before) = match self.seen.front() {
            Some((then, before)) if self.seen.len() > 1 => (*then, *before),
            _ => (Duration::ZERO, 0),
        };
        per_second(done.saturating_sub(before), now.saturating_sub(then))
    }
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000 / elapsed.as_micros().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// `sealing: 1.20 GiB of 3.00 GiB, 40 %, 812.00 MiB/s, 0:02 left`.
fn line(doing: &str, done: u64, total: u64, rate: u64) -> String {
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    let left = match total.saturating_sub(done).checked_div(rate) {
        Some(seconds) => format!("{}:{:02} left", seconds / 60, seconds % 60),
        None => "waiting".to_owned(),
    };
    format!(
        "{doing}: {} of {}, {percent} %, {}/s, {left}",
        units::bytes(done),
        units::bytes(total),
        units::bytes(rate)
    )
}

fn bar(done: u64, total: u64) -> String {
    let width = u64::try_from(WIDTH).unwrap_or(u64::MAX);
    let filled = u128::from(done) * u128::from(width) / u128::from(total.max(1));
    let filled = usize::try_from(filled).unwrap_or(WIDTH).min(WIDTH);
    format!("[{}{}]", "#".repeat(filled), ".".repeat(WIDTH - filled))
}

const CLEAR: &str = "\r\x1b[K";
const WIDTH: usize = 20;
const BAR_TICK: Duration = Duration::from_millis(200);
const LINE_TICK: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_rate_and_time_left() {
        let gib = 1 << 30;
        assert_eq!(
            line("sealing", gib, 3 * gib, gib / 2),
            "sealing: 1.00 GiB of 3.00 GiB, 33 %, 512.00 MiB/s, 0:04 left"
        );
        assert!(line("sealing", 0, gib, 0).ends_with("waiting"));
        assert!(line("sealing", 0, 0, 0).contains("0 %"));
        assert_eq!(bar(1, 2), "[##########..........]");
        assert_eq!(bar(9, 2), "[####################]");
    }

    #[test]
    fn the_rate_is_of_the_last_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.at(Duration::from_secs(1), 100), 100);
        for second in 2..20 {
            rate.at(Duration::from_secs(second), 100);
        }
        assert_eq!(rate.at(Duration::from_secs(20), 1100), 100, "1000 bytes in ten seconds");
    }

    #[test]
    fn parts_may_go_back() {
        let progress = Progress::start("testing", 100);
        let counter = progress.counter();
        let mut part = Part::new(&counter);
        part.reach(60);
        part.reach(20);
        assert_eq!(counter.done(), 20);
        counter.add(200);
        assert_eq!(counter.done(), 100);
        progress.finish("tested");
    }
}
