//! Bodies of `/attest` at the key broker, of both kinds: the parser, and the appraisal behind it, which nothing that was not signed passes.
#![no_main]
use std::{sync::LazyLock, time::Duration};

use cella_attest::{
    Tee,
    sim::{TdAuthority, TdJudgement},
    tdx::Roots,
};
use cella_kbs::appraisal::{appraise, parse_attestation};
use cella_kbs::trust::{Collaterals, Trust};
use libfuzzer_sys::fuzz_target;

const NOW: Duration = Duration::from_secs(4_000_000_000);

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let authority = TdAuthority::generate().expect("keys");
    let collateral = authority.collateral(&TdJudgement::up_to_date(NOW)).expect("collateral");
    Trust {
        roots: Roots::intel().with_simulated(authority.root_spki_sha256()),
        collateral: Collaterals::new(vec![collateral]).expect("collateral"),
        ..Trust::default()
    }
});

fuzz_target!(|data: &[u8]| {
    for tee in [Tee::Snp, Tee::Tdx] {
        if let Ok(submission) = parse_attestation(data, tee) {
            assert!(appraise(&submission, &submission.nonce, &TRUST, NOW).is_err());
        }
    }
});
