use super::*;

/// A log with SHA-256 beside SHA-384.
fn log(events: &[(u32, u32, u8)]) -> Vec<u8> {
    let mut log = [&1u32.to_le_bytes()[..], &3u32.to_le_bytes(), &[0; 20]].concat();
    let specification = [
        &b"Spec ID Event03\0"[..],
        &[0, 0, 0, 0, 0, 2, 0, 2],
        &2u32.to_le_bytes(),
        &[0x0b, 0, 32, 0, 0x0c, 0, 48, 0],
        &[0],
    ]
    .concat();
    log.extend(u32::try_from(specification.len()).unwrap().to_le_bytes());
    log.extend(&specification);
    for (register, kind, fill) in events {
        log.extend(register.to_le_bytes());
        log.extend(kind.to_le_bytes());
        log.extend(2u32.to_le_bytes());
        log.extend([0x0b, 0]);
        log.extend([0xee; 32]);
        log.extend([0x0c, 0]);
        log.extend([*fill; 48]);
        log.extend(4u32.to_le_bytes());
        log.extend(b"data");
    }
    log
}

fn sha384(parts: &[&[u8]]) -> [u8; 48] {
    crate::digest::sha384(&parts.concat())
}

#[test]
fn events_extend_their_registers_in_order() {
    let bytes = log(&[(1, 4, 7), (3, 13, 8), (1, 10, 9), (4, 3, 1), (0, 3, 1)]);
    let parsed = EventLog::parse(&bytes).unwrap();
    assert_eq!(parsed.events.len(), 3, "events without action extend nothing");
    assert_eq!(
        (parsed.events[1].rtmr, parsed.events[1].kind, parsed.events[1].data),
        (2, 13, &b"data"[..])
    );
    let first = sha384(&[&[0; 48], &[7; 48]]);
    let expected = [
        sha384(&[&first, &[9; 48]]),
        [0; 48],
        sha384(&[&[0; 48], &[8; 48]]),
        [0; 48],
    ];
    assert_eq!(parsed.replay(), expected);
    let exchanged = log(&[(1, 10, 9), (3, 13, 8), (1, 4, 7)]);
    assert_ne!(EventLog::parse(&exchanged).unwrap().replay()[0], expected[0]);
    assert_eq!(EventLog::parse(&log(&[])).unwrap().replay(), [[0; 48]; 4]);
}

#[test]
fn what_fills_the_area_is_the_end() {
    let bytes = log(&[(1, 4, 7)]);
    for filler in [0, 0xff] {
        for len in [1, 4, 12, 5000] {
            let padded = [bytes.clone(), vec![filler; len]].concat();
            let parsed = EventLog::parse(&padded).unwrap();
            assert_eq!(parsed, EventLog::parse(&bytes).unwrap(), "{len} of {filler}");
            assert_eq!(parsed.len, bytes.len(), "the filling is not counted");
        }
    }
    let hidden = [bytes.clone(), vec![0xff; 16], log(&[(1, 4, 7)])].concat();
    assert_eq!(
        EventLog::parse(&hidden),
        Err(EventLogError::Event { index: 1 }),
        "nothing may follow the end"
    );
}

#[test]
fn truncated_anywhere_is_an_error_or_a_shorter_log() {
    let bytes = log(&[(1, 4, 7), (2, 4, 8)]);
    let one = log(&[(1, 4, 7)]).len();
    let none = log(&[]).len();
    for len in 0..bytes.len() {
        let result = EventLog::parse(&bytes[..len]);
        match len {
            len if len == none || len == one => assert!(result.is_ok(), "{len}"),
            // The first bytes of a record may look like an area's filling only if they are all alike, and records begin with 1 to 4.
            _ => assert!(result.is_err(), "{len} bytes were taken"),
        }
    }
}

#[test]
fn one_bit_flipped_never_panics_and_never_goes_unseen() {
    let bytes = log(&[(1, 4, 7), (2, 4, 8)]);
    let good = EventLog::parse(&bytes).unwrap().replay();
    for at in log(&[]).len()..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let replayed = EventLog::parse(&flipped).map(|log| log.replay());
            let kept = replayed == Ok(good);
            // What a replay does not cover: the type (but for "no action"), digests of other algorithms, data.
            let within = (at - none()) % record_len();
            let free = (4..8).contains(&within) || (14..46).contains(&within) || within >= record_len() - 4;
            assert!(!kept || free, "byte {at} bit {bit}");
        }
    }
}

fn none() -> usize {
    log(&[]).len()
}

fn record_len() -> usize {
    log(&[(1, 4, 7)]).len() - none()
}

#[test]
fn bad_records_are_refused() {
    let at = none();
    let change = |offset: usize, bytes: &[u8]| {
        let mut changed = log(&[(1, 4, 7)]);
        changed[at + offset..at + offset + bytes.len()].copy_from_slice(bytes);
        EventLog::parse(&changed).map(|log| log.events.len())
    };
    let malformed = Err(EventLogError::Event { index: 0 });
    assert_eq!(change(0, &[0]), malformed, "MRTD is not extended");
    assert_eq!(change(0, &[5]), malformed, "no such register");
    assert_eq!(change(8, &[0]), malformed, "no digests");
    assert_eq!(change(8, &[0xff, 0xff, 0xff, 0xff]), malformed, "too many digests");
    assert_eq!(
        change(12, &[0x0d]),
        malformed,
        "an algorithm that the log does not list"
    );
    assert_eq!(change(46, &[0x0b]), malformed, "SHA-256 only");
    assert_eq!(change(96, &[0xff, 0xff, 0xff, 0xff]), malformed, "data beyond the end");
    let header = |offset: usize, byte: u8| {
        let mut changed = log(&[]);
        changed[offset] = byte;
        EventLog::parse(&changed).map(|log| log.events.len())
    };
    for (offset, byte) in [(4, 4), (32, b's'), (56, 9), (56, 0), (64, 0x0d), (66, 47), (28, 0xff)] {
        assert_eq!(header(offset, byte), Err(EventLogError::Header), "byte {offset}");
    }
    let many = log(&vec![(1, 4, 7); MAX_EVENTS + 1]);
    assert_eq!(EventLog::parse(&many), Err(EventLogError::TooMany));
    let most = log(&vec![(1, 4, 7); MAX_EVENTS]);
    assert_eq!(EventLog::parse(&most).unwrap().events.len(), MAX_EVENTS);
    let long = vec![0; MAX_EVENT_LOG + 1];
    assert!(matches!(EventLog::parse(&long), Err(EventLogError::TooLarge { .. })));
}
