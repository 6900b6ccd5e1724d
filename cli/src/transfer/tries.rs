//! When to try again, and after how long.

use std::time::Duration;

use cella_oci::RegistryError;

/// Failures in a row of one thing.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    failures: u32,
}

impl Tries {
    /// It went on a bit: what comes now is a first failure again.
    pub(crate) fn went_on(&mut self) {
        self.failures = 0;
    }

    /// Whether it should be tried again after `error`: waits first, longer each time. `say` tells why.
    pub(crate) async fn again(&mut self, error: &RegistryError, say: impl Fn(&str)) -> bool {
        error.is_transient() && self.once_more(error, say).await
    }

    /// [`Tries::again`] whatever kind of error it was.
    pub(crate) async fn once_more(&mut self, error: &RegistryError, say: impl Fn(&str)) -> bool {
        if self.failures >= MOST {
            return false;
        }
        let wait = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures += 1;
        say(&format!("{}; again in {wait:?}", causes(error)));
        tokio::time::sleep(wait).await;
        true
    }
}

/// An error and its causes in one line.
fn causes(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// With the waits below: a registry that is away for a minute is waited for.
const MOST: u32 = if cfg!(test) { 4 } else { 8 };
const FIRST: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });
const LONGEST: Duration = Duration::from_secs(15);
