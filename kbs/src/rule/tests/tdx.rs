//! Rules for TDX guests.

use cella_attest::tdx::{TcbStatus, VerifiedTd};
use serde_json::{Value, json};

use super::*;
use crate::testing::td_facts;

fn hex48(byte: &str) -> String {
    byte.repeat(48)
}

/// A rule that names the guest of [`td_facts`], its TDX conditions changed.
fn rule(change: impl FnOnce(&mut Value)) -> Rule {
    let mut tdx = json!({
        "mrtd": [hex48("01")], "rtmr0": "any", "rtmr1": [hex48("03")], "rtmr2": [hex48("04")],
    });
    change(&mut tdx);
    let json = json!({
        "launch-digests": [], "policy-digests": ["bb".repeat(32)], "allow-simulated": true, "tdx": tdx,
    });
    let rule = Rule::from_json(json.to_string().as_bytes()).unwrap();
    let again = serde_json::to_vec(&rule).unwrap();
    assert_eq!(Rule::from_json(&again).unwrap(), rule);
    rule
}

fn refused(class: &'static str) -> Result<(), Mismatch> {
    Err(Mismatch::Platform(ConditionError::Refused(class)))
}

fn not_listed(list: &'static str) -> Result<(), Mismatch> {
    Err(Mismatch::Platform(ConditionError::NotListed { list }))
}

#[test]
fn every_condition_alone_refuses() {
    let good = td_facts(|_| {});
    assert_eq!(check(&rule(|_| {}), &good), Ok(()));
    type Change = fn(&mut VerifiedTd);
    let cases: [(Change, Result<(), Mismatch>); 6] = [
        (|td| td.mrtd[0] ^= 1, not_listed("MRTD")),
        (|td| td.rtmr[0][0] ^= 1, Ok(())),
        (|td| td.rtmr[1][0] ^= 1, not_listed("RTMR1")),
        (|td| td.rtmr[2][0] ^= 1, not_listed("RTMR2")),
        (|td| td.rtmr[3][0] ^= 1, not_listed("RTMR3")),
        (
            |td| td.status = TcbStatus::OutOfDate,
            refused("platform TCB status not accepted"),
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(check(&rule(|_| {}), &td_facts(change)), expected);
    }
    for (member, value, expected) in [
        ("rtmr0", json!([hex48("02")]), Ok(())),
        ("rtmr0", json!([hex48("03")]), not_listed("RTMR0")),
        ("fmspcs", json!([hex::encode(b"FAMILY")]), Ok(())),
        ("fmspcs", json!([]), not_listed("FMSPC")),
        ("platforms", json!(["09".repeat(16)]), Ok(())),
        ("platforms", json!(["08".repeat(16)]), refused("platform not allowed")),
        ("event-log", json!(true), refused("event log missing")),
        ("minimum-evaluation", json!(18), refused("collateral too old")),
    ] {
        let rule = rule(|tdx| tdx[member] = value.clone());
        assert_eq!(check(&rule, &good), expected, "{member}: {value}");
    }
    let mut other = good;
    other.initdata = [0; 32];
    assert_eq!(check(&rule(|_| {}), &other), Err(Mismatch::Policy));
}

#[test]
fn t22_simulated_guests_need_the_rules_word() {
    let mut rule = rule(|_| {});
    rule.allow_simulated = false;
    assert_eq!(check(&rule, &td_facts(|_| {})), Err(Mismatch::Simulated));
    assert_eq!(check(&rule, &td_facts(|td| td.simulated = false)), Ok(()));
}

#[test]
fn a_rule_of_one_technology_says_nothing_about_the_other() {
    assert_eq!(
        check(&super::rule(), &td_facts(|td| td.simulated = false)),
        Err(Mismatch::Tdx)
    );
    let mut facts = with(|_| {});
    facts.initdata = [0xbb; 32];
    assert_eq!(check(&rule(|_| {}), &facts), Err(Mismatch::Measurement));
}

#[test]
fn t23_an_exception_is_for_known_advisories_and_ends() {
    let rule = |until: &str| {
        rule(|tdx| {
            tdx["exceptions"] = json!([{"status": "OutOfDate", "advisories": ["INTEL-SA-1"], "until": until}]);
        })
    };
    let behind = |advisory: &str| {
        td_facts(|td| {
            td.status = TcbStatus::OutOfDate;
            td.advisories = vec![advisory.to_owned()];
        })
    };
    let not_accepted = refused("platform TCB status not accepted");
    // NOW is 2027-01-15T08:00:00Z.
    assert_eq!(check(&rule("2027-01-15T08:00:01Z"), &behind("INTEL-SA-1")), Ok(()));
    assert_eq!(
        check(&rule("2027-01-15T08:00:00Z"), &behind("INTEL-SA-1")),
        not_accepted
    );
    assert_eq!(
        check(&rule("2027-01-15T08:00:01Z"), &behind("INTEL-SA-2")),
        not_accepted
    );
}

#[test]
fn json_is_strict() {
    for (member, value, named) in [
        ("allow-debug", json!(true), "allow-debug"),
        ("mrtd", json!("any"), "sequence"),
        ("mrtd", json!(["01"]), "entry 0"),
        ("rtmr1", json!(["reference:a b"]), "entry 0"),
        ("fmspcs", json!(["01"]), "12 hexadecimal digits"),
    ] {
        let mut tdx = json!({"mrtd": [], "rtmr0": "any", "rtmr1": [], "rtmr2": []});
        tdx[member] = value;
        let json = json!({"launch-digests": [], "policy-digests": [], "tdx": tdx}).to_string();
        let error = Rule::from_json(json.as_bytes()).unwrap_err();
        assert!(
            matches!(error, RuleError::Syntax { .. }) && error.to_string().contains(named),
            "{error}"
        );
    }
}
