//! The head of an answer that the agent's pull reads by itself: a registry's bytes, or whoever sits between.
#![no_main]
use cella_http::HeadReader;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 16 << 10;

fuzz_target!(|data: &[u8]| {
    let whole = HeadReader::new(LIMIT).push(data);
    let mut reader = HeadReader::new(LIMIT);
    let mut bytewise = Ok(None);
    for (at, byte) in data.iter().enumerate() {
        bytewise = reader.push(&[*byte]);
        if let Ok(Some((_, rest))) = &mut bytewise {
            rest.extend_from_slice(&data[at + 1..]);
        }
        if !matches!(bytewise, Ok(None)) {
            break;
        }
    }
    assert_eq!(whole, bytewise, "it matters how the bytes are cut");
    if let Ok(Some((head, rest))) = whole {
        assert!(head.headers.len() <= 100 && data.ends_with(&rest));
        assert!(!head.status.is_informational());
    }
});
