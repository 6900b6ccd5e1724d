//! The agent's events: it keeps the last of them, numbered, and answers when there is a later one than the given.

use std::io;
use std::time::Duration;

use cella_protos::agent::{NextEventRequest, NextEventResponse};
use ttrpc::Code;

use super::LogsError;
use crate::node::{Phase, Pod};
use crate::status::{ConnectError, agent_of};
use crate::terminal::escaped;

/// Gives each event to `print`; with `follow` until the guest is gone. A guest that cannot be asked is an error only where its
/// events alone are wanted.
pub(super) async fn copy(
    pod: &Pod,
    follow: bool,
    only: bool,
    print: impl Fn(&str) -> io::Result<()>,
) -> Result<(), LogsError> {
    if !only && pod.phase() != Phase::Running {
        return Ok(());
    }
    let failed = |source| LogsError::Events { source };
    let agent = match agent_of(pod).await {
        Ok(agent) => agent,
        Err(_) if !only => return Ok(()),
        Err(source) => return Err(failed(EventsError::Connect { source })),
    };
    let mut after = 0;
    loop {
        let patience = if follow { LONG } else { SHORT };
        let request = NextEventRequest {
            after,
            ..Default::default()
        };
        let context = ttrpc::context::with_duration(patience + SHORT);
        let event = match tokio::time::timeout(patience, agent.next_event(context, &request)).await {
            Ok(Ok(event)) => event,
            // No later one for now.
            Err(_) if follow => continue,
            Err(_) => return Ok(()),
            Ok(Err(ttrpc::Error::RpcStatus(status))) if status.code() == Code::DEADLINE_EXCEEDED && follow => continue,
            Ok(Err(_)) if follow && after > 0 => return Ok(()),
            Ok(Err(_)) if !only => return Ok(()),
            Ok(Err(source)) => {
                return Err(failed(EventsError::Agent {
                    source: Box::new(source),
                }));
            }
        };
        // The number must grow, or a guest could keep us here.
        if event.number <= after {
            return Ok(());
        }
        after = event.number;
        if event.lost > 0 {
            print(&format!("event -: {} that came before are kept no more", event.lost))
                .map_err(|source| LogsError::Output { source })?;
        }
        print(&line(&event)).map_err(|source| LogsError::Output { source })?;
    }
}

fn line(event: &NextEventResponse) -> String {
    let mut line = format!(
        "event {} {} {}",
        event.number,
        time(event.at_unix_ns),
        escaped(&event.kind, MAX_NAME)
    );
    for (what, value) in [("container", &event.container), ("exec", &event.exec_id)] {
        if !value.is_empty() {
            line.push_str(&format!(" {what}={}", escaped(value, MAX_NAME)));
        }
    }
    format!("{line}: {}", escaped(&event.text, MAX_TEXT))
}

/// The guest's clock as a date in UTC: `2026-09-01T12:00:00Z`.
fn time(unix_ns: i64) -> String {
    let seconds = unix_ns.div_euclid(1_000_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 1970 to a date: Howard Hinnant's civil_from_days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Why there are no events.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EventsError {
    /// The way to the agent.
    #[error("the agent cannot be reached")]
    Connect { source: ConnectError },
    /// The agent itself.
    #[error("the agent gives no events")]
    Agent { source: Box<ttrpc::Error> },
}

/// For an event that is there already.
const SHORT: Duration = Duration::from_millis(500);
/// For the next one, before it is asked for again.
const LONG: Duration = Duration::from_secs(60);
const MAX_NAME: usize = 128;
const MAX_TEXT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_clean_line() {
        let event = NextEventResponse {
            number: 3,
            kind: "denied".into(),
            container: "server\n".into(),
            text: "policy denies \u{1b}[31mexec".into(),
            at_unix_ns: 1_788_264_000_000_000_000,
            ..Default::default()
        };
        assert_eq!(
            line(&event),
            "event 3 2026-09-01T12:00:00Z denied container=server\\x0a: policy denies \\x1b[31mexec"
        );
    }

    #[test]
    fn any_time_is_a_date() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59Z");
        assert_eq!(time(951_825_599_000_000_000), "2000-02-29T11:59:59Z");
        assert!(!time(i64::MIN).is_empty() && !time(i64::MAX).is_empty());
    }
}
