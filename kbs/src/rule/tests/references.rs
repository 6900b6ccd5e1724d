//! Rules that name reference values.

use cella_attest::reference::{Measured, ReferenceName};
use serde_json::json;

use super::*;
use crate::testing::td_facts;

/// Two names, one of which cannot be believed.
struct Values;

impl Lookup for Values {
    fn values(&self, name: &ReferenceName, of: Measured) -> Result<Vec<[u8; 48]>, &'static str> {
        match (name.as_str(), of) {
            ("guest", Measured::SnpLaunchDigest) => Ok(vec![[2; 48], [5; 48]]),
            ("guest", Measured::Mrtd) => Ok(vec![[1; 48]]),
            ("guest", Measured::Rtmr1) => Ok(vec![[3; 48]]),
            ("guest", Measured::Rtmr2) => Ok(vec![[4; 48]]),
            ("guest", _) => Ok(Vec::new()),
            _ => Err("reference values expired"),
        }
    }
}

fn rule(name: &str) -> Rule {
    let list = json!([format!("reference:{name}")]);
    let json = json!({
        "launch-digests": list, "policy-digests": ["03".repeat(32), "bb".repeat(32)], "allow-simulated": true,
        "tdx": {"mrtd": list, "rtmr0": "any", "rtmr1": list, "rtmr2": list},
    });
    let rule = Rule::from_json(json.to_string().as_bytes()).unwrap();
    let again = serde_json::to_value(&rule).unwrap();
    assert_eq!((&again["launch-digests"], &again["tdx"]["rtmr2"]), (&list, &list));
    rule
}

#[test]
fn a_name_stands_for_its_values() {
    let check = |rule: &Rule, facts: &Facts| rule.check(facts, NOW, &Values);
    for facts in [with(|_| {}), with(|snp| snp.measurement = [5; 48]), td_facts(|_| {})] {
        assert_eq!(check(&rule("guest"), &facts), Ok(()));
    }
    let other = with(|snp| snp.measurement = [1; 48]);
    assert_eq!(check(&rule("guest"), &other), Err(Mismatch::Measurement));
    let other = td_facts(|td| td.rtmr[2] = [5; 48]);
    let not_listed = ConditionError::NotListed { list: "RTMR2" };
    assert_eq!(check(&rule("guest"), &other), Err(Mismatch::Platform(not_listed)));
}

#[test]
fn t28_values_that_cannot_be_believed_release_nothing_and_say_why() {
    let expired = Err(Mismatch::Platform(ConditionError::Refused("reference values expired")));
    for facts in [with(|_| {}), td_facts(|_| {})] {
        assert_eq!(rule("old").check(&facts, NOW, &Values), expired);
    }
}
