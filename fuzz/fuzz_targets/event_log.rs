//! Event logs of TDX guests: reading and replaying.
#![no_main]
use cella_attest::tdx::EventLog;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(log) = EventLog::parse(data) {
        assert_eq!(EventLog::parse(&data[..log.len]).expect("without the filling"), log);
        let extended: Vec<usize> = log.events.iter().map(|event| event.rtmr).collect();
        for (index, register) in log.replay().iter().enumerate() {
            assert_eq!(extended.contains(&index), *register != [0; 48]);
        }
    }
});
