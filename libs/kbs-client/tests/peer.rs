//! Confidential Containers' own types (`kbs-types`, what Trustee and its clients are built on) against ours: what one
//! writes the other reads, and both hash and authenticate the same bytes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "all of it is test code")]

use cella_kbs_client::wire::{self, Attestation, Challenge, Request};
use cella_kbs_client::{TeeKey, jwe};
use kbs_types as theirs;
use serde_json::{Value, json};

/// Ours to theirs and back, member for member.
fn through<Ours, Theirs>(ours: &Ours) -> Value
where
    Ours: serde::Serialize,
    Theirs: serde::Serialize + serde::de::DeserializeOwned,
{
    let written = serde_json::to_string(ours).unwrap();
    let read: Theirs = serde_json::from_str(&written).unwrap();
    let back = serde_json::to_value(&read).unwrap();
    assert_eq!(back, serde_json::from_str::<Value>(&written).unwrap());
    back
}

fn attestation(key: &TeeKey) -> Attestation {
    Attestation {
        init_data: Some(wire::InitData {
            format: "toml".to_owned(),
            body: "version = \"0.1.0\"\n".to_owned(),
        }),
        runtime_data: wire::RuntimeData {
            nonce: "AAEC".to_owned(),
            tee_pubkey: key.public(),
        },
        tee_evidence: wire::TeeEvidence {
            primary_evidence: json!({"attestation_report": {}, "cert_chain": null}),
            additional_evidence: String::new(),
        },
    }
}

#[test]
fn messages_are_theirs() {
    let request = Request {
        version: wire::VERSION.to_owned(),
        tee: "snp".to_owned(),
        extra_params: json!({"supported-hash-algorithms": ["sha384"]}),
    };
    through::<_, theirs::Request>(&request);
    for tee in ["snp", "tdx"] {
        let tee: theirs::Tee = serde_json::from_value(json!(tee)).unwrap();
        let written = theirs::Request {
            version: wire::VERSION.to_owned(),
            tee,
            extra_params: json!(""),
        };
        let read: Request = serde_json::from_value(serde_json::to_value(&written).unwrap()).unwrap();
        assert_eq!(read.tee, tee.to_string());
    }
    let challenge = theirs::Challenge {
        nonce: "AAEC".to_owned(),
        extra_params: json!({"selected-hash-algorithm": "sha384"}),
    };
    let read: Challenge = serde_json::from_value(serde_json::to_value(&challenge).unwrap()).unwrap();
    assert_eq!(
        (read.nonce.as_str(), &read.extra_params),
        ("AAEC", &challenge.extra_params)
    );

    let key = TeeKey::generate().unwrap();
    let value = through::<_, theirs::Attestation>(&attestation(&key));
    let theirs: theirs::Attestation = serde_json::from_value(value).unwrap();
    let ours: Attestation = serde_json::from_value(serde_json::to_value(&theirs).unwrap()).unwrap();
    assert_eq!(ours, attestation(&key));
    // They leave out nothing that is empty: `null` is read as absent.
    let without = theirs::Attestation {
        init_data: None,
        ..theirs
    };
    let ours: Attestation = serde_json::from_value(serde_json::to_value(&without).unwrap()).unwrap();
    assert_eq!(ours.init_data, None);
    through::<_, theirs::ErrorInformation>(&wire::ErrorInformation::new("PolicyDeny", "x"));
}

/// Trustee hashes the key as its own type writes it again. Maps of `serde_json` are sorted here, which for these members is
/// RFC 8785.
#[test]
fn both_ends_hash_the_same_text() {
    let key = TeeKey::generate().unwrap();
    let written = serde_json::to_value(&attestation(&key).runtime_data).unwrap();
    let parsed: theirs::RuntimeData = serde_json::from_value(written).unwrap();
    for additional in ["", r#"{"sampledevice":{"svn":"1"}}"#] {
        let hashed = json!({
            "tee-pubkey": parsed.tee_pubkey,
            "nonce": parsed.nonce,
            "additional-evidence": additional,
        });
        assert_eq!(
            hashed.to_string(),
            wire::runtime_data_jcs("AAEC", &key.public(), additional)
        );
    }
}

/// Their client parses the protected header, writes it again and takes that for the additional data.
#[test]
fn their_client_authenticates_what_we_encrypt() {
    let key = TeeKey::generate().unwrap();
    let ours = serde_json::to_value(jwe::encrypt(&key.public(), b"a key").unwrap()).unwrap();
    let read: theirs::Response = serde_json::from_value(ours.clone()).unwrap();
    assert_eq!(
        read.protected.generate_aad().unwrap(),
        ours["protected"].as_str().unwrap().as_bytes()
    );
    assert_eq!((read.encrypted_key.len(), read.iv.len(), read.tag.len()), (40, 12, 16));
    assert_eq!(read.aad, None);
    // And what they write opens here.
    let back = serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
    assert_eq!(jwe::decrypt(&key, &back).unwrap().as_slice(), b"a key");
}
