//! Output that the host may know of and not read (threat T3): its bytes are counted and dropped here.
//!
//! What leaves the guest is an event for each stream that was printed to: lines and bytes since its start, each rounded up to a
//! power of two, at most once in [`PERIOD`] and once at the end. When a program prints, and how much, tells of what it works on;
//! seldom and roughly it tells little.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};

use crate::pod::{Amount, EventKind, Events};

/// Whose output it is, and who is told.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Who is told.
    pub events: Events,
    /// The container, by the host's name.
    pub container: String,
    /// The further process; empty = the first.
    pub exec_id: String,
    /// `stdout`, `stderr`, or `terminal`.
    pub stream: &'static str,
}

impl Meter {
    /// Counts and drops what comes, to its end.
    pub(super) async fn run(self, mut pipe: impl AsyncRead + Unpin) {
        let (mut count, mut told) = (Count::default(), Count::default());
        let mut buffer = vec![0; super::CHUNK];
        // The first words are told of at once.
        let mut due = Instant::now();
        loop {
            let read = match count == told {
                true => Ok(pipe.read(&mut buffer).await),
                false => timeout_at(due, pipe.read(&mut buffer)).await,
            };
            match read {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(read)) => count.add(buffer.get(..read).unwrap_or_default()),
                Err(_) => {}
            }
            if count != told && Instant::now() >= due {
                self.tell(count, false);
                told = count;
                due = Instant::now() + PERIOD;
            }
        }
        if count != Count::default() {
            self.tell(count, true);
        }
    }

    fn tell(&self, count: Count, ended: bool) {
        let amount = Amount {
            stream: self.stream,
            lines: rounded(count.lines),
            bytes: rounded(count.bytes),
            ended,
        };
        let kind = EventKind::Output(amount);
        self.events
            .add(kind, &self.container, &self.exec_id, &amount.to_string());
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    lines: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: &[u8]) {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        self.lines = self.lines.saturating_add(u64::try_from(lines).unwrap_or(u64::MAX));
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }
}

/// The next power of two; 0 stays 0.
fn rounded(number: u64) -> u64 {
    match number {
        0 => 0,
        number => number.checked_next_power_of_two().unwrap_or(u64::MAX),
    }
}

/// Least time between two events about one stream.
pub const PERIOD: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    fn meter() -> (Meter, Events) {
        let events = Events::new();
        let meter = Meter {
            events: events.clone(),
            container: "c1".into(),
            exec_id: String::new(),
            stream: "stdout",
        };
        (meter, events)
    }

    #[tokio::test(start_paused = true)]
    async fn t3_how_much_is_told_roughly_and_seldom_and_never_what() {
        let (meter, events) = meter();
        let (mut program, pipe) = duplex(1 << 16);
        let counting = tokio::spawn(meter.run(pipe));
        program.write_all(b"the canary's first words\n").await.unwrap();
        let first = events.next(0).await;
        assert_eq!((first.kind.as_str(), first.container.as_str()), ("output", "c1"));
        assert_eq!(first.text, "stdout: at most 1 line, 32 bytes");
        let begun = Instant::now();
        for _ in 0..1000 {
            program.write_all(b"canary\n").await.unwrap();
        }
        let second = events.next(1).await;
        assert!(begun.elapsed() >= PERIOD, "{:?}", begun.elapsed());
        assert_eq!(second.text, "stdout: at most 1024 lines, 8192 bytes");
        program.write_all(b"x").await.unwrap();
        drop(program);
        counting.await.unwrap();
        let last = events.next(2).await;
        assert_eq!(last.text, "stdout: at most 1024 lines, 8192 bytes in all");
        for event in [first, second, last] {
            assert!(!event.text.contains("canary"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_not_told() {
        let (meter, events) = meter();
        let (program, pipe) = duplex(16);
        drop(program);
        meter.run(pipe).await;
        assert!(tokio::time::timeout(PERIOD * 3, events.next(0)).await.is_err());
    }

    #[test]
    fn t3_lengths_within_a_bucket_look_alike() {
        assert_eq!(rounded(0), 0);
        assert_eq!((rounded(1), rounded(33), rounded(64), rounded(65)), (1, 64, 64, 128));
        assert_eq!(rounded(u64::MAX), u64::MAX);
    }
}
