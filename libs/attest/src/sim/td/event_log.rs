//! The event log that a firmware would have written.

use super::{TdAuthority, len32};
use crate::tdx::Event;

impl TdAuthority {
    /// Writes a log with SHA-384 alone, as TDX firmware does: what [`crate::tdx::EventLog::parse`] reads, without filling.
    pub fn event_log(events: &[Event<'_>]) -> Vec<u8> {
        let specification = [
            &b"Spec ID Event03\0"[..],
            // Platform class, version 2.0, errata, size of addresses.
            &[0, 0, 0, 0, 0, 2, 0, 2],
            &1u32.to_le_bytes(),
            &[ALG_SHA384, 0, 48, 0],
            &[0],
        ]
        .concat();
        let mut log = [&1u32.to_le_bytes()[..], &EV_NO_ACTION.to_le_bytes(), &[0; 20]].concat();
        log.extend(len32(&specification));
        log.extend(specification);
        for event in events {
            // Register 1 of the log is RTMR0.
            let register = u32::try_from(event.rtmr).map_or(u32::MAX, |rtmr| rtmr.saturating_add(1));
            log.extend(register.to_le_bytes());
            log.extend(event.kind.to_le_bytes());
            log.extend(1u32.to_le_bytes());
            log.extend([ALG_SHA384, 0]);
            log.extend(event.digest);
            log.extend(len32(event.data));
            log.extend(event.data);
        }
        log
    }
}

const EV_NO_ACTION: u32 = 3;
/// The TCG's number of the algorithm.
const ALG_SHA384: u8 = 0x0c;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tdx::EventLog;

    #[test]
    fn what_is_written_is_read() {
        let event = |rtmr, kind, fill, data| Event {
            rtmr,
            kind,
            digest: [fill; 48],
            data,
        };
        let events = [
            event(0, 4, 1, &b"a"[..]),
            event(2, 0x8000_0007, 2, b""),
            event(0, 6, 3, b"\xff\xff"),
        ];
        let log = TdAuthority::event_log(&events);
        let parsed = EventLog::parse(&log).unwrap();
        assert_eq!((parsed.events.as_slice(), parsed.len), (&events[..], log.len()));
        assert_eq!(EventLog::parse(&TdAuthority::event_log(&[])).unwrap().events, []);
    }
}
