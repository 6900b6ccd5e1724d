//! The one parser that sees host bytes before they are verified: framing and inflater. Then the document itself.
#![no_main]
use cella_policy::initdata;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let inflated = initdata::inflate_device(data);
    if let Ok(document) = &inflated {
        assert!(document.len() <= initdata::MAX_DOCUMENT);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = initdata::inflate_annotation(text);
    }
    let document = inflated.as_deref().unwrap_or(data);
    if let Ok(algorithm) = initdata::algorithm(document) {
        let _ = initdata::parse(document, algorithm);
    }
    // What is framed comes back as it was.
    assert_eq!(initdata::inflate_device(&initdata::encode_device(data)).expect("framed by ourselves"), data);
});
