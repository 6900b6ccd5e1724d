//! Evidence: its JSON form, the raw report, and the verifier on top.
#![no_main]
use cella_attest::{Evidence, snp::Report};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Report::parse(data);
    if let Ok(evidence) = Evidence::from_json(data) {
        assert_eq!(Evidence::from_json(&evidence.to_json()).expect("round trip").to_json(), evidence.to_json());
    }
});
