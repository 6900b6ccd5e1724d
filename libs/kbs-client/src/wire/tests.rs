//! Known answers of kbs-protocol 0.4.0, and the shapes of the messages.
use serde_json::json;

use super::*;
use crate::TeeKey;

const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn key() -> TeePubKey {
    TeeKey::from_bytes(&std::array::from_fn(|i| u8::try_from(i).unwrap() + 1))
        .unwrap()
        .public()
}

#[test]
fn report_data_matches_the_known_answer() {
    let jcs = runtime_data_jcs(NONCE, &key(), "");
    assert_eq!(jcs.len(), 244);
    assert_eq!(
        jcs,
        r#"{"additional-evidence":"","nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","tee-pubkey":{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"UVw9brnjlrkE0_7Kf1T9zQzB6Ze_N13KUVrQpsO0A18","y":"RTa-OlDzGPv5pUdZAqIhUCvvDVfgjFOyzApW8X2fk1Q"}}"#
    );
    let expected = "c97fc717bffcdca39b3485d4019c1de4133fc9622ba484e947b417b83ffbae1abbf11747fdebdecaaabc5b407be66821";
    assert_eq!(
        hex::encode(report_data(NONCE, &key(), "")),
        format!("{expected}{}", "00".repeat(16))
    );
    let devices = r#"{"sampledevice":{"svn":"1"}}"#;
    let expected = "9adad3cd630039e85c7615661e447befa157574d9648228a631ccf58b53babd06bd8e23d8f28b0c28939fe3383343984";
    assert_eq!(
        hex::encode(report_data(NONCE, &key(), devices)),
        format!("{expected}{}", "00".repeat(16))
    );
}

#[test]
fn strings_are_escaped_as_jcs_wants() {
    assert_eq!(
        json_string("\u{8}\t\n\u{c}\r\"\\/\u{1f}\u{7f}é\u{2028}"),
        "\"\\b\\t\\n\\f\\r\\\"\\\\/\\u001f\u{7f}é\u{2028}\""
    );
}

#[test]
fn messages_have_the_names_of_the_wire() {
    let attestation = Attestation {
        init_data: Some(InitData {
            format: "toml".to_owned(),
            body: "version = \"0.1.0\"\n".to_owned(),
        }),
        runtime_data: RuntimeData {
            nonce: NONCE.to_owned(),
            tee_pubkey: key(),
        },
        tee_evidence: TeeEvidence {
            primary_evidence: json!({"report": ""}),
            additional_evidence: String::new(),
        },
    };
    let wire = serde_json::to_value(&attestation).unwrap();
    assert_eq!(
        wire,
        json!({
            "init-data": {"format": "toml", "body": "version = \"0.1.0\"\n"},
            "runtime-data": {"nonce": NONCE, "tee-pubkey": {
                "kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW",
                "x": "UVw9brnjlrkE0_7Kf1T9zQzB6Ze_N13KUVrQpsO0A18", "y": "RTa-OlDzGPv5pUdZAqIhUCvvDVfgjFOyzApW8X2fk1Q"}},
            "tee-evidence": {"primary_evidence": {"report": ""}, "additional_evidence": ""},
        })
    );
    assert_eq!(
        serde_json::from_value::<Attestation>(wire.clone()).unwrap(),
        attestation
    );
    let mut without = wire;
    without.as_object_mut().unwrap().remove("init-data");
    assert_eq!(serde_json::from_value::<Attestation>(without).unwrap().init_data, None);

    let request: Request = serde_json::from_str(r#"{"version":"0.4.0","tee":"snp","extra-params":""}"#).unwrap();
    assert_eq!((request.version.as_str(), request.tee.as_str()), (VERSION, "snp"));
    assert!(serde_json::from_str::<Request>(r#"{"version":"0.4.0","tee":"snp"}"#).is_err());
    let challenge: Challenge = serde_json::from_str(r#"{"nonce":"x"}"#).unwrap();
    assert_eq!(challenge.extra_params, Value::Null);
}

#[test]
fn error_information_splits_off_the_name() {
    let error = ErrorInformation::new("PolicyDeny", "measurement not in the rule");
    assert_eq!(
        serde_json::to_value(&error).unwrap(),
        json!({"type": "https://github.com/confidential-containers/kbs/errors/PolicyDeny",
               "detail": "measurement not in the rule"})
    );
    assert_eq!(error.name(), "PolicyDeny");
}

#[test]
fn resource_paths() {
    let path: ResourcePath = "demo/image-kek/1".parse().unwrap();
    assert_eq!(ResourcePath::from_kid("kbs:///demo/image-kek/1").unwrap(), path);
    for bad in [
        "", "a/b", "a/b/c/d", "/a/b", "a//b", "a/../b", "a/b/.", "a/b/c?d", "a/b/ü", "a/b/c d", "a/b/%2e",
    ] {
        assert_eq!(bad.parse::<ResourcePath>(), Err(ResourcePathError::Segments), "{bad}");
    }
    assert_eq!(
        format!("a/b/{}", "c".repeat(129)).parse::<ResourcePath>(),
        Err(ResourcePathError::Segments)
    );
    assert_eq!(ResourcePath::from_kid("kbs://host/a/b/c"), Err(ResourcePathError::Kid));
    assert_eq!(ResourcePath::from_kid("a/b/c"), Err(ResourcePathError::Kid));
}
