use cella_attest::{GuestEvidence, Launched};
use cella_policy::initdata::{Algorithm, encode_device, host_data, mr_config_id, write};

use super::*;
use crate::evidence::EvidenceError;

/// A platform that was launched with this; signatures are the key broker's business.
struct Platform(Bound);

impl EvidenceSource for Platform {
    fn launched(&self) -> Result<Launched, EvidenceError> {
        Ok(Launched {
            bound: self.0,
            measurement: [0; 48],
            tcb: String::new(),
        })
    }

    fn quote(&self, _: &[u8; 64]) -> Result<GuestEvidence, EvidenceError> {
        panic!("evidence is for the key broker");
    }
}

/// Gives no evidence at all.
struct NoPlatform;

impl EvidenceSource for NoPlatform {
    fn launched(&self) -> Result<Launched, EvidenceError> {
        Err(EvidenceError::Refused)
    }

    fn quote(&self, _: &[u8; 64]) -> Result<GuestEvidence, EvidenceError> {
        Err(EvidenceError::Refused)
    }
}

/// A guest of each kind that was launched with the document.
fn bound_to(document: &str) -> [Arc<dyn EvidenceSource>; 2] {
    let document = document.as_bytes();
    [
        Arc::new(Platform(Bound::HostData(host_data(document).unwrap()))),
        Arc::new(Platform(Bound::MrConfigId(mr_config_id(document).unwrap()))),
    ]
}

const POLICY: &str = include_str!("../../tests/common/policy.toml");

#[test]
fn bound_initdata_is_obeyed() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
        let document = write(POLICY, algorithm);
        for (tee, platform) in [Tee::Snp, Tee::Tdx].into_iter().zip(bound_to(&document)) {
            let info = verify(&encode_device(document.as_bytes()), platform).unwrap();
            assert_eq!(info.initdata_text, document);
            assert_eq!(info.policy.containers()[0].name, "server");
            assert_eq!(info.tee, tee);
        }
    }
}

#[test]
fn t9_unbound_initdata_is_not_even_parsed() {
    let genuine = write(POLICY, Algorithm::Sha256);
    // Not TOML at all: a parser would complain about that, and must not get to see it.
    for other in ["][", &genuine.replace("/bin/true", "/bin/sh"), &format!("{genuine}\n")] {
        for platform in bound_to(&genuine) {
            let result = verify(&encode_device(other.as_bytes()), platform);
            assert!(matches!(result.err(), Some(BootError::NotBound { .. })), "{other:?}");
        }
    }
}

#[test]
fn t2_zeros_bind_nothing() {
    let document = write(POLICY, Algorithm::Sha256);
    for (zeros, field) in [
        (Bound::HostData([0; 32]), "HOST_DATA is 00"),
        (Bound::MrConfigId([0; 48]), "MRCONFIGID is 00"),
    ] {
        let result = verify(&encode_device(document.as_bytes()), Arc::new(Platform(zeros)));
        let error = result.err().unwrap();
        assert!(matches!(error, BootError::NotBound { .. }));
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn no_evidence_no_service() {
    let document = write(POLICY, Algorithm::Sha256);
    let result = verify(&encode_device(document.as_bytes()), Arc::new(NoPlatform));
    assert!(matches!(
        result.err(),
        Some(BootError::Evidence(EvidenceError::Refused))
    ));
}

#[test]
fn a_malformed_disk_is_refused_at_every_length() {
    let document = write(POLICY, Algorithm::Sha256);
    let device = encode_device(document.as_bytes());
    let [evidence, _] = bound_to(&document);
    for length in 0..device.len() {
        assert!(verify(&device[..length], Arc::clone(&evidence)).is_err(), "{length}");
    }
}

#[test]
fn models_that_do_not_fit_are_refused_with_both_sizes() {
    let policy = Policy::parse(POLICY).unwrap();
    assert_eq!(policy.model_bytes(), 300 << 20);
    check_memory(&policy, "MemTotal: 500000 kB\n").unwrap();
    let error = check_memory(&policy, "MemTotal: 400000 kB\n").unwrap_err();
    assert!(!error.is_fatal());
    assert_eq!(
        error.to_string(),
        "model larger than guest memory: models/demo needs 300 MiB and the guest itself 96 MiB, this guest has 390 MiB; \
         give it more memory"
    );
    assert!(matches!(
        check_memory(&policy, "no such line"),
        Err(BootError::MemoryUnknown)
    ));
}

#[test]
fn all_other_refusals_end_the_guest() {
    assert!(BootError::from(crate::initdata::DiskError::Missing).is_fatal());
    assert!(BootError::NotText.is_fatal());
}
