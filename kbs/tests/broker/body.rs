//! The parser of `/attest` and the verifier behind it, on bodies that are almost right.

use cella_attest::{Anchors, VerifyOptions};
use cella_kbs::appraisal::{AppraisalError, BodyError, MAX_ATTESTATION, appraise, parse_attestation};

use crate::guest::{Guest, ark_pem};

const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn anchors() -> Anchors {
    Anchors::amd().with_simulated_pem(&ark_pem()).unwrap()
}

#[test]
fn the_good_body_is_good() {
    let guest = Guest::new();
    let submission = parse_attestation(guest.attestation(NONCE).to_string().as_bytes()).unwrap();
    let facts = appraise(&submission, NONCE, &anchors(), &VerifyOptions::default()).unwrap();
    assert!(facts.simulated);
    assert_eq!(
        (facts.measurement, facts.initdata),
        (guest.measurement, guest.policy_digest())
    );
    assert_eq!(facts.tee_key, guest.key.public());
    let other = appraise(&submission, "bm9uY2U=", &anchors(), &VerifyOptions::default());
    assert!(matches!(other, Err(AppraisalError::Nonce)));
    let amd_only = appraise(&submission, NONCE, &Anchors::amd(), &VerifyOptions::default());
    assert!(matches!(amd_only, Err(AppraisalError::Evidence(_))));
}

#[test]
fn truncated_at_every_byte_is_an_error() {
    let body = Guest::new().attestation(NONCE).to_string();
    for length in 0..body.len() {
        assert!(
            matches!(
                parse_attestation(&body.as_bytes()[..length]),
                Err(BodyError::Json { .. })
            ),
            "{length}"
        );
    }
    let long = vec![b' '; MAX_ATTESTATION + 1];
    assert_eq!(parse_attestation(&long).map(|_| ()), Err(BodyError::TooLarge));
}

#[test]
fn one_bit_flipped_at_every_byte_is_an_error() {
    let good = Guest::new().attestation(NONCE).to_string().into_bytes();
    let anchors = anchors();
    for index in 0..good.len() {
        let mut body = good.clone();
        body[index] ^= 1 << (index % 8);
        if let Ok(submission) = parse_attestation(&body) {
            let facts = appraise(&submission, NONCE, &anchors, &VerifyOptions::default());
            assert!(facts.is_err(), "byte {index} does not matter");
        }
    }
}
