//! What a verifier leaves to its caller, and what the caller may ask beforehand.

use std::time::Duration;

use cella_attest::{
    sim::{TdAuthority, TdJudgement},
    tdx::{Quote, TcbStatus, TdxError, TdxOptions},
};

use super::{AUTHORITY, ISSUED, judged, report, up_to_date};

#[test]
fn t23_a_verifier_may_leave_the_status_to_its_caller_but_not_a_revoked_one() {
    let any = TdxOptions::default().any_status();
    for platform in [TcbStatus::OutOfDate, TcbStatus::ConfigurationNeeded] {
        let judgement = TdJudgement {
            platform,
            advisories: vec!["INTEL-SA-1".to_owned()],
            ..up_to_date()
        };
        let verified = judged(&judgement, &any).unwrap();
        assert_eq!((verified.status, verified.advisories), (platform, judgement.advisories));
    }
    let revoked = TdJudgement {
        platform: TcbStatus::Revoked,
        ..up_to_date()
    };
    let error = judged(&revoked, &any).unwrap_err();
    assert!(matches!(error, TdxError::TcbStatus { .. }), "{error:?}");
}

#[test]
fn t23_collateral_may_be_refused_before_its_end() {
    let at_most = |age| TdxOptions::default().max_collateral_age(Duration::from_secs(age));
    // It was issued between ten and eleven seconds ago.
    assert_eq!(
        judged(&up_to_date(), &at_most(11)).unwrap().collateral_issued.as_secs(),
        ISSUED.as_secs()
    );
    let error = judged(&up_to_date(), &at_most(10)).unwrap_err();
    assert!(matches!(error, TdxError::CollateralAge { .. }), "{error:?}");
    assert_eq!(error.class(), "collateral too old");
}

#[test]
fn a_quote_says_which_collateral_is_its_platforms() {
    let quote = AUTHORITY.quote(&report()).unwrap();
    let collateral = AUTHORITY.collateral(&up_to_date()).unwrap();
    let quoted = Quote::parse(&quote).unwrap().fmspc();
    assert_eq!(
        (quoted, collateral.fmspc().unwrap()),
        (Some(TdAuthority::FMSPC), TdAuthority::FMSPC)
    );
}
