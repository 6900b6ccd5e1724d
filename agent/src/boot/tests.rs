use cella_attest::Evidence;
use cella_policy::initdata::{Algorithm, encode_device, host_data, write};

use super::*;
use crate::evidence::EvidenceError;

/// A platform that was launched with `host_data`; signatures are the key broker's business.
struct Platform {
    host_data: [u8; 32],
}

impl EvidenceSource for Platform {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Evidence, EvidenceError> {
        let mut report = vec![0; 1184];
        let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &3_u32.to_le_bytes());
        put(0x34, &1_u32.to_le_bytes());
        put(0x50, report_data);
        put(0xc0, &self.host_data);
        Ok(Evidence {
            report,
            chain: Vec::new(),
        })
    }

    fn name(&self) -> &'static str {
        "test"
    }
}

/// Gives no evidence at all.
struct NoPlatform;

impl EvidenceSource for NoPlatform {
    fn quote(&self, _: &[u8; 64]) -> Result<Evidence, EvidenceError> {
        Err(EvidenceError::Refused)
    }

    fn name(&self) -> &'static str {
        "none"
    }
}

fn bound_to(document: &str) -> Arc<dyn EvidenceSource> {
    Arc::new(Platform {
        host_data: host_data(document.as_bytes()).unwrap(),
    })
}

const POLICY: &str = include_str!("../../tests/common/policy.toml");

#[test]
fn bound_initdata_is_obeyed() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
        let document = write(POLICY, algorithm);
        let info = verify(&encode_device(document.as_bytes()), bound_to(&document)).unwrap();
        assert_eq!(info.initdata_text, document);
        assert_eq!(info.policy.containers()[0].name, "server");
    }
}

#[test]
fn t9_unbound_initdata_is_not_even_parsed() {
    let genuine = write(POLICY, Algorithm::Sha256);
    // Not TOML at all: a parser would complain about that, and must not get to see it.
    for other in ["][", &genuine.replace("/bin/true", "/bin/sh"), &format!("{genuine}\n")] {
        let result = verify(&encode_device(other.as_bytes()), bound_to(&genuine));
        assert!(matches!(result.err(), Some(BootError::NotBound { .. })), "{other:?}");
    }
}

#[test]
fn t2_zero_host_data_binds_nothing() {
    let document = write(POLICY, Algorithm::Sha256);
    let result = verify(
        &encode_device(document.as_bytes()),
        Arc::new(Platform { host_data: [0; 32] }),
    );
    assert!(matches!(result.err(), Some(BootError::NotBound { .. })));
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
    let evidence = bound_to(&document);
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
