use super::*;
use crate::signed::tests::signed_by;

fn run() -> RunRecord {
    RunRecord {
        version: RUN_VERSION,
        boot: Hex([0; 32]),
        container: "trainer".into(),
        image: format!("registry.example/demo/trainer@sha256:{}", "1".repeat(64)),
        inputs: vec![InputRecord {
            name: "models/demo".into(),
            version: 3,
            artifact: format!("registry.example/models/demo@sha256:{}", "2".repeat(64)),
        }],
        exit_status: 0,
        output: Some(OutputRecord {
            name: "models/demo".into(),
            version: 4,
            artifact: format!("registry.example/models/demo@sha256:{}", "4".repeat(64)),
            files: vec![OutputFileRecord {
                path: "demo.gguf".into(),
                digest: format!("sha256:{}", "5".repeat(64)),
                bytes: 1_716_800,
            }],
        }),
        time: Some(RunTime {
            started: 1_800_000_006,
            ended: 1_800_000_060,
        }),
    }
}

fn signed() -> SignedRun {
    let key = RecordKey::generate().unwrap();
    SignedRun::sign(signed_by(&key), run(), &key).unwrap()
}

#[test]
fn reads_what_it_writes_and_knows_it_from_a_boots() {
    let signed = signed();
    let text = signed.to_text().unwrap();
    assert_eq!(SignedRun::parse(text.as_bytes()).unwrap(), signed);
    assert!(SignedRun::is_likely(text.as_bytes()));
    let boot = signed.boot.to_text().unwrap();
    assert!(!SignedRun::is_likely(boot.as_bytes()));
    assert!(matches!(
        SignedRun::parse(boot.as_bytes()),
        Err(ParseError::Json { .. })
    ));
    assert!(matches!(
        SignedRecord::parse(text.as_bytes()),
        Err(ParseError::Json { .. })
    ));
}

#[test]
fn one_bit_flipped_anywhere_is_an_error() {
    let text = signed().to_text().unwrap();
    for at in 0..text.len() - 1 {
        let mut flipped = text.clone().into_bytes();
        flipped[at] ^= 1 << (at % 8);
        assert!(SignedRun::parse(&flipped).is_err(), "{at}");
    }
    for length in 0..text.len() - 1 {
        assert!(SignedRun::parse(&text.as_bytes()[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_run_is_of_its_boot_and_of_its_key() {
    let (one, two) = (RecordKey::generate().unwrap(), RecordKey::generate().unwrap());
    let signed = SignedRun::sign(signed_by(&one), run(), &one).unwrap();
    let moved = SignedRun {
        boot: signed_by(&two),
        ..signed.clone()
    };
    assert_eq!(
        SignedRun::parse(moved.to_text().unwrap().as_bytes()),
        Err(ParseError::OtherBoot)
    );
    // Signed by somebody else's key for this boot.
    let foreign = SignedRun::sign(signed.boot.clone(), run(), &two).unwrap();
    assert_eq!(
        SignedRun::parse(foreign.to_text().unwrap().as_bytes()),
        Err(ParseError::Signature)
    );
    // A boot whose own signature is wrong.
    let mut forged = signed.boot.clone();
    forged.record.agent = "0.2.0".into();
    let forged = SignedRun::sign(forged, run(), &one).unwrap();
    assert_eq!(
        SignedRun::parse(forged.to_text().unwrap().as_bytes()),
        Err(ParseError::Signature)
    );
    let mut newer = signed;
    newer.run.version = 2;
    assert_eq!(
        SignedRun::parse(newer.to_text().unwrap().as_bytes()),
        Err(ParseError::Version { found: 2 })
    );
}
