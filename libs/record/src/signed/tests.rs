use super::*;
use crate::bytes::Base64;
use crate::evidence::SnpText;
use crate::record::{
    BrokerRecord, ImageRecord, InitdataRecord, KeyRecord, ModelFileRecord, ModelRecord, Tee, TimeRecord, TokenRecord,
};

pub(crate) fn record(key: &RecordKey) -> BootRecord {
    BootRecord {
        version: VERSION,
        agent: "0.1.0".into(),
        key: key.public(),
        tee: Tee::Snp,
        simulated: true,
        measurement: Hex([6; 48]),
        tcb: "bootloader 3, tee 0, snp 20, microcode 209".into(),
        initdata: InitdataRecord {
            sha256: Hex([7; 32]),
            bound: hex::encode([7; 32]),
        },
        policy: None,
        images: vec![ImageRecord {
            container: "server".into(),
            image: format!("registry.example/demo/server@sha256:{}", "1".repeat(64)),
        }],
        models: vec![ModelRecord {
            name: "models/demo".into(),
            version: 3,
            artifact: format!("registry.example/models/demo@sha256:{}", "2".repeat(64)),
            files: vec![ModelFileRecord {
                path: "model.gguf".into(),
                digest: format!("sha256:{}", "3".repeat(64)),
                bytes: 1_716_800,
                blake3: None,
                locked_bytes: 2 << 20,
            }],
            digest: None,
        }],
        broker: BrokerRecord {
            url: "https://kbs.example:8443".into(),
            token: Some(TokenRecord {
                id: "0011223344556677".into(),
                issued: 1_800_000_000,
                signer: None,
            }),
            keys: vec![KeyRecord {
                key: "kbs:///demo/model-kek/1".into(),
                session: "0011223344556677".into(),
            }],
        },
        time: Some(TimeRecord {
            booted: 1_799_999_990,
            recorded: 1_800_000_005,
        }),
    }
}

fn signed() -> SignedRecord {
    signed_by(&RecordKey::generate().unwrap())
}

pub(crate) fn signed_by(key: &RecordKey) -> SignedRecord {
    let binding = BindingText {
        nonce: "AAECAw==".into(),
        tee_key: cella_kbs_client::TeeKey::generate().unwrap().public(),
        opening: Hex([2; 33]),
    };
    let evidence = EvidenceText::Snp(SnpText {
        report: Base64(vec![1; 1184]),
        certificates: vec![Base64(vec![2; 10])],
    });
    SignedRecord::sign(record(key), key, binding, evidence).unwrap()
}

#[test]
fn reads_what_it_writes() {
    let signed = signed();
    let text = signed.to_text().unwrap();
    assert_eq!(SignedRecord::parse(text.as_bytes()).unwrap(), signed);
    assert_eq!(SignedRecord::parse(text.trim_end().as_bytes()).unwrap(), signed);
    assert!(
        text.starts_with("{\"binding\":{\"nonce\":\"AAECAw==\",") && text.ends_with("\"}\n"),
        "{text}"
    );
}

#[test]
fn truncated_anywhere_is_an_error() {
    let text = signed().to_text().unwrap();
    for length in 0..text.len() - 1 {
        assert!(
            SignedRecord::parse(&text.as_bytes()[..length]).is_err(),
            "{length} bytes were taken"
        );
    }
}

#[test]
fn one_bit_flipped_is_an_error_or_touches_only_what_evidence_proves() {
    let signed = signed();
    let text = signed.to_text().unwrap();
    for at in 0..text.len() - 1 {
        for bit in 0..8 {
            let mut flipped = text.clone().into_bytes();
            flipped[at] ^= 1 << bit;
            if let Ok(other) = SignedRecord::parse(&flipped) {
                assert_eq!((&other.record, other.signature), (&signed.record, signed.signature));
                assert_ne!(
                    (&other.binding, &other.evidence),
                    (&signed.binding, &signed.evidence),
                    "{at} {bit}"
                );
            }
        }
    }
}

#[test]
fn one_value_has_one_text() {
    let text = signed().to_text().unwrap();
    let other = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        SignedRecord::parse(text.replacen(from, to, 1).as_bytes())
    };
    assert_eq!(other("{\"binding\"", "{ \"binding\""), Err(ParseError::NotCanonical));
    assert_eq!(
        other("\"simulated\":true", "\"simulated\":true "),
        Err(ParseError::NotCanonical)
    );
    assert_eq!(other("kek/1", "kek\\/1"), Err(ParseError::NotCanonical));
    assert_eq!(other("}\n", "}\n\n"), Err(ParseError::NotCanonical));
    assert_eq!(
        other("\"agent\":\"0.1.0\",", "\"agent\":\"0.1.0\",\"policy\":null,"),
        Err(ParseError::NotCanonical)
    );
    let pretty: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        SignedRecord::parse(serde_json::to_string_pretty(&pretty).unwrap().as_bytes()),
        Err(ParseError::NotCanonical)
    );
}

#[test]
fn another_form_is_refused_by_its_reason() {
    let text = signed().to_text().unwrap();
    let other = |from: &str, to: &str| SignedRecord::parse(text.replacen(from, to, 1).as_bytes()).unwrap_err();
    assert_eq!(
        other("\"version\":1}", "\"version\":2}"),
        ParseError::Version { found: 2 }
    );
    assert_eq!(other("\"version\":3}", "\"version\":4}"), ParseError::Signature);
    assert!(matches!(other("\"agent\":", "\"agents\":"), ParseError::Json { .. }));
    assert!(matches!(
        other("{\"binding\"", "{\"a\":1,\"binding\""),
        ParseError::Json { .. }
    ));
    assert!(matches!(other("0606", "060g"), ParseError::Json { .. }));
    assert!(matches!(
        other("\"sha256\":\"07", "\"sha256\":\"0"),
        ParseError::Json { .. }
    ));
    assert!(matches!(SignedRecord::parse(b""), Err(ParseError::Json { .. })));
    assert!(matches!(
        SignedRecord::parse(&vec![b' '; MAX_TEXT + 1]),
        Err(ParseError::TooLarge { .. })
    ));
}

#[test]
fn a_number_that_readers_differ_on_is_not_signed() {
    let key = RecordKey::generate().unwrap();
    let mut record = record(&key);
    record.models[0].version = 1 << 53;
    let signed = signed();
    assert_eq!(
        SignedRecord::sign(record, &key, signed.binding, signed.evidence),
        Err(CanonicalError::Number)
    );
}
