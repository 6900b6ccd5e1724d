use cella_attest::conditions::NoReferences;

use super::*;
use crate::testing::snp_facts;

mod references;
mod tdx;

/// When everything here is checked.
const NOW: Duration = Duration::from_secs(1_800_000_000);

/// Without reference values.
fn check(rule: &Rule, facts: &Facts) -> Result<(), Mismatch> {
    rule.check(facts, NOW, &NoReferences)
}

fn rule() -> Rule {
    Rule {
        launch_digests: MeasurementList {
            values: vec![[1; 48], [2; 48]],
            references: Vec::new(),
        },
        policy_digests: vec![[3; 32]],
        allow_simulated: false,
        platform: SnpConditions {
            minimum_tcb: Some(TcbVersion {
                fmc: None,
                bootloader: 3,
                tee: 0,
                snp: 20,
                microcode: 209,
            }),
            ..SnpConditions::default()
        },
        tdx: None,
    }
}

/// Facts that meet the rule, but for what is changed.
fn with(change: impl FnOnce(&mut Verified)) -> Facts {
    let mut facts = snp_facts(|snp| {
        snp.simulated = false;
        snp.measurement = [2; 48];
        change(snp);
    });
    facts.initdata = [3; 32];
    facts
}

fn good() -> Facts {
    with(|_| {})
}

#[test]
fn every_condition_alone_refuses() {
    assert_eq!(check(&rule(), &good()), Ok(()));
    type Change = fn(&mut Verified);
    let cases: [(Change, Mismatch); 4] = [
        (|snp| snp.simulated = true, Mismatch::Simulated),
        (|snp| snp.product = Product::Milan, Mismatch::Milan),
        (|snp| snp.measurement[47] ^= 1, Mismatch::Measurement),
        (|snp| snp.tcb.snp = 19, Mismatch::Tcb { part: "snp" }),
    ];
    for (change, expected) in cases {
        assert_eq!(check(&rule(), &with(change)), Err(expected));
    }
    let mut other = good();
    other.initdata[0] ^= 0x80;
    assert_eq!(check(&rule(), &other), Err(Mismatch::Policy));
}

#[test]
fn permissions_are_separate() {
    let simulated = with(|snp| snp.simulated = true);
    let milan = with(|snp| snp.product = Product::Milan);
    let allow_simulated = Rule {
        allow_simulated: true,
        ..rule()
    };
    let mut allow_milan = rule();
    allow_milan.platform.allow_milan = true;
    assert_eq!(check(&allow_simulated, &simulated), Ok(()));
    assert_eq!(check(&allow_simulated, &milan), Err(Mismatch::Milan));
    assert_eq!(check(&allow_milan, &milan), Ok(()));
    assert_eq!(check(&allow_milan, &simulated), Err(Mismatch::Simulated));
}

#[test]
fn empty_lists_match_nothing() {
    let none = Rule {
        launch_digests: MeasurementList::default(),
        ..rule()
    };
    assert_eq!(check(&none, &good()), Err(Mismatch::Measurement));
    let none = Rule {
        policy_digests: vec![],
        ..rule()
    };
    assert_eq!(check(&none, &good()), Err(Mismatch::Policy));
}

#[test]
fn json_round_trip() {
    let json = serde_json::to_vec(&rule()).unwrap();
    assert_eq!(Rule::from_json(&json).unwrap(), rule());
    let text = String::from_utf8(json).unwrap();
    assert!(
        text.contains(r#""allow-simulated":false"#) && text.contains(r#""minimum-tcb":{"bootloader":3"#),
        "{text}"
    );
    let short = Rule::from_json(br#"{"launch-digests":[],"policy-digests":[]}"#).unwrap();
    assert!(!short.allow_simulated && short.platform == SnpConditions::default());
}

#[test]
fn json_is_strict() {
    let zero = format!(r#"{{"launch-digests":["{}"],"policy-digests":[]}}"#, "00".repeat(48));
    assert!(matches!(
        Rule::from_json(zero.as_bytes()),
        Err(RuleError::Zero {
            list: "launch-digests",
            index: 0
        })
    ));
    let short = format!(r#"{{"launch-digests":[],"policy-digests":["{}"]}}"#, "ab".repeat(31));
    assert!(matches!(
        Rule::from_json(short.as_bytes()),
        Err(RuleError::NotADigest {
            list: "policy-digests",
            index: 0,
            digits: 64
        })
    ));
    for bad in ["reference:", "reference:a b", "ab"] {
        let json = serde_json::json!({"launch-digests": ["ab".repeat(48), bad], "policy-digests": []}).to_string();
        let refused = Rule::from_json(json.as_bytes());
        assert!(
            matches!(
                refused,
                Err(RuleError::NotAMeasurement {
                    list: "launch-digests",
                    index: 1
                })
            ),
            "{bad}: {refused:?}"
        );
    }
    let many = serde_json::json!({"launch-digests": vec!["ab".repeat(48); 257], "policy-digests": []}).to_string();
    assert!(matches!(
        Rule::from_json(many.as_bytes()),
        Err(RuleError::TooMany { list: "launch-digests" })
    ));
    for (json, named) in [
        (
            r#"{"launch-digests":[],"policy-digests":[],"allow-everything":true}"#,
            "allow-everything",
        ),
        (
            r#"{"launch-digests":[],"policy-digests":[],"minimum-tcb":{"bootloader":1,"tee":0,"snp":0,"ucode":0}}"#,
            "ucode",
        ),
        (r#"{"policy-digests":[]}"#, "launch-digests"),
        (
            r#"{"launch-digests":[],"policy-digests":[],"minimum-tcb":{"bootloader":256,"tee":0,"snp":0,"microcode":0}}"#,
            "256",
        ),
    ] {
        let error = Rule::from_json(json.as_bytes()).unwrap_err();
        assert!(
            matches!(error, RuleError::Syntax { .. }) && error.to_string().contains(named),
            "{error}"
        );
    }
    assert!(matches!(Rule::from_json(b"\xff\x00"), Err(RuleError::Syntax { .. })));
}

#[test]
fn each_part_of_the_tcb_counts_alone() {
    const HAVE: TcbVersion = TcbVersion {
        fmc: None,
        bootloader: 3,
        tee: 0,
        snp: 20,
        microcode: 209,
    };
    let turin = TcbVersion { fmc: Some(1), ..HAVE };
    for (tcb, minimum, part) in [
        (HAVE, HAVE, None),
        (HAVE, TcbVersion { fmc: Some(0), ..HAVE }, Some("fmc")),
        (
            HAVE,
            TcbVersion {
                bootloader: 4,
                snp: 0,
                ..HAVE
            },
            Some("bootloader"),
        ),
        (HAVE, TcbVersion { tee: 1, ..HAVE }, Some("tee")),
        (
            HAVE,
            TcbVersion {
                snp: 21,
                microcode: 0,
                ..HAVE
            },
            Some("snp"),
        ),
        (HAVE, TcbVersion { microcode: 210, ..HAVE }, Some("microcode")),
        (turin, TcbVersion { fmc: Some(2), ..HAVE }, Some("fmc")),
        (turin, turin, None),
        (turin, HAVE, None),
    ] {
        assert_eq!(tcb.below(&minimum), part);
        assert_eq!(tcb.meets(&minimum), part.is_none());
    }
}

#[test]
fn conditions_on_the_platform() {
    let checked = |member: &str| {
        let (launch, policy) = ("02".repeat(48), "03".repeat(32));
        let json = format!(r#"{{"launch-digests":["{launch}"],"policy-digests":["{policy}"]{member}}}"#);
        let rule = Rule::from_json(json.as_bytes()).unwrap();
        let again = serde_json::to_vec(&rule).unwrap();
        assert_eq!(Rule::from_json(&again).unwrap(), rule, "{member}");
        check(&rule, &good())
    };
    let chip = "cc".repeat(64);
    for (member, refused) in [
        (String::new(), None),
        (format!(r#","chip-ids":["{chip}"]"#), None),
        (r#","chip-ids":[]"#.to_owned(), Some("chip not allowed")),
        (r#","refuse-vlek":true"#.to_owned(), None),
        (r#","refuse-smt":true"#.to_owned(), Some("guest policy refused")),
        (r#","single-socket":true"#.to_owned(), Some("guest policy refused")),
        (r#","minimum-abi":[1,0]"#.to_owned(), Some("guest policy refused")),
        (
            r#","alias-check":true"#.to_owned(),
            Some("platform configuration refused"),
        ),
        (
            r#","ciphertext-hiding":true"#.to_owned(),
            Some("platform configuration refused"),
        ),
        (r#","mitigations":1"#.to_owned(), None),
        (r#","mitigations":2"#.to_owned(), Some("firmware mitigations missing")),
    ] {
        let expected = refused.map(|class| Mismatch::Platform(ConditionError::Refused(class)));
        assert_eq!(checked(&member).err(), expected, "{member}");
    }
    let launched_before = with(|snp| snp.launch_tcb.snp = 19);
    let class = "platform TCB too old";
    let refused = Err(Mismatch::Platform(ConditionError::Refused(class)));
    assert_eq!(check(&rule(), &launched_before), refused);
}
