//! Event logs of real guests, against the registers that they led to. Where they come from: `fetch-vectors.sh`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

mod vectors;

use cella_attest::tdx::EventLog;

/// RTMR0 to RTMR2 that go with the two logs, as google/go-eventlog states them.
const RTMRS_COS: [&str; 3] = [
    "3fa2f61f395b7f5feefb4ec2df61297f109ad8abcd6410c1b7df60f21f37b19297fc35e544039c7e1edece752afd17f6",
    "f62dbc072bd5d3f3438b7b35c39a727f5aea2ffc2473f43723953f530daf62504f0a7944aa62c41a86e8a878c2b122c1",
    "4969684dc87381fc3b3134176c8d8806eaf0a901859f5f70cfae8d17714b46c10a8de219048c9fc09f11f381a6fbe7c1",
];
const RTMRS_DUPE: [&str; 3] = [
    "a4de2df23e9611299123ba4359c42a5e578b0f8488bf1bba8ef5606d9ea5d81c97c064b482a5eac537d166bd0f0f752d",
    "0ee9366c928a77092f55e9e114c7394181fd264699155f0df77d23577618d5f650568a17d379355a07bd846e552f4e20",
    "4969684dc87381fc3b3134176c8d8806eaf0a901859f5f70cfae8d17714b46c10a8de219048c9fc09f11f381a6fbe7c1",
];

/// What each register held, by the project that publishes the log.
#[test]
fn a_real_event_log_replays_to_its_registers() {
    let bytes = vectors::read("ccel-cos.bin");
    let log = EventLog::parse(&bytes).unwrap();
    assert_eq!(log.events.len(), 43);
    let replayed = log.replay().map(hex::encode);
    assert_eq!(&replayed[..3], RTMRS_COS);
    assert_eq!(replayed[3], "0".repeat(96));
    let dupe = vectors::read("ccel-dupe.bin");
    assert_eq!(
        &EventLog::parse(&dupe).unwrap().replay().map(hex::encode)[..3],
        RTMRS_DUPE
    );
    let other = vectors::read("ccel-other.bin");
    assert!(!EventLog::parse(&other).unwrap().events.is_empty());

    let end = bytes.iter().rposition(|byte| *byte != 0xff).unwrap() + 1;
    assert_eq!(EventLog::parse(&bytes[..end]).unwrap(), log, "cut off at its end");
    let mut exchanged = log.clone();
    let (a, b) = (0, 1);
    exchanged.events.swap(a, b);
    assert_ne!(exchanged.replay(), log.replay());
}
