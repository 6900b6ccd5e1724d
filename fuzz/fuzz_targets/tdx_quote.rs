//! TDX quotes: the parsers, the guest's own and the verifier's, and the verifier on top with the collateral of a real platform.
#![no_main]
use std::{sync::LazyLock, time::Duration};

use cella_attest::{
    sim::{TdAuthority, TdJudgement},
    tdx::{Collateral, LocalReport, Quote, Roots, TdReport, TdxEvidence, TdxExpected, TdxOptions, verify},
};
use libfuzzer_sys::fuzz_target;

static PLATFORM: LazyLock<(Roots, Collateral, Duration)> = LazyLock::new(|| {
    let authority = TdAuthority::generate().expect("keys");
    let now = Duration::from_secs(4_000_000_000);
    let roots = Roots::intel().with_simulated(authority.root_spki_sha256());
    let collateral = authority.collateral(&TdJudgement::up_to_date(now)).expect("collateral");
    (roots, collateral, now)
});

fuzz_target!(|data: &[u8]| {
    if let Some(bytes) = data.first_chunk() {
        let _ = LocalReport::parse(bytes);
    }
    let head = TdReport::of_quote(data);
    if let Ok(quote) = Quote::parse(data) {
        assert_eq!(head.as_ref().expect("the head of a quote"), &quote.report);
        assert!(quote.signed_len() <= data.len());
        let (roots, collateral, now) = &*PLATFORM;
        let evidence = TdxEvidence { quote: data, event_log: Some(data) };
        let expected = TdxExpected { report_data: &quote.report.report_data, mr_config_id: None };
        assert!(verify(&evidence, collateral, roots, &expected, &TdxOptions::default(), *now).is_err());
    }
});
