//! Time as the broker sees it, behind a trait so that expiry is tested without waiting.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the broker takes the time from.
pub trait Clock: Send + Sync + 'static {
    /// Time since the Unix epoch: for tokens, cookies and the audit log. May jump when the host's clock is set.
    fn unix(&self) -> Duration;

    /// Time since an arbitrary moment, which only grows: for the lifetime of sessions.
    fn uptime(&self) -> Duration;
}

/// The clocks of the operating system.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose uptime starts now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    /// A clock before 1970 reads as 1970: every admin token is then refused and no session outlives its uptime.
    fn unix(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
