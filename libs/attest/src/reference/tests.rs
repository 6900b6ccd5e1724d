use ring::{rand::SystemRandom, signature::KeyPair};
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;

fn pair() -> Ed25519KeyPair {
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap()
}

fn public(pair: &Ed25519KeyPair) -> [u8; 32] {
    pair.public_key().as_ref().try_into().unwrap()
}

fn values() -> Values {
    let mut values = Values::new();
    values.add(Measured::SnpLaunchDigest, [1; 48]);
    values.add(Measured::SnpLaunchDigest, [2; 48]);
    values.add(Measured::SnpLaunchDigest, [1; 48]);
    values.add(Measured::Mrtd, [3; 48]);
    values
}

fn name() -> ReferenceName {
    "guest-0.1.0".parse().unwrap()
}

fn signed(pair: &Ed25519KeyPair) -> Document {
    Document::of(&values()).sign(pair, name(), NOW, NOW + 3600).unwrap()
}

#[test]
fn the_document_is_a_message_that_trustee_imports() {
    let json: Value = serde_json::from_slice(&signed(&pair()).to_json()).unwrap();
    assert_eq!((&json["version"], &json["type"]), (&json!("0.1.0"), &json!("sample")));
    let payload = STANDARD.decode(json["payload"].as_str().unwrap()).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    let hex = |byte: &str| byte.repeat(48);
    let expected = json!({"mr_td": [hex("03")], "snp_launch_measurement": [hex("01"), hex("02")]});
    assert_eq!(payload, expected);
    // Without a signature it has their members only.
    let unsigned: Value = serde_json::from_slice(&Document::of(&values()).to_json()).unwrap();
    let members: Vec<_> = unsigned.as_object().unwrap().keys().collect();
    assert_eq!(members, ["payload", "type", "version"]);
}

#[test]
fn what_was_signed_is_this_text() {
    let payload = hex::encode(sha256(b"{}"));
    let expected = format!("cella reference-values 1\nname guest-0.1.0\nissued 1\nexpires 2\npayload {payload}\n");
    assert_eq!(statement(&name(), 1, 2, b"{}"), expected);
}

#[test]
fn a_trusted_signers_values_are_read() {
    let (pair, other) = (pair(), self::pair());
    let document = Document::parse(&signed(&pair).to_json()).unwrap();
    let references = document.verify(&[public(&other), public(&pair)], NOW).unwrap();
    let expected = References {
        name: name(),
        issued: NOW,
        expires: NOW + 3600,
        signer: public(&pair),
        values: values(),
    };
    assert_eq!(references, expected);
    assert_eq!(references.values.of(Measured::SnpLaunchDigest), [[1; 48], [2; 48]]);
    assert!(references.values.of(Measured::Rtmr1).is_empty());
    assert_eq!(references.values.iter().count(), 3);
}

#[test]
fn t28_unsigned_wrong_signer_and_expired_are_told_apart() {
    let (pair, other) = (pair(), self::pair());
    let trusted = [public(&pair)];
    let refusal = |document: &Document, now| document.verify(&trusted, now).unwrap_err();
    let unsigned = Document::of(&values());
    assert!(matches!(refusal(&unsigned, NOW), ReferenceError::Unsigned));
    assert!(matches!(refusal(&signed(&other), NOW), ReferenceError::Signature));
    let document = signed(&pair);
    assert!(matches!(document.verify(&[], NOW), Err(ReferenceError::Signature)));
    assert!(document.verify(&trusted, NOW + 3599).is_ok());
    assert!(matches!(refusal(&document, NOW + 3600), ReferenceError::Expired));
    assert!(document.verify(&trusted, NOW - 300).is_ok());
    assert!(matches!(refusal(&document, NOW - 301), ReferenceError::Future));
}

#[test]
fn t28_no_part_can_be_exchanged() {
    let pair = pair();
    let mut more = values();
    more.add(Measured::Mrtd, [9; 48]);
    let other = Document::of(&more).sign(&pair, name(), NOW, NOW + 3600).unwrap();
    let good: Value = serde_json::from_slice(&signed(&pair).to_json()).unwrap();
    let others: Value = serde_json::from_slice(&other.to_json()).unwrap();
    for (pointer, value) in [
        ("/payload", others["payload"].clone()),
        ("/cella/name", json!("other")),
        ("/cella/issued", json!(NOW + 1)),
        ("/cella/expires", json!(NOW + 7200)),
        ("/cella/signature", others["cella"]["signature"].clone()),
        ("/cella/signature", json!("AAAA")),
        ("/cella/signature", json!("!")),
    ] {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        let document = Document::parse(changed.to_string().as_bytes()).unwrap();
        let refused = document.verify(&[public(&pair)], NOW);
        assert!(
            matches!(refused, Err(ReferenceError::Signature)),
            "{pointer}: {refused:?}"
        );
    }
}

#[test]
fn lifetimes_are_bounded() {
    let pair = pair();
    for (issued, expires) in [(NOW, NOW), (NOW, NOW - 1), (NOW, NOW + MAX_LIFETIME_S + 1)] {
        let refused = Document::of(&values()).sign(&pair, name(), issued, expires);
        assert!(
            matches!(refused, Err(ReferenceError::Lifetime)),
            "{expires}: {refused:?}"
        );
    }
    // Nor is one believed that another program signed.
    let mut long = signed(&pair);
    let statement = statement(&name(), NOW, u64::MAX, &long.payload);
    long.claim = Some(Claim {
        name: name(),
        issued: NOW,
        expires: u64::MAX,
        signature: URL_SAFE_NO_PAD.encode(pair.sign(statement.as_bytes())),
    });
    let refused = long.verify(&[public(&pair)], NOW);
    assert!(matches!(refused, Err(ReferenceError::Lifetime)), "{refused:?}");
}

#[test]
fn other_forms_are_refused() {
    let good: Value = serde_json::from_slice(&signed(&pair()).to_json()).unwrap();
    let parse = |json: &Value| Document::parse(json.to_string().as_bytes());
    let with = |pointer: &str, value: Value| {
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        let mut changed = good.clone();
        changed.pointer_mut(parent).unwrap()[member] = value;
        parse(&changed)
    };
    for (pointer, value) in [
        ("/extra", json!(1)),
        ("/payload", json!(null)),
        ("/cella/extra", json!(1)),
        ("/cella/name", json!("a b")),
        ("/cella/name", json!("")),
        ("/cella/name", json!("..")),
        ("/cella/name", json!("a".repeat(65))),
        ("/cella/issued", json!(-1)),
        ("/cella/expires", json!("never")),
    ] {
        let refused = with(pointer, value);
        assert!(
            matches!(refused, Err(ReferenceError::Json { .. })),
            "{pointer}: {refused:?}"
        );
    }
    assert!(matches!(with("/version", json!("0.2.0")), Err(ReferenceError::Kind)));
    assert!(matches!(with("/type", json!("rim")), Err(ReferenceError::Kind)));
    assert!(matches!(with("/payload", json!("_")), Err(ReferenceError::Payload)));
    let long = vec![b' '; MAX_DOCUMENT + 1];
    assert!(matches!(Document::parse(&long), Err(ReferenceError::TooLarge { .. })));
    let text = signed(&pair()).to_json();
    for cut in 0..text.len() {
        assert!(Document::parse(&text[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn other_values_are_refused() {
    let read = |payload: &Value| {
        Document {
            payload: payload.to_string().into_bytes(),
            claim: None,
        }
        .unverified()
    };
    let digest = "ab".repeat(48);
    assert!(matches!(read(&json!({})), Err(ReferenceError::Empty)));
    assert!(matches!(read(&json!({"mr_td": []})), Err(ReferenceError::Empty)));
    for other in [
        json!(null),
        json!({"mr_td": digest}),
        json!({"svn": [1]}),
        json!({"mr_td": [1]}),
    ] {
        assert!(matches!(read(&other), Err(ReferenceError::Values { .. })), "{other}");
    }
    let short = json!({"rtmr_1": [digest, &digest[1..]]});
    let refused = read(&short);
    assert!(
        matches!(
            refused,
            Err(ReferenceError::Value {
                name: "rtmr_1",
                index: 1
            })
        ),
        "{refused:?}"
    );
    let many = json!({"rtmr_2": vec![digest; values::MAX_VALUES + 1]});
    assert!(matches!(read(&many), Err(ReferenceError::TooMany { name: "rtmr_2" })));
    let refused = Document {
        payload: b"{}".to_vec(),
        claim: None,
    }
    .sign(&pair(), name(), NOW, NOW + 1);
    assert!(matches!(refused, Err(ReferenceError::Empty)));
}
