//! AMD's chain below a simulated root: each certificate foreign, or good with bytes of it changed; revocation lists; the host's table.
#![no_main]
use std::sync::LazyLock;

use cella_attest::sim::{Authority, ChipSpec, Claims};
use cella_attest::{Anchors, Evidence, Expected, cert_table, check_amd_crl, tdx, verify};
use libfuzzer_sys::fuzz_target;

struct Good {
    evidence: Evidence,
    anchors: Anchors,
    crl: Vec<u8>,
}

static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let authority = Authority::generate().expect("keys");
    let chip = authority.chip(&ChipSpec::random()).expect("chip");
    let good = Good {
        evidence: chip.issue(&Claims::new([1; 64], [2; 48], [3; 32])).expect("report"),
        anchors: Anchors::amd().with_simulated(authority.ark_spki_sha256()),
        crl: authority.crl(true, std::time::Duration::from_secs(1_800_000_000)).expect("list"),
    };
    assert!(accepted(&good, &good.evidence), "the good chain is good");
    good
});

// Keys of RSA take their time, which is not the first input's.
fuzz_target!(init: { LazyLock::force(&GOOD); }, |data: &[u8]| {
    let _ = cert_table::chain(data);
    let _ = check_amd_crl(data);
    if let Ok(pem) = std::str::from_utf8(data) {
        let _ = Anchors::none().with_simulated_pem(pem);
        let _ = tdx::Roots::none().with_simulated_pem(pem);
    }
    let Some((place, rest)) = data.split_first() else { return };
    let place = usize::from(*place) % 7;
    if place == 6 {
        let _ = check_amd_crl(&cella_fuzz::patched(&GOOD.crl, rest));
        return;
    }
    let mut evidence = GOOD.evidence.clone();
    let original = &GOOD.evidence.chain[place % 3];
    evidence.chain[place % 3] = if place < 3 { rest.to_vec() } else { cella_fuzz::patched(original, rest) };
    let same = evidence.chain[place % 3] == *original;
    assert_eq!(accepted(&GOOD, &evidence), same, "only the chain that was issued counts");
});

fn accepted(good: &Good, evidence: &Evidence) -> bool {
    let expected = Expected {
        report_data: &[1; 64],
        host_data: Some(&[3; 32]),
        vmpl: 0,
    };
    verify(evidence, &good.anchors, &expected).is_ok()
}
