//! How many lines anybody can cause.

use std::time::Duration;

/// Denials that are recorded at once, before rationing.
const BURST: u32 = 100;
/// Time after which one more is recorded.
const REFILL: Duration = Duration::from_millis(100);

/// A token bucket.
pub(super) struct Ration {
    left: u32,
    refilled: Duration,
    /// Lines left out since the last one that was written.
    pub(super) suppressed: u64,
}

impl Ration {
    /// A full bucket.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            left: BURST,
            refilled: now,
            suppressed: 0,
        }
    }

    /// Whether one more line may be written.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.refilled).as_millis() / REFILL.as_millis();
        if earned > 0 || now < self.refilled {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(BURST);
            self.refilled = now;
        }
        if self.left == 0 {
            self.suppressed += 1;
            return false;
        }
        self.left -= 1;
        true
    }
}
