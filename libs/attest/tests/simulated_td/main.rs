//! Simulated quotes against the same verifier: every branch of policy that no published quote shows, and that nothing simulated passes for real.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

mod caller;

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cella_attest::{
    CertRole, ChainError, CrlError, CrlRole,
    sim::{TdAuthority, TdJudgement, TdRevoked},
    tdx::{
        ATTRIBUTE_DEBUG, ATTRIBUTE_MIGRATABLE, ATTRIBUTE_PERFMON, ATTRIBUTE_SEPT_VE_DISABLE, Collateral, Roots,
        SignedError, TcbException, TcbStatus, TdReport, TdxError, TdxEvidence, TdxExpected, TdxOptions, VerifiedTd,
        verify,
    },
};

static AUTHORITY: LazyLock<TdAuthority> = LazyLock::new(|| TdAuthority::generate().unwrap());
/// When the collateral is issued: a little after the certificates.
static ISSUED: LazyLock<Duration> = LazyLock::new(|| {
    LazyLock::force(&AUTHORITY);
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(60)
});

const CHALLENGE: [u8; 64] = [5; 64];
const INITDATA: [u8; 48] = [7; 48];

fn report() -> TdReport {
    TdAuthority::report(CHALLENGE, [6; 48], [[1; 48], [2; 48], [3; 48], [0; 48]], INITDATA)
}

fn now() -> Duration {
    *ISSUED + Duration::from_secs(10)
}

fn up_to_date() -> TdJudgement {
    TdJudgement::up_to_date(*ISSUED)
}

fn roots() -> Roots {
    Roots::intel().with_simulated(AUTHORITY.root_spki_sha256())
}

fn check_all(
    report: &TdReport,
    collateral: &Collateral,
    options: &TdxOptions,
    log: Option<&[u8]>,
) -> Result<VerifiedTd, TdxError> {
    let quote = AUTHORITY.quote(report).unwrap();
    let evidence = TdxEvidence {
        quote: &quote,
        event_log: log,
    };
    let expected = TdxExpected {
        report_data: &CHALLENGE,
        mr_config_id: Some(&INITDATA),
    };
    verify(&evidence, collateral, &roots(), &expected, options, now())
}

/// Verifies a report under this judgement.
fn judged(judgement: &TdJudgement, options: &TdxOptions) -> Result<VerifiedTd, TdxError> {
    check_all(&report(), &AUTHORITY.collateral(judgement).unwrap(), options, None)
}

/// The error for a report that is changed so.
fn refusal(change: impl FnOnce(&mut TdReport)) -> TdxError {
    let mut report = report();
    change(&mut report);
    let collateral = AUTHORITY.collateral(&up_to_date()).unwrap();
    check_all(&report, &collateral, &TdxOptions::default(), None).unwrap_err()
}

#[test]
fn a_good_quote_verifies_and_is_marked() {
    let verified = judged(&up_to_date(), &TdxOptions::default()).unwrap();
    assert!(verified.simulated);
    assert_eq!(
        (verified.version, verified.status, verified.evaluation),
        (4, TcbStatus::UpToDate, 20)
    );
    assert_eq!(
        (verified.mrtd, verified.rtmr[2], verified.mr_config_id),
        ([6; 48], [3; 48], INITDATA)
    );
    assert_eq!(verified.platform.fmspc, TdAuthority::FMSPC);
}

#[test]
fn t22_without_its_root_it_is_refused() {
    let quote = AUTHORITY.quote(&report()).unwrap();
    let collateral = AUTHORITY.collateral(&up_to_date()).unwrap();
    let evidence = TdxEvidence {
        quote: &quote,
        event_log: None,
    };
    let expected = TdxExpected {
        report_data: &CHALLENGE,
        mr_config_id: None,
    };
    for roots in [Roots::intel(), Roots::none(), Roots::intel().with_simulated([1; 32])] {
        let error = verify(&evidence, &collateral, &roots, &expected, &TdxOptions::default(), now()).unwrap_err();
        assert!(
            matches!(error, TdxError::Chain(ChainError::NotAnAnchor { .. })),
            "{error:?}"
        );
    }
}

#[test]
fn t22_guests_that_the_host_can_look_into_are_refused() {
    for bit in 0..8 {
        let error = refusal(|report| report.attributes |= 1 << bit);
        assert!(matches!(error, TdxError::DebugAllowed { .. }), "bit {bit}: {error:?}");
    }
    let mut debug = report();
    debug.attributes |= ATTRIBUTE_DEBUG;
    let collateral = AUTHORITY.collateral(&up_to_date()).unwrap();
    let all = TdxOptions::default().attributes(u64::MAX, 0);
    let error = check_all(&debug, &collateral, &all, None).unwrap_err();
    assert!(
        matches!(error, TdxError::DebugAllowed { .. }),
        "no option allows it: {error:?}"
    );
    for bit in [ATTRIBUTE_MIGRATABLE, ATTRIBUTE_PERFMON, 1 << 40] {
        let error = refusal(|report| report.attributes |= bit);
        assert!(
            matches!(error, TdxError::AttributesForbidden { bits, .. } if bits == bit),
            "{error:?}"
        );
    }
    let error = refusal(|report| report.attributes = 0);
    let bit = ATTRIBUTE_SEPT_VE_DISABLE;
    assert!(
        matches!(error, TdxError::AttributesRequired { bits, .. } if bits == bit),
        "{error:?}"
    );
}

#[test]
fn every_claim_is_compared() {
    assert!(matches!(
        refusal(|report| report.report_data[63] ^= 1),
        TdxError::ReportData
    ));
    assert!(matches!(
        refusal(|report| report.mr_config_id[47] ^= 1),
        TdxError::MrConfigId
    ));
    assert!(matches!(refusal(|report| report.mr_owner[0] = 1), TdxError::Owner));
    assert!(matches!(
        refusal(|report| report.mr_owner_config[47] = 1),
        TdxError::Owner
    ));
    let service = refusal(|report| {
        report.tee_tcb_svn2 = Some(report.tee_tcb_svn);
        report.mr_service_td[0] = 1;
    });
    assert!(matches!(service, TdxError::ServiceTd), "{service:?}");
    assert!(matches!(
        refusal(|report| report.mr_signer_seam[0] = 1),
        TdxError::ModuleSigner
    ));
    assert!(matches!(
        refusal(|report| report.seam_attributes[0] = 1),
        TdxError::ModuleAttributes
    ));
    let unknown = refusal(|report| report.tee_tcb_svn[1] = 9);
    assert!(matches!(unknown, TdxError::UnknownModule { version: 9 }), "{unknown:?}");
    let old = refusal(|report| report.tee_tcb_svn[2] = 1);
    assert!(matches!(old, TdxError::NoTcbLevel { what: "platform" }), "{old:?}");
    let ancient = refusal(|report| report.tee_tcb_svn[0] = 3);
    assert!(
        matches!(ancient, TdxError::NoTcbLevel { what: "TDX module" }),
        "{ancient:?}"
    );
    let behind = refusal(|report| report.tee_tcb_svn[0] = 4);
    assert!(
        matches!(&behind, TdxError::TcbStatus { status: TcbStatus::OutOfDate, advisories } if advisories == &["SIM-SA-MODULE"]),
        "{behind:?}"
    );
}

const STATUSES: [TcbStatus; 7] = [
    TcbStatus::UpToDate,
    TcbStatus::SWHardeningNeeded,
    TcbStatus::ConfigurationNeeded,
    TcbStatus::ConfigurationAndSWHardeningNeeded,
    TcbStatus::OutOfDate,
    TcbStatus::OutOfDateConfigurationNeeded,
    TcbStatus::Revoked,
];

#[test]
fn t23_only_up_to_date_by_default_and_exceptions_one_by_one() {
    for status in STATUSES {
        let judgement = TdJudgement {
            platform: status,
            ..up_to_date()
        };
        let by_default = judged(&judgement, &TdxOptions::default());
        assert_eq!(by_default.is_ok(), status == TcbStatus::UpToDate, "{status}");
        for accepted in STATUSES {
            let exception = TcbException {
                status: accepted,
                advisories: Vec::new(),
                until: now() + Duration::from_secs(1),
            };
            let result = judged(&judgement, &TdxOptions::default().exception(exception));
            let expected = status == TcbStatus::UpToDate || (status == accepted && status != TcbStatus::Revoked);
            assert_eq!(result.is_ok(), expected, "{status} where {accepted} is accepted");
            if let Err(error) = result {
                assert!(
                    matches!(error, TdxError::TcbStatus { status: found, .. } if found == status),
                    "{error:?}"
                );
            }
        }
    }
}

#[test]
fn t23_advisories_and_the_end_of_an_exception() {
    let advisories = |list: &[&str]| list.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let judgement = TdJudgement {
        platform: TcbStatus::SWHardeningNeeded,
        advisories: advisories(&["INTEL-SA-1", "INTEL-SA-2"]),
        ..up_to_date()
    };
    let with = |known: &[&str], until| {
        let exception = TcbException {
            status: TcbStatus::SWHardeningNeeded,
            advisories: advisories(known),
            until,
        };
        judged(&judgement, &TdxOptions::default().exception(exception))
    };
    let later = now() + Duration::from_secs(1);
    assert!(with(&["INTEL-SA-1", "INTEL-SA-2", "INTEL-SA-3"], later).is_ok());
    for (known, until) in [
        (&["INTEL-SA-1"][..], later),
        (&[], later),
        (&["INTEL-SA-1", "INTEL-SA-2"], now()),
    ] {
        assert!(
            matches!(with(known, until), Err(TdxError::TcbStatus { .. })),
            "{known:?} until {until:?}"
        );
    }
    let up_to_date = TdJudgement {
        advisories: advisories(&["INTEL-SA-1"]),
        ..up_to_date()
    };
    let error = judged(&up_to_date, &TdxOptions::default()).unwrap_err();
    assert!(
        matches!(error, TdxError::TcbStatus { .. }),
        "an advisory needs a word even when up to date: {error:?}"
    );
}

#[test]
fn t23_every_part_of_the_platform_counts() {
    for (module, enclave) in [
        (TcbStatus::OutOfDate, TcbStatus::UpToDate),
        (TcbStatus::UpToDate, TcbStatus::OutOfDate),
    ] {
        let judgement = TdJudgement {
            module,
            enclave,
            platform: TcbStatus::ConfigurationNeeded,
            ..up_to_date()
        };
        let error = judged(&judgement, &TdxOptions::default()).unwrap_err();
        let expected = TcbStatus::OutOfDateConfigurationNeeded;
        assert!(
            matches!(error, TdxError::TcbStatus { status, .. } if status == expected),
            "{error:?}"
        );
    }
    let revoked = TdJudgement {
        enclave: TcbStatus::Revoked,
        ..up_to_date()
    };
    let error = judged(&revoked, &TdxOptions::default()).unwrap_err();
    assert!(
        matches!(
            error,
            TdxError::TcbStatus {
                status: TcbStatus::Revoked,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn t23_a_module_that_was_updated_under_the_guest() {
    let collateral = AUTHORITY.collateral(&up_to_date()).unwrap();
    let mut report = report();
    report.tee_tcb_svn2 = Some(report.tee_tcb_svn);
    let verified = check_all(&report, &collateral, &TdxOptions::default(), None).unwrap();
    assert_eq!((verified.version, verified.status), (5, TcbStatus::UpToDate));
    report.tee_tcb_svn[0] = 4;
    let error = check_all(&report, &collateral, &TdxOptions::default(), None).unwrap_err();
    let expected = TcbStatus::TDRelaunchAdvised;
    assert!(
        matches!(error, TdxError::TcbStatus { status, .. } if status == expected),
        "{error:?}"
    );
    report.tee_tcb_svn2 = Some(report.tee_tcb_svn);
    let error = check_all(&report, &collateral, &TdxOptions::default(), None).unwrap_err();
    assert!(
        matches!(
            error,
            TdxError::TcbStatus {
                status: TcbStatus::OutOfDate,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn t20_revoked_certificates_are_refused() {
    for (revoked, role) in [
        (TdRevoked::Pck, CertRole::Pck),
        (TdRevoked::PckCa, CertRole::PckCa),
        (TdRevoked::TcbSigning, CertRole::TcbSigning),
    ] {
        let judgement = TdJudgement {
            revoked: Some(revoked),
            ..up_to_date()
        };
        let error = judged(&judgement, &TdxOptions::default()).unwrap_err();
        assert!(
            matches!(error, TdxError::Chain(ChainError::Revoked { role: r }) if r == role),
            "{error:?}"
        );
        assert_eq!(error.class(), "certificate revoked");
    }
}

#[test]
fn t23_collateral_of_another_time_or_platform() {
    let hour = Duration::from_secs(3600);
    let old = TdJudgement::up_to_date(*ISSUED - hour);
    let error = judged(&old, &TdxOptions::default()).unwrap_err();
    assert!(
        matches!(error, TdxError::Crl(CrlError::Expired { role: CrlRole::SgxRoot })),
        "{error:?}"
    );
    let future = TdJudgement::up_to_date(*ISSUED + hour);
    let error = judged(&future, &TdxOptions::default()).unwrap_err();
    assert!(
        matches!(error, TdxError::Crl(CrlError::NotYetValid { .. })),
        "{error:?}"
    );
    let current = AUTHORITY.collateral(&up_to_date()).unwrap();
    let expired = AUTHORITY.collateral(&old).unwrap();
    let mixed = Collateral {
        tcb_info: expired.tcb_info.clone(),
        tcb_info_signature: expired.tcb_info_signature,
        ..current.clone()
    };
    let error = check_all(&report(), &mixed, &TdxOptions::default(), None).unwrap_err();
    assert!(
        matches!(error, TdxError::Signed(SignedError::Expired { what: "TCB info" })),
        "{error:?}"
    );
    let other = TdJudgement {
        fmspc: [9; 6],
        ..up_to_date()
    };
    let error = judged(&other, &TdxOptions::default()).unwrap_err();
    assert!(matches!(error, TdxError::OtherPlatform { .. }), "{error:?}");
    // The two documents are both Intel's; one is not taken for the other.
    let swapped = Collateral {
        tcb_info: current.qe_identity.clone(),
        tcb_info_signature: current.qe_identity_signature,
        ..current
    };
    let error = check_all(&report(), &swapped, &TdxOptions::default(), None).unwrap_err();
    assert!(
        matches!(error, TdxError::Signed(SignedError::Json { what: "TCB info", .. })),
        "{error:?}"
    );
}

#[test]
fn t6_parts_of_two_authorities_do_not_mix() {
    let other = TdAuthority::generate().unwrap();
    let (own, foreign) = (
        AUTHORITY.collateral(&up_to_date()).unwrap(),
        other.collateral(&up_to_date()).unwrap(),
    );
    type Mix = fn(&mut Collateral, &Collateral);
    let mixes: [Mix; 4] = [
        |own, foreign| own.root_crl.clone_from(&foreign.root_crl),
        |own, foreign| own.pck_crl.clone_from(&foreign.pck_crl),
        |own, foreign| {
            own.tcb_info.clone_from(&foreign.tcb_info);
            own.tcb_info_signature = foreign.tcb_info_signature;
        },
        |own, foreign| own.qe_identity_chain.clone_from(&foreign.qe_identity_chain),
    ];
    for (place, mix) in mixes.into_iter().enumerate() {
        let mut mixed = own.clone();
        mix(&mut mixed, &foreign);
        let result = check_all(&report(), &mixed, &TdxOptions::default(), None);
        let expected = match place {
            0 | 1 => matches!(result, Err(TdxError::Crl(CrlError::Signature { .. }))),
            // The same text, by another key.
            2 => matches!(
                result,
                Err(TdxError::Signed(SignedError::Signature { what: "TCB info" }))
            ),
            _ => matches!(result, Err(TdxError::OtherRoot)),
        };
        assert!(expected, "{place}: {result:?}");
    }
    // A list by the other of the two authorities, which has the right root.
    let mut exchanged = own.clone();
    std::mem::swap(&mut exchanged.root_crl, &mut exchanged.pck_crl);
    let error = check_all(&report(), &exchanged, &TdxOptions::default(), None).unwrap_err();
    assert!(matches!(error, TdxError::Crl(CrlError::Issuer { .. })), "{error:?}");
    // An authority's certificate does not sign documents.
    let quote = AUTHORITY.quote(&report()).unwrap();
    let text = String::from_utf8_lossy(&quote);
    let blocks: Vec<_> = text.split_inclusive("-----END CERTIFICATE-----").collect();
    let begin = |block: &str| block[block.find("-----BEGIN").unwrap()..].to_owned();
    let by_ca = Collateral {
        tcb_info_chain: [begin(blocks[1]), begin(blocks[2])].join("\n"),
        ..own
    };
    let error = check_all(&report(), &by_ca, &TdxOptions::default(), None).unwrap_err();
    let role = CertRole::TcbSigning;
    assert!(
        matches!(error, TdxError::Chain(ChainError::NotALeaf { role: r }) if r == role),
        "{error:?}"
    );
}

/// A log of one event for each register.
fn log(digests: [[u8; 48]; 4]) -> Vec<u8> {
    let mut log = [
        &1u32.to_le_bytes()[..],
        &3u32.to_le_bytes(),
        &[0; 20],
        &33u32.to_le_bytes(),
    ]
    .concat();
    log.extend(b"Spec ID Event03\0");
    log.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0]);
    for (register, digest) in (1u32..).zip(digests) {
        log.extend(register.to_le_bytes());
        log.extend(13u32.to_le_bytes());
        log.extend([1, 0, 0, 0, 0x0c, 0]);
        log.extend(digest);
        log.extend(0u32.to_le_bytes());
    }
    log
}

#[test]
fn an_event_log_must_replay_to_each_register() {
    let digests = [[0x11; 48], [0x22; 48], [0x33; 48], [0x44; 48]];
    let extended = digests.map(|digest| {
        let digest = ring::digest::digest(&ring::digest::SHA384, &[[0; 48], digest].concat());
        digest.as_ref().try_into().unwrap()
    });
    let mut report = report();
    report.rtmr = extended;
    let collateral = AUTHORITY.collateral(&up_to_date()).unwrap();
    let options = TdxOptions::default();
    let verified = check_all(&report, &collateral, &options, Some(&log(digests))).unwrap();
    assert!(verified.replayed);
    assert!(!check_all(&report, &collateral, &options, None).unwrap().replayed);
    for register in 0..4 {
        let mut other = digests;
        other[register][7] ^= 1;
        let error = check_all(&report, &collateral, &options, Some(&log(other))).unwrap_err();
        assert!(
            matches!(error, TdxError::Replay { index } if index == register),
            "{error:?}"
        );
    }
}
