//! The system's clock, set by the time that the key broker states: for containers, which know no other. The agent itself asks
//! [`TrustedTime`]; the machine's clock begins with what the host's CMOS chip says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cella_http::TrustedTime;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use slog::{Logger, error, warn};

/// Waits for the time and sets the clock, if it is wrong.
pub(super) async fn follow(time: TrustedTime, log: Logger) {
    let stated = time.known().await;
    let shown = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let Some(off) = off_by(shown, stated) else { return };
    match clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(stated)) {
        Ok(()) => warn!(log, "the machine's clock was wrong and is set"; "off_s" => off.as_secs()),
        Err(errno) => error!(log, "the machine's clock cannot be set"; "errno" => %errno, "off_s" => off.as_secs()),
    }
}

/// How wrong the clock is, if that is worth a step. A token states whole seconds, and takes some time to come.
fn off_by(shown: Duration, stated: Duration) -> Option<Duration> {
    Some(shown.abs_diff(stated)).filter(|off| *off > TOLERANCE)
}

const TOLERANCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t10_a_clock_that_is_seconds_off_is_set_and_one_that_is_right_is_not() {
        let now = Duration::from_secs(1_800_000_000);
        let years = Duration::from_secs(10 * 31_557_600);
        for fine in [Duration::ZERO, Duration::from_millis(1500), TOLERANCE] {
            assert_eq!(off_by(now + fine, now), None);
            assert_eq!(off_by(now, now + fine), None);
        }
        assert_eq!(off_by(now + years, now), Some(years));
        assert_eq!(off_by(now - years, now), Some(years));
        assert_eq!(off_by(Duration::ZERO, now), Some(now));
    }
}
