//! What is asked where, and what is made of the kernel's answers. The kernel's own behaviour is `cella_attest::configfs`'s tests' matter, and needs a
//! confidential guest beyond that.

use std::path::Path;

use cella_attest::{Bound, Tee, cert_table::CertTableError};

use super::*;

/// Nothing is anywhere, but for what a test puts there.
fn nowhere(folder: &Path) -> KernelPaths {
    KernelPaths {
        configfs: folder.join("tsm"),
        sev_guest: folder.join("sev-guest"),
        tdx_guest: folder.join("tdx_guest"),
        event_log: folder.join("CCEL"),
    }
}

fn snp(certs: Option<Vec<u8>>) -> RawEvidence {
    let mut report = vec![0; 1184];
    report[0] = 3; // version
    report[0x34] = 1; // algorithm
    report[0xc0..0xe0].fill(8); // HOST_DATA
    RawEvidence {
        provider: Provider::SevGuest,
        report,
        certs,
    }
}

fn tdx() -> RawEvidence {
    RawEvidence {
        provider: Provider::TdxGuest,
        report: vec![4; 5000],
        certs: None,
    }
}

#[test]
fn without_any_interface_configfs_is_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let source = KernelSource::new(nowhere(folder.path()));
    let missing = |error| matches!(error, EvidenceError::Configfs(QuoteError::Create { .. }));
    assert!(missing(source.quote(&[0; 64]).unwrap_err()));
    assert!(missing(source.launched().unwrap_err()));
}

#[test]
fn the_sev_guest_device_is_asked_where_configfs_offers_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = KernelSource::new(KernelPaths {
        sev_guest: "/dev/null".into(),
        ..nowhere(folder.path())
    });
    let asked = |error| matches!(error, EvidenceError::SevGuest { .. });
    assert!(asked(source.quote(&[0; 64]).unwrap_err()));
    assert!(asked(source.launched().unwrap_err()));
}

#[test]
fn configfs_that_fails_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tsm")).unwrap();
    let source = KernelSource::new(KernelPaths {
        sev_guest: "/dev/null".into(),
        ..nowhere(folder.path())
    });
    let error = source.quote(&[0; 64]).unwrap_err();
    assert!(matches!(error, EvidenceError::Configfs(QuoteError::Attribute { .. })));
}

#[test]
fn a_tdx_guests_launch_is_the_modules_word() {
    let folder = tempfile::tempdir().unwrap();
    let source = KernelSource::new(KernelPaths {
        tdx_guest: "/dev/null".into(),
        ..nowhere(folder.path())
    });
    assert!(matches!(source.launched(), Err(EvidenceError::TdxGuest { .. })));
}

#[test]
fn t9_a_quote_that_came_through_the_host_says_nothing_about_the_launch() {
    let folder = tempfile::tempdir().unwrap();
    let source = KernelSource::new(nowhere(folder.path()));
    assert!(matches!(source.launch(tdx()), Err(EvidenceError::NoLocalReport { .. })));
    // The host's certificates decide nothing either.
    let launched = source.launch(snp(Some(vec![1; 100]))).unwrap();
    assert_eq!((launched.tee(), launched.bound), (Tee::Snp, Bound::HostData([8; 32])));
}

#[test]
fn the_hosts_chain_stands_in_once_and_only_where_the_report_comes_without() {
    let folder = tempfile::tempdir().unwrap();
    let source = KernelSource::new(nowhere(folder.path()));
    let chain = |certs| match source.evidence(snp(certs)) {
        Ok(GuestEvidence::Snp(evidence)) => Ok(evidence.chain),
        Ok(other) => panic!("{other:?}"),
        Err(EvidenceError::Certificates(error)) => Err(error),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(chain(None), Ok(vec![]));
    assert_eq!(chain(Some(vec![1; 100])), Err(CertTableError::Unterminated));
    source.offer_certificates(vec![vec![1], vec![2]]);
    source.offer_certificates(vec![vec![3]]);
    let cached = Ok(vec![vec![1], vec![2]]);
    assert_eq!((chain(None), chain(Some(vec![1; 100]))), (cached.clone(), cached));
}

#[test]
fn a_quote_takes_the_event_log_along_where_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let source = KernelSource::new(nowhere(folder.path()));
    let GuestEvidence::Tdx(evidence) = source.evidence(tdx()).unwrap() else {
        panic!("not a quote");
    };
    assert_eq!((evidence.quote.len(), evidence.event_log), (5000, None));
    std::fs::write(folder.path().join("CCEL"), b"no log").unwrap();
    assert!(matches!(source.evidence(tdx()), Err(EvidenceError::Log { .. })));
}
