//! The event log of a TDX guest's boot, from the ACPI table CCEL.
//!
//! Whose bytes: the firmware's and the host's; the digests in it replay to registers in the quote, or the key broker refuses. The guest finds out where
//! the log ends, within the parser's bounds, and sends no more than that: the area behind is 64 KiB to 1 MiB of filling.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use cella_attest::{MAX_EVENT_LOG, tdx::EventLog};

use super::EvidenceError;

/// The log up to its end; `None` where the firmware left none. The kernel offers it although it reads no AML of the host's: CCEL is one of the tables
/// that it takes (ADR 0002).
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, EvidenceError> {
    let failed = |source| EvidenceError::ReadLog {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let limit = u64::try_from(MAX_EVENT_LOG).map_or(u64::MAX, |max| max.saturating_add(1));
    let mut area = Vec::new();
    file.take(limit).read_to_end(&mut area).map_err(failed)?;
    if area.len() > MAX_EVENT_LOG {
        return Err(EvidenceError::LongLog { path: path.to_owned() });
    }
    let len = EventLog::parse(&area)
        .map_err(|source| EvidenceError::Log {
            path: path.to_owned(),
            source,
        })?
        .len;
    area.truncate(len);
    Ok(Some(area))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The record that begins a log, with SHA-384 only.
    fn header() -> Vec<u8> {
        let mut specification = b"Spec ID Event03\0".to_vec();
        specification.extend([0; 8]);
        specification.extend(1_u32.to_le_bytes());
        specification.extend([0x0c, 0, 48, 0, 0]);
        let mut log = [0_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat();
        log.extend([0; 20]);
        log.extend(u32::try_from(specification.len()).unwrap().to_le_bytes());
        log.extend(specification);
        log
    }

    fn event() -> Vec<u8> {
        let mut event = [1_u32, 4, 1].map(u32::to_le_bytes).concat();
        event.extend([0x0c, 0]);
        event.extend([7; 48]);
        event.extend(4_u32.to_le_bytes());
        // Data that ends like the filling does.
        event.extend([0xff; 4]);
        event
    }

    #[test]
    fn the_filling_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("CCEL");
        let log = [header(), event()].concat();
        for filler in [0, 0xff] {
            fs::write(&path, [log.clone(), vec![filler; 65536]].concat()).unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), log);
        }
        fs::write(&path, &log).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), log);
    }

    #[test]
    fn none_is_none_and_a_bad_one_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("CCEL");
        assert!(read(&path).unwrap().is_none());
        fs::write(&path, b"no log").unwrap();
        assert!(matches!(read(&path), Err(EvidenceError::Log { .. })));
        fs::write(&path, vec![0; MAX_EVENT_LOG + 1]).unwrap();
        assert!(matches!(read(&path), Err(EvidenceError::LongLog { .. })));
        assert!(matches!(read(folder.path()), Err(EvidenceError::ReadLog { .. })));
    }
}
