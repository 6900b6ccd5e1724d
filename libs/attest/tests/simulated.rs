//! Simulated reports against the same verifier: what a broker must refuse, and that nothing simulated passes for real.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::{fs, os::unix::fs::PermissionsExt, sync::LazyLock};

use cella_attest::{
    Anchors, ChainError, Evidence, Expected, VekError, Verified, VerifyError, VerifyOptions,
    sim::{Authority, Chip, ChipSpec, Claims, SimError},
    snp::{Cpuid, POLICY_DEBUG, POLICY_MIGRATE_MA, Product, Report, TcbVersion},
    verify_with,
};

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::generate().unwrap());
static CHIP: LazyLock<Chip> = LazyLock::new(|| AUTHORITY.chip(&ChipSpec::random()).unwrap());

const CHALLENGE: [u8; 64] = [5; 64];

fn claims() -> Claims {
    Claims::new(CHALLENGE, [6; 48], [7; 32])
}

fn anchors() -> Anchors {
    Anchors::amd().with_simulated(AUTHORITY.ark_spki_sha256())
}

fn check(evidence: &Evidence) -> Result<Verified, VerifyError> {
    let expected = Expected {
        report_data: &CHALLENGE,
        host_data: Some(&[7; 32]),
        vmpl: 0,
    };
    verify_with(evidence, &anchors(), &expected, &VerifyOptions::default())
}

/// The error for a report that the platform signed with these claims.
fn refusal(change: impl FnOnce(&mut Claims)) -> VerifyError {
    let mut claims = claims();
    change(&mut claims);
    check(&CHIP.issue(&claims).unwrap()).unwrap_err()
}

#[test]
fn a_good_report_verifies_and_is_marked() {
    let verified = check(&CHIP.issue(&claims()).unwrap()).unwrap();
    assert!(verified.simulated);
    assert_eq!(
        verified.product,
        Product::Genoa,
        "Milan would meet the default refusal (T20)"
    );
    assert_eq!(
        (verified.measurement, verified.host_data, verified.report_data),
        ([6; 48], [7; 32], CHALLENGE)
    );
    assert_eq!((verified.tcb, verified.chip_id), (CHIP.spec().tcb, CHIP.spec().chip_id));
    assert_eq!((verified.version, verified.policy), (3, 0x30000));
}

#[test]
fn t22_without_its_root_it_is_refused() {
    let evidence = CHIP.issue(&claims()).unwrap();
    let expected = Expected {
        report_data: &CHALLENGE,
        host_data: None,
        vmpl: 0,
    };
    for anchors in [Anchors::amd(), Anchors::none(), Anchors::amd().with_simulated([1; 32])] {
        let error = verify_with(&evidence, &anchors, &expected, &VerifyOptions::default()).unwrap_err();
        assert!(
            matches!(error, VerifyError::Chain(ChainError::NotAnAnchor { .. })),
            "{error:?}"
        );
    }
}

#[test]
fn t22_debug_and_migration_are_refused() {
    let error = refusal(|claims| claims.policy |= POLICY_DEBUG);
    assert!(
        matches!(error, VerifyError::DebugAllowed { policy: 0xb0000 }),
        "{error:?}"
    );
    let error = refusal(|claims| claims.policy |= POLICY_MIGRATE_MA);
    assert!(
        matches!(error, VerifyError::MigrationAllowed { policy: 0x70000 }),
        "{error:?}"
    );
}

#[test]
fn every_claim_is_compared() {
    assert!(matches!(
        refusal(|claims| claims.vmpl = 1),
        VerifyError::Vmpl { found: 1, expected: 0 }
    ));
    assert!(matches!(
        refusal(|claims| claims.report_data[0] ^= 1),
        VerifyError::ReportData
    ));
    assert!(matches!(
        refusal(|claims| claims.report_data[63] ^= 1),
        VerifyError::ReportData
    ));
    assert!(matches!(
        refusal(|claims| claims.host_data[31] ^= 1),
        VerifyError::HostData
    ));
    assert!(matches!(
        refusal(|claims| claims.version = 2),
        VerifyError::Version { found: 2, minimum: 3 }
    ));
    let milan = Cpuid {
        family: 0x19,
        model: 0x01,
        stepping: 1,
    };
    let mismatch = refusal(|claims| claims.cpuid = milan);
    let (reported, anchor) = (Product::Milan, Product::Genoa);
    assert!(
        matches!(mismatch, VerifyError::ProductMismatch { reported: r, anchor: a } if (r, a) == (reported, anchor))
    );
    let unknown = refusal(|claims| claims.cpuid.family = 0x17);
    assert!(matches!(unknown, VerifyError::UnknownProcessor { family: 0x17, .. }));
}

#[test]
fn t23_tcb_and_chip_must_be_those_of_the_key() {
    let certified = CHIP.spec().tcb;
    for claimed in [
        TcbVersion {
            bootloader: certified.bootloader + 1,
            ..certified
        },
        TcbVersion {
            tee: certified.tee + 1,
            ..certified
        },
        TcbVersion {
            snp: certified.snp - 1,
            ..certified
        },
        TcbVersion {
            microcode: 255,
            ..certified
        },
    ] {
        let error = refusal(|claims| claims.tcb = Some(claimed));
        assert!(
            matches!(error, VerifyError::Vek(VekError::Tcb { reported, .. }) if reported == claimed),
            "{error:?}"
        );
    }
    let error = refusal(|claims| claims.chip_id = Some([0; 64]));
    assert!(matches!(error, VerifyError::Vek(VekError::ChipId)), "{error:?}");
}

#[test]
fn t23_the_floor_is_inclusive() {
    let evidence = CHIP.issue(&claims()).unwrap();
    let expected = Expected {
        report_data: &CHALLENGE,
        host_data: None,
        vmpl: 0,
    };
    let with_floor = |floor| {
        verify_with(
            &evidence,
            &anchors(),
            &expected,
            &VerifyOptions::default().minimum_tcb(floor),
        )
        .map(|_| ())
    };
    let own = CHIP.spec().tcb;
    assert!(with_floor(own).is_ok());
    let above = TcbVersion {
        microcode: own.microcode + 1,
        ..own
    };
    assert!(matches!(with_floor(above), Err(VerifyError::TcbTooOld { .. })));
}

#[test]
fn t6_two_chips_and_two_machines_do_not_mix() {
    let evidence = CHIP.issue(&claims()).unwrap();
    let sibling = AUTHORITY.chip(&ChipSpec::random()).unwrap().issue(&claims()).unwrap();
    let foreign = Evidence {
        chain: sibling.chain.clone(),
        ..evidence.clone()
    };
    assert!(matches!(check(&foreign), Err(VerifyError::ReportSignature)));
    let stranger = Authority::generate()
        .unwrap()
        .chip(&ChipSpec::random())
        .unwrap()
        .issue(&claims())
        .unwrap();
    assert!(matches!(
        check(&stranger),
        Err(VerifyError::Chain(ChainError::NotAnAnchor { .. }))
    ));
    for place in 0..2 {
        let mut mixed = evidence.clone();
        mixed.chain[place] = stranger.chain[place].clone();
        let error = check(&mixed).unwrap_err();
        assert!(
            matches!(error, VerifyError::Chain(ChainError::Signature { .. })),
            "{place}: {error:?}"
        );
    }
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let mut swapped = evidence.clone();
        swapped.chain.swap(a, b);
        assert!(
            matches!(check(&swapped), Err(VerifyError::Chain(_))),
            "{a} and {b} swapped"
        );
    }
}

#[test]
fn every_byte_of_the_evidence_counts() {
    let evidence = CHIP.issue(&claims()).unwrap();
    for at in 0..evidence.report.len() {
        let mut changed = evidence.clone();
        changed.report[at] ^= 0x10;
        assert!(check(&changed).is_err(), "report byte {at:#x}");
    }
    for (place, der) in evidence.chain.iter().enumerate() {
        for at in 0..der.len() {
            let mut changed = evidence.clone();
            changed.chain[place][at] ^= 0x01;
            assert!(check(&changed).is_err(), "certificate {place} byte {at:#x}");
        }
        for len in 0..der.len() {
            let mut short = evidence.clone();
            short.chain[place].truncate(len);
            assert!(check(&short).is_err(), "certificate {place} cut to {len}");
        }
        let mut long = evidence.clone();
        long.chain[place].push(0);
        assert!(check(&long).is_err(), "certificate {place} with a byte behind");
    }
}

#[test]
fn a_chip_survives_its_folder() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("platform");
    CHIP.save(&dir).unwrap();
    for file in fs::read_dir(&dir).unwrap() {
        let metadata = file.unwrap().metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let again = Chip::load(&dir).unwrap();
    assert_eq!((again.chain(), again.spec()), (CHIP.chain(), CHIP.spec()));
    assert!(check(&again.issue(&claims()).unwrap()).is_ok());
    let pem = fs::read_to_string(Chip::ark_path(&dir)).unwrap();
    assert_eq!(pem, CHIP.ark_pem().unwrap());
    let anchors = Anchors::none().with_simulated_pem(&pem).unwrap();
    let expected = Expected {
        report_data: &CHALLENGE,
        host_data: None,
        vmpl: 0,
    };
    let evidence = CHIP.issue(&claims()).unwrap();
    assert!(verify_with(&evidence, &anchors, &expected, &VerifyOptions::default()).is_ok());
    assert!(
        matches!(CHIP.save(&dir), Err(SimError::File { .. })),
        "a platform is never overwritten"
    );
    assert_eq!(
        fs::read_dir(parent.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

#[test]
fn a_damaged_folder_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("platform");
    assert!(matches!(Chip::load(&dir), Err(SimError::File { .. })));
    CHIP.save(&dir).unwrap();
    let other = AUTHORITY.chip(&ChipSpec::random()).unwrap();
    let other_dir = parent.path().join("other");
    other.save(&other_dir).unwrap();
    fs::copy(other_dir.join("vcek.key"), dir.join("vcek.key")).unwrap();
    let error = Chip::load(&dir).err().unwrap();
    assert!(
        matches!(
            &error,
            SimError::State {
                what: "key of vcek.pem",
                ..
            }
        ),
        "{error:?}"
    );
    fs::write(dir.join("ask.pem"), "x").unwrap();
    let error = Chip::load(&dir).err().unwrap();
    assert!(
        matches!(&error, SimError::State { path, .. } if path.ends_with("ask.pem")),
        "{error:?}"
    );
}

#[test]
fn names_do_not_pass_for_amds() {
    use x509_cert::{Certificate, der::Decode};
    for der in CHIP.chain() {
        let certificate = Certificate::from_der(der).unwrap();
        assert!(certificate.tbs_certificate.subject.to_string().contains("NOT HARDWARE"));
    }
    assert_eq!(
        Report::parse(&CHIP.issue(&claims()).unwrap().report)
            .unwrap()
            .cpuid
            .unwrap()
            .model,
        0x11
    );
}

/// A second opinion on the layout of what is issued: the parser of the crate `sev`.
#[cfg(feature = "measure")]
#[test]
fn another_parser_reads_the_same() {
    use sev::{firmware::guest::AttestationReport, parser::ByteParser};
    let evidence = CHIP.issue(&claims()).unwrap();
    let other = AttestationReport::from_bytes(&evidence.report).unwrap();
    let own = Report::parse(&evidence.report).unwrap();
    assert_eq!(other.version, own.version);
    assert_eq!(other.measurement.as_slice(), own.measurement);
    assert_eq!(other.report_data.as_slice(), own.report_data);
    assert_eq!(other.host_data.as_slice(), own.host_data);
    assert_eq!(other.chip_id.as_slice(), own.chip_id);
    assert_eq!((other.cpuid_fam_id, other.cpuid_mod_id), (Some(0x19), Some(0x11)));
    let tcb = own.reported_tcb(Product::Genoa);
    let theirs = other.reported_tcb;
    assert_eq!(
        (theirs.bootloader, theirs.tee, theirs.snp, theirs.microcode),
        (tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode)
    );
}
