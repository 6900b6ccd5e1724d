//! Documents of reference values: the envelope, the values, and that nothing is believed without a signature.
#![no_main]
use cella_attest::reference::Document;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(document) = Document::parse(data) {
        assert_eq!(Document::parse(&document.to_json()).expect("round trip"), document);
        if let Ok(values) = document.unverified() {
            assert_eq!(Document::of(&values).unverified().expect("round trip"), values);
        }
        assert!(document.verify(&[[7; 32]], 1_800_000_000).is_err());
    }
});
