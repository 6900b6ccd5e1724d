//! A time that somebody who is trusted has stated, in place of the system's.
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// The time by the statement of a trusted peer, unknown until there is one; from then on it goes with the processor's
/// monotonic clock. Clones share it.
#[derive(Debug, Clone)]
pub struct TrustedTime(Arc<watch::Sender<Option<Statement>>>);

/// What was stated, and when that was by the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Statement {
    unix: Duration,
    at: Instant,
}

impl Statement {
    fn now(&self) -> Duration {
        self.unix.saturating_add(self.at.elapsed())
    }
}

impl TrustedTime {
    /// A time that nobody has stated yet.
    pub fn unknown() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Takes `unix`, since the Unix epoch, for the time of this moment. A later statement can move the time forward and never
    /// back.
    pub fn learn(&self, unix: Duration) {
        let new = Statement {
            unix,
            at: Instant::now(),
        };
        self.0.send_if_modified(|old| {
            let takes = old.is_none_or(|old| old.now() < unix);
            if takes {
                *old = Some(new);
            }
            takes
        });
    }

    /// The time now, since the Unix epoch; `None` before there is a statement.
    pub fn now(&self) -> Option<Duration> {
        self.0.borrow().as_ref().map(Statement::now)
    }

    /// Waits for the first statement, and gives the time then. Cancel safe.
    pub async fn known(&self) -> Duration {
        let mut statements = self.0.subscribe();
        // The sender lives as long as this does, so the wait cannot fail.
        let known = statements.wait_for(Option::is_some).await;
        known
            .ok()
            .and_then(|statement| *statement)
            .map_or(Duration::ZERO, |statement| statement.now())
    }
}

impl Default for TrustedTime {
    fn default() -> Self {
        Self::unknown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test]
    async fn t10_it_is_unknown_then_runs_and_is_never_put_back() {
        let time = TrustedTime::unknown();
        assert_eq!(time.now(), None);
        let waiting = tokio::spawn({
            let time = time.clone();
            async move { time.known().await }
        });
        let stated = 20_000 * DAY;
        time.learn(stated);
        assert!(waiting.await.unwrap() >= stated);
        let before = time.now().unwrap();
        while time.now().unwrap() == before {
            std::thread::yield_now();
        }
        assert!(time.now().unwrap() > before);
        time.learn(stated - DAY);
        assert!(time.now().unwrap() >= stated);
        time.learn(stated + DAY);
        assert!(time.now().unwrap() >= stated + DAY && time.now().unwrap() < stated + 2 * DAY);
        assert!(time.known().await >= stated + DAY);
    }
}
