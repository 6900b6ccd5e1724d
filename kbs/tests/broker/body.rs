//! The parser of `/attest` and the verifier behind it, on bodies that are almost right.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cella_attest::{Anchors, Tee};
use cella_kbs::appraisal::{AppraisalError, BodyError, MAX_ATTESTATION, appraise, parse_attestation};
use cella_kbs::trust::Trust;

use crate::guest::{Guest, ark_pem};
use crate::td::{self, TdGuest};

const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn trust() -> Trust {
    Trust {
        anchors: Anchors::amd().with_simulated_pem(&ark_pem()).unwrap(),
        ..td::trust()
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Bodies of both kinds.
fn bodies() -> [(Tee, String); 2] {
    let (snp, td) = (Guest::new(), TdGuest::new());
    [
        (Tee::Snp, snp.attestation(NONCE).to_string()),
        (Tee::Tdx, td.attestation(NONCE).to_string()),
    ]
}

#[test]
fn the_good_body_is_good() {
    let guest = Guest::new();
    let submission = parse_attestation(guest.attestation(NONCE).to_string().as_bytes(), Tee::Snp).unwrap();
    let facts = appraise(&submission, NONCE, &trust(), now()).unwrap();
    assert!(facts.simulated());
    assert_eq!(
        (facts.launch_digest(), facts.initdata),
        (guest.measurement, guest.policy_digest())
    );
    assert_eq!(facts.tee_key, guest.key.public());
    let other = appraise(&submission, "bm9uY2U=", &trust(), now());
    assert!(matches!(other, Err(AppraisalError::Nonce)));
    let amd_only = appraise(&submission, NONCE, &Trust::default(), now());
    assert!(matches!(amd_only, Err(AppraisalError::Evidence(_))));
}

#[test]
fn the_good_body_of_a_tdx_guest_is_good() {
    let guest = TdGuest::new();
    let submission = parse_attestation(guest.attestation(NONCE).to_string().as_bytes(), Tee::Tdx).unwrap();
    let facts = appraise(&submission, NONCE, &trust(), now()).unwrap();
    assert!(facts.simulated());
    assert_eq!(
        (facts.launch_digest(), facts.initdata),
        (guest.launch_digest(), guest.policy_digest())
    );
    assert_eq!((facts.tee(), facts.tee_key), (Tee::Tdx, guest.key.public()));
    let other = appraise(&submission, "bm9uY2U=", &trust(), now());
    assert!(matches!(other, Err(AppraisalError::Nonce)));
    let none = appraise(&submission, NONCE, &Trust::default(), now());
    assert!(matches!(none, Err(AppraisalError::NoCollateral { .. })));
    let intel_only = Trust {
        roots: cella_attest::tdx::Roots::intel(),
        ..trust()
    };
    let intel_only = appraise(&submission, NONCE, &intel_only, now());
    assert!(matches!(intel_only, Err(AppraisalError::Quote(_))));
}

#[test]
fn a_body_of_the_other_kind_is_refused() {
    let [(_, snp), (_, td)] = bodies();
    assert_eq!(
        parse_attestation(snp.as_bytes(), Tee::Tdx).map(drop),
        Err(BodyError::Quote)
    );
    assert_eq!(
        parse_attestation(td.as_bytes(), Tee::Snp).map(drop),
        Err(BodyError::Evidence)
    );
}

#[test]
fn truncated_at_every_byte_is_an_error() {
    for (tee, body) in bodies() {
        for length in 0..body.len() {
            let cut = parse_attestation(&body.as_bytes()[..length], tee);
            assert!(matches!(cut, Err(BodyError::Json { .. })), "{tee:?} {length}");
        }
        let long = vec![b' '; MAX_ATTESTATION + 1];
        assert_eq!(parse_attestation(&long, tee).map(drop), Err(BodyError::TooLarge));
    }
}

#[test]
fn one_bit_flipped_at_every_byte_is_an_error() {
    let trust = trust();
    for (tee, good) in bodies() {
        for index in 0..good.len() {
            let mut body = good.clone().into_bytes();
            body[index] ^= 1 << (index % 8);
            if let Ok(submission) = parse_attestation(&body, tee) {
                let facts = appraise(&submission, NONCE, &trust, now());
                assert!(facts.is_err(), "{tee:?}: byte {index} does not matter");
            }
        }
    }
}
