//! What the guest has been doing, and for how long: one record a stage, shown by the `Status` RPC.
//!
//! Times are microseconds since the kernel started (`CLOCK_BOOTTIME`), which no host clock moves. Nothing secret may be
//! put into a subject or a failure: both leave the guest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::time::{ClockId, clock_gettime};

/// Records kept at most; later stages are not recorded. A pod has a handful.
const MAX_RECORDS: usize = 256;

/// The names that a stage may have; `agent.proto` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageName {
    /// From the start of the kernel to the open vsock port.
    Boot,
    /// The exchange with the key broker up to the session.
    Attest,
    /// Fetching the keys that the policy names.
    Keys,
    /// Pulling, opening and unpacking one image.
    Image,
    /// Pulling, opening and locking one model.
    Model,
    /// Launching one container.
    Start,
    /// Sealing and pushing what a job has left.
    Output,
}

impl StageName {
    /// The name as `Status` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Attest => "attest",
            Self::Keys => "keys",
            Self::Image => "image",
            Self::Model => "model",
            Self::Start => "start",
            Self::Output => "output",
        }
    }
}

/// One stage, finished or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageRecord {
    /// Which stage.
    pub name: StageName,
    /// Image, model or container it worked on; empty where there is one only.
    pub subject: String,
    /// Start, in µs since the kernel started.
    pub start_us: u64,
    /// End, in µs since the kernel started; `None` while it runs.
    pub end_us: Option<u64>,
    /// Why it failed, in one line; `None` when it did not.
    pub failure: Option<String>,
}

/// All stages so far, in the order in which they began. Cheap to clone: clones share the records.
#[derive(Clone, Debug, Default)]
pub struct StageLog {
    records: Arc<Mutex<Vec<StageRecord>>>,
}

impl StageLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a stage now.
    pub fn begin(&self, name: StageName, subject: impl Into<String>) -> Stage {
        self.begin_at(name, subject, boot_time_us())
    }

    /// Begins a stage that started at `start_us`, for what began before there was a log.
    pub fn begin_at(&self, name: StageName, subject: impl Into<String>, start_us: u64) -> Stage {
        let mut records = self.lock();
        let index = (records.len() < MAX_RECORDS).then_some(records.len());
        if index.is_some() {
            records.push(StageRecord {
                name,
                subject: subject.into(),
                start_us,
                end_us: None,
                failure: None,
            });
        }
        drop(records);
        Stage {
            log: self.clone(),
            index,
            ended: false,
        }
    }

    /// A copy of all records.
    pub fn snapshot(&self) -> Vec<StageRecord> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<StageRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running stage. Dropping it unfinished records the failure `given up`.
#[derive(Debug)]
#[must_use = "a stage that is dropped counts as given up"]
pub struct Stage {
    log: StageLog,
    index: Option<usize>,
    ended: bool,
}

impl Stage {
    /// The stage succeeded.
    pub fn done(mut self) {
        self.end(None);
    }

    /// The stage failed; `failure` is shown to operators, its first line only.
    pub fn failed(mut self, failure: &dyn std::fmt::Display) {
        let text = failure.to_string();
        self.end(Some(text.lines().next().unwrap_or("failed").to_owned()));
    }

    /// Ends as `result` says and hands it on.
    pub fn finish<T, E: std::fmt::Display>(self, result: Result<T, E>) -> Result<T, E> {
        match &result {
            Ok(_) => self.done(),
            Err(error) => self.failed(error),
        }
        result
    }

    fn end(&mut self, failure: Option<String>) {
        self.ended = true;
        let mut records = self.log.lock();
        if let Some(record) = self.index.and_then(|index| records.get_mut(index)) {
            record.end_us = Some(boot_time_us());
            record.failure = failure;
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Some("given up".to_owned()));
        }
    }
}

/// Microseconds since the kernel started.
pub fn boot_time_us() -> u64 {
    // The clock always exists on Linux; 0 would only make a figure wrong.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| {
        let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
        let nanoseconds = u64::try_from(now.tv_nsec()).unwrap_or(0);
        seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1_000)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_has_a_start_an_end_and_no_failure() {
        let log = StageLog::new();
        log.begin(StageName::Image, "demo").done();
        let record = log.snapshot().remove(0);
        assert_eq!(
            (record.name, record.subject.as_str(), record.failure),
            (StageName::Image, "demo", None)
        );
        assert!(record.end_us.unwrap() >= record.start_us);
    }

    #[test]
    fn a_failure_keeps_its_first_line() {
        let log = StageLog::new();
        log.begin(StageName::Attest, "").failed(&"refused\nmore");
        assert_eq!(log.snapshot()[0].failure.as_deref(), Some("refused"));
    }

    #[test]
    fn a_dropped_stage_was_given_up_and_a_running_one_has_no_end() {
        let log = StageLog::new();
        drop(log.begin(StageName::Keys, ""));
        let running = log.begin(StageName::Model, "m");
        assert_eq!(log.snapshot()[0].failure.as_deref(), Some("given up"));
        assert_eq!(log.snapshot()[1].end_us, None);
        running.done();
    }

    #[test]
    fn the_log_is_bounded() {
        let log = StageLog::new();
        for _ in 0..MAX_RECORDS + 10 {
            log.begin(StageName::Start, "x").done();
        }
        assert_eq!(log.snapshot().len(), MAX_RECORDS);
    }
}
