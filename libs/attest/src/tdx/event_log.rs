//! The event log of a TDX guest's boot (ACPI table CCEL; TCG PC Client Platform Firmware Profile, section 10; Intel TDX virtual firmware design
//! guide, section 8): what firmware, loader and kernel extended the RTMRs with.
//!
//! A log proves what replays: the digests, in their order. The data beside a digest is anybody's word until it is digested again.

use ring::digest::{Context, SHA384};

use crate::{evidence::MAX_EVENT_LOG, reader::Reader};

/// Most events that are looked at. A boot with GRUB has about 50.
const MAX_EVENTS: usize = 4096;
/// Most digests of an event, and most algorithms of a log.
const MAX_DIGESTS: u32 = 8;
/// An event that is not extended into any register.
const EV_NO_ACTION: u32 = 3;
/// SHA-384 in the TCG's registry of algorithms.
const ALG_SHA384: u16 = 0x0c;

/// One event that was extended into a register.
#[derive(Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// Register: 0 to 3.
    pub rtmr: usize,
    /// The TCG's type of the event.
    pub kind: u32,
    /// What the register was extended with.
    pub digest: [u8; 48],
    /// What the event says that it was. Not proven by a replay.
    pub data: &'a [u8],
}

/// A log that was read whole.
#[derive(Clone, PartialEq, Eq)]
pub struct EventLog<'a> {
    /// Events in order, without those that extend nothing.
    pub events: Vec<Event<'a>>,
    /// Bytes up to the end of the last event: what follows in the area is filling.
    pub len: usize,
}

impl<'a> EventLog<'a> {
    /// Reads a log: the area of the ACPI table, or the same cut off at its end. Pure.
    ///
    /// # Errors
    /// [`EventLogError`]; never a panic.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EventLogError> {
        if bytes.len() > MAX_EVENT_LOG {
            return Err(EventLogError::TooLarge { len: bytes.len() });
        }
        let mut at = Reader(bytes);
        let algorithms = first_record(&mut at).ok_or(EventLogError::Header)?;
        let mut events = Vec::new();
        for index in 0.. {
            if is_end(at.0) {
                let len = bytes.len().saturating_sub(at.0.len());
                return Ok(Self { events, len });
            }
            if index == MAX_EVENTS {
                return Err(EventLogError::TooMany);
            }
            let event = record(&mut at, &algorithms).ok_or(EventLogError::Event { index })?;
            events.extend(event);
        }
        Err(EventLogError::TooMany)
    }

    /// The values that the four registers have after these events.
    pub fn replay(&self) -> [[u8; 48]; 4] {
        let mut registers = [[0; 48]; 4];
        for event in &self.events {
            if let Some(register) = registers.get_mut(event.rtmr) {
                extend(register, &event.digest);
            }
        }
        registers
    }
}

/// Extends a register: SHA-384 of the old value and the digest.
pub(crate) fn extend(register: &mut [u8; 48], digest: &[u8; 48]) {
    let mut context = Context::new(&SHA384);
    context.update(register);
    context.update(digest);
    register.copy_from_slice(context.finish().as_ref());
}

/// Reads the record in the old form that says which algorithms the others have, and gives those with their lengths.
fn first_record(at: &mut Reader<'_>) -> Option<Vec<(u16, usize)>> {
    let _register = at.u32()?;
    let kind = at.u32()?;
    let _sha1: [u8; 20] = at.array()?;
    let mut specification = Reader(at.with_u32_len()?);
    if kind != EV_NO_ACTION || specification.array() != Some(*b"Spec ID Event03\0") {
        return None;
    }
    let _platform_version_and_sizes: [u8; 8] = specification.array()?;
    let count = specification.u32().filter(|count| *count <= MAX_DIGESTS)?;
    let mut algorithms = Vec::new();
    for _ in 0..count {
        algorithms.push((specification.u16()?, usize::from(specification.u16()?)));
    }
    let sha384 = algorithms.iter().filter(|(algorithm, _)| *algorithm == ALG_SHA384);
    sha384.eq(&[(ALG_SHA384, 48)]).then_some(algorithms)
}

/// Reads one record: an event, or nothing where none was extended.
fn record<'a>(at: &mut Reader<'a>, algorithms: &[(u16, usize)]) -> Option<Option<Event<'a>>> {
    let register = at.u32()?;
    let kind = at.u32()?;
    let count = at.u32().filter(|count| *count <= MAX_DIGESTS)?;
    let mut sha384 = None;
    for _ in 0..count {
        let algorithm = at.u16()?;
        let (_, len) = algorithms.iter().find(|(known, _)| *known == algorithm)?;
        let digest = at.bytes(*len)?;
        if algorithm == ALG_SHA384 && sha384.replace(digest.try_into().ok()?).is_some() {
            return None;
        }
    }
    let data = at.with_u32_len()?;
    if kind == EV_NO_ACTION {
        return Some(None);
    }
    // Register 0 is MRTD, which nothing extends while booting; 1 to 4 are RTMR0 to RTMR3.
    let rtmr = usize::try_from(register)
        .ok()?
        .checked_sub(1)
        .filter(|rtmr| *rtmr < 4)?;
    Some(Some(Event {
        rtmr,
        kind,
        digest: sha384?,
        data,
    }))
}

/// Whether nothing follows: the area behind the log is filled with ones, or with zeros.
fn is_end(rest: &[u8]) -> bool {
    let filler = rest.first().copied().unwrap_or(0xff);
    matches!(filler, 0 | 0xff) && rest.iter().all(|byte| *byte == filler)
}

impl std::fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RTMR{} {:#x} {}", self.rtmr, self.kind, crate::Hex(self.digest))
    }
}

impl std::fmt::Debug for EventLog<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.events).finish()
    }
}

/// Why bytes are not an event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventLogError {
    /// Longer than any log.
    #[error("an event log of {len} bytes; at most {MAX_EVENT_LOG} are read")]
    TooLarge {
        /// Bytes that came.
        len: usize,
    },
    /// Not the record that a log of this form begins with, or one without SHA-384.
    #[error("the event log does not begin with the specification of its form")]
    Header,
    /// A record that is cut off, of an unknown algorithm, of an unknown register, or without one SHA-384 digest.
    #[error("event {index} of the log is malformed")]
    Event {
        /// Which one, from 0.
        index: usize,
    },
    /// More events than any boot has.
    #[error("the event log has more than {MAX_EVENTS} events")]
    TooMany,
}

#[cfg(test)]
mod tests;
