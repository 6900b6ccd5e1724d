//! A run's record: its text, and with any text whose signatures are right the check against evidence.
#![no_main]
use cella_attest::{Anchors, VerifyOptions};
use cella_record::{Expectations, Hex, SignedRun, Trust, check_run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(signed) = SignedRun::parse(data) else { return };
    assert_eq!(signed.to_text().expect("canonical").trim_end().as_bytes(), data.strip_suffix(b"\n").unwrap_or(data));
    let trust = Trust { roots: &Anchors::amd(), snp: &VerifyOptions::default(), tdx: None };
    let expected = Expectations { document: Some(data), ..Expectations::launched_as(vec![Hex([0; 48])]) };
    assert!(check_run(&signed, &trust, &expected, &[]).is_err());
});
