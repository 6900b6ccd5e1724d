//! Intel's collateral: both JSON forms. What they hold is signed, and is parsed only after that.
#![no_main]
use cella_attest::tdx::Collateral;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Collateral::from_json(data);
    let (a, b) = data.split_at(data.len() / 2);
    let _ = Collateral::from_pcs(Vec::new(), Vec::new(), (a, String::new()), (b, String::new()));
});
