//! Header and layout of a sealed file: lengths from a peer, arithmetic that must not wrap.
#![no_main]
use cella_seal::stream::{HEADER, Header, Layout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (u64, [u8; HEADER])| {
    let (length, header) = data;
    if let Ok(header) = Header::parse(&header) {
        assert_eq!(Header::parse(&header.to_bytes()).expect("round trip").to_bytes(), header.to_bytes());
    }
    if let Ok(layout) = Layout::from_ciphertext_len(length) {
        assert_eq!(layout.ciphertext_len(), length);
        let again = Layout::from_plaintext_len(layout.plaintext_len()).expect("a layout's plaintext has a layout");
        assert_eq!(again.ciphertext_len(), length);
        let last = layout.segment(layout.segments() - 1).expect("a last segment");
        assert!(last.last && last.ciphertext.end == length && last.plaintext.end == layout.plaintext_len());
        assert!(layout.segment(layout.segments()).is_none());
    }
});
