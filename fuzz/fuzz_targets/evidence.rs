//! Evidence: its JSON forms, ours and Trustee's, the raw report, and the verifier on top.
#![no_main]
use cella_attest::{Evidence, GuestEvidence, Launched, snp::Report, trustee};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Report::parse(data);
    if let Ok(evidence) = GuestEvidence::from_json(data) {
        let _ = Launched::of_evidence(&evidence);
        let again = evidence.to_json().expect("what was read can be written");
        assert_eq!(GuestEvidence::from_json(&again).expect("round trip"), evidence);
    }
    if let Ok(evidence) = Evidence::from_json(data) {
        assert_eq!(Evidence::from_json(&evidence.to_json()).expect("round trip").to_json(), evidence.to_json());
        // A report that Trustee's form can hold comes back from it.
        if let Ok(json) = trustee::to_json(&evidence) {
            assert_eq!(trustee::from_json(json).expect("round trip").report, evidence.report);
        }
    }
    if let Ok(evidence) = serde_json::from_slice(data).map_err(drop).and_then(|json| trustee::from_json(json).map_err(drop)) {
        assert!(trustee::to_json(&evidence).is_ok());
    }
    if let Ok(evidence) = serde_json::from_slice(data).map_err(drop).and_then(|json| trustee::td_from_json(json).map_err(drop)) {
        let again = trustee::td_to_json(&evidence).expect("what was read can be written");
        assert_eq!(trustee::td_from_json(again).expect("round trip"), evidence);
    }
});
