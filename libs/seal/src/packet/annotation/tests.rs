use ring::digest::{SHA256, digest};

use super::*;
use crate::secret::DataKey;

const KID: &str = "kbs:///demo/image-kek/1";
const PRIVATE: &str = r#"{"symkey":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","digest":"sha256:25c1adcabe6f75eac73b3eb6c068da21497ad8ded4db3d41a529385a628ca2f6","cipheroptions":{"nonce":"/////////////////////g=="}}"#;

fn kek() -> Kek {
    Kek::from_slice(&(0x80..=0x9f).collect::<Vec<u8>>()).unwrap()
}

fn iv() -> [u8; 12] {
    (0xa0..=0xab).collect::<Vec<u8>>().try_into().unwrap()
}

fn packet() -> AnnotationPacket {
    let private = PrivateOptions::from_json(PRIVATE.as_bytes()).unwrap();
    AnnotationPacket::wrap_with_iv(&private, &kek(), KID, iv()).unwrap()
}

fn parse(json: &str) -> Result<AnnotationPacket, PacketError> {
    AnnotationPacket::parse(&STANDARD.encode(json))
}

/// The packet's JSON with one text replaced.
fn changed(from: &str, to: &str) -> Result<AnnotationPacket, PacketError> {
    let json = String::from_utf8(STANDARD.decode(packet().to_base64().unwrap()).unwrap()).unwrap();
    assert!(json.contains(from), "{json}");
    parse(&json.replace(from, to))
}

#[test]
fn known_answer() {
    let packet = packet();
    assert_eq!(PRIVATE.len(), 193);
    assert_eq!(packet.wrapped.len(), 209);
    assert_eq!(
        hex::encode(digest(&SHA256, &packet.wrapped)),
        "54e185bda2b5cce5d116a05e093f52b45df69769735d478ff52f97836fa451b4"
    );
    let private = packet.unwrap(&kek()).unwrap();
    assert_eq!(private.to_json().as_str(), PRIVATE);
    assert!(
        private
            .symkey
            .same_as(&DataKey::from_slice(&(0..32).collect::<Vec<u8>>()).unwrap())
    );
}

#[test]
fn version_1_and_version_2_are_read() {
    let packet = packet();
    let base64 = packet.to_base64().unwrap();
    assert_eq!(AnnotationPacket::parse(&base64).unwrap(), packet);
    let json = String::from_utf8(STANDARD.decode(base64).unwrap()).unwrap();
    assert!(
        json.starts_with(r#"{"kid":"kbs:///demo/image-kek/1","wrapped_data":""#),
        "{json}"
    );
    assert!(
        json.ends_with(r#","iv":"oKGio6Slpqeoqaqr","wrap_type":"A256GCM"}"#),
        "{json}"
    );
    let second = json.replacen(
        '{',
        r#"{"version":"0.1.0","provider":"kbs","provider_settings":{},"annotations":{"a":{"b":1}},"#,
        1,
    );
    assert_eq!(parse(&second).unwrap(), packet);
}

#[test]
fn what_is_not_spoken_is_refused_by_name() {
    let field = |result: Result<AnnotationPacket, PacketError>| match result.unwrap_err() {
        PacketError::Unsupported { field, .. } => field,
        error => panic!("{error}"),
    };
    assert_eq!(field(changed("A256GCM", "A256CTR")), "wrap_type");
    assert_eq!(field(changed(r#"{"kid""#, r#"{"version":"0.2.0","kid""#)), "version");
    assert_eq!(field(changed(r#"{"kid""#, r#"{"provider":"aliyun","kid""#)), "provider");
    assert!(matches!(
        changed(r#"{"kid""#, r#"{"other":1,"kid""#),
        Err(PacketError::Json { .. })
    ));
    assert!(matches!(
        changed(r#"{"kid""#, r#"{"kid":"x","kid""#),
        Err(PacketError::Json { .. })
    ));
    assert!(matches!(
        changed(r#","wrap_type":"A256GCM""#, ""),
        Err(PacketError::Json { .. })
    ));
    let short = changed("oKGio6Slpqeoqaqr", "oKGio6Slpqeoqao=");
    assert!(matches!(
        short,
        Err(PacketError::Length {
            field: "iv",
            found: 11,
            expected: 12
        })
    ));
    assert!(matches!(
        changed("oKGio6Slpqeoqaqr", "!"),
        Err(PacketError::Base64 { what: "iv" })
    ));
    assert!(matches!(AnnotationPacket::parse("{"), Err(PacketError::Base64 { .. })));
    let long = "A".repeat(MAX_PACKET + 4);
    assert!(matches!(
        AnnotationPacket::parse(&long),
        Err(PacketError::TooLong { .. })
    ));
}

#[test]
fn key_ids_are_checked() {
    for kid in [
        "kbs:///a/b/c",
        "kbs://host:8080/a/b/c",
        "kbs:///default/key/1",
        "kbs:///A_1/b-2/c.3",
    ] {
        assert_eq!(changed(KID, kid).unwrap().kid(), kid);
    }
    let long = format!("kbs:///a/b/{}", "c".repeat(512));
    for kid in [
        "",
        "a/b/c",
        "kbs:///a/b",
        "kbs:///a/b/c/d",
        "kbs:///a//c",
        "kbs:///a/b/",
        "kbs+x:///a/b/c",
        "http://h/a/b/c",
        "kbs:///a/b/c?d",
        "kbs:///a/b/c d",
        "kbs://u@h/a/b/c",
        &long,
    ] {
        assert!(matches!(changed(KID, kid), Err(PacketError::KeyId)), "{kid}");
    }
    for kid in ["kbs:///default/test-key/1", "kbs://host/default/test-key/1"] {
        assert!(matches!(changed(KID, kid), Err(PacketError::SampleKey { .. })));
    }
}

#[test]
fn a_changed_packet_does_not_open() {
    let packet = packet();
    for at in 0..packet.wrapped.len() {
        let mut bad = packet.clone();
        bad.wrapped[at] ^= 1 << (at % 8);
        assert!(matches!(bad.unwrap(&kek()), Err(PacketError::NotAuthentic { .. })));
        bad.wrapped = packet.wrapped[..at].to_vec();
        assert!(matches!(bad.unwrap(&kek()), Err(PacketError::NotAuthentic { .. })));
    }
    for at in 0..12 {
        let mut bad = packet.clone();
        bad.iv[at] ^= 1;
        assert!(matches!(bad.unwrap(&kek()), Err(PacketError::NotAuthentic { .. })));
    }
    assert!(matches!(
        packet.unwrap(&Kek::random().unwrap()),
        Err(PacketError::NotAuthentic { .. })
    ));
}

#[test]
fn flipped_bits_of_the_text_never_panic() {
    let base64 = packet().to_base64().unwrap().into_bytes();
    for at in 0..base64.len() {
        let mut bad = base64.clone();
        bad[at] ^= 1 << (at % 8);
        let opened = str::from_utf8(&bad)
            .ok()
            .and_then(|text| AnnotationPacket::parse(text).ok());
        let same = opened
            .as_ref()
            .is_none_or(|packet| packet.kid != KID || packet.unwrap(&kek()).is_err());
        assert!(same, "byte {at}");
        assert!(AnnotationPacket::parse(str::from_utf8(&base64[..at]).unwrap()).is_err());
    }
}

#[test]
fn private_options_are_strict_and_their_errors_say_nothing() {
    let problem = |json: &str| PrivateOptions::from_json(json.as_bytes()).err().unwrap();
    assert_eq!(problem(""), "not the JSON that it should be");
    assert_eq!(
        problem(&PRIVATE.replace("nonce", "hmac")),
        "not the JSON that it should be"
    );
    assert_eq!(
        problem(&PRIVATE.replace("{\"symkey", "{\"x\":1,\"symkey")),
        "not the JSON that it should be"
    );
    assert_eq!(problem(&PRIVATE.replace("AAEC", "AAE!")), "symkey is not base64");
    assert_eq!(problem(&PRIVATE.replace("AAECAwQF", "")), "symkey is not 32 bytes long");
    assert_eq!(
        problem(&PRIVATE.replace("sha256:", "sha512:")),
        "digest is not a SHA-256 digest"
    );
    assert_eq!(problem(&PRIVATE.replace("//////", "/////")), "nonce is not base64");
    assert_eq!(
        problem(&PRIVATE.replace("/////////////////////g==", "////")),
        "nonce is not 16 bytes long"
    );
    let without = PRIVATE.replace(r#"{"nonce":"/////////////////////g=="}"#, "null");
    assert_eq!(PrivateOptions::from_json(without.as_bytes()).ok().unwrap().nonce, None);
}

#[test]
fn two_wraps_differ() {
    let private = packet().unwrap(&kek()).unwrap();
    let wrap = || AnnotationPacket::wrap(&private, &kek(), KID).unwrap();
    let (a, b) = (wrap(), wrap());
    assert_ne!(a.iv, b.iv);
    assert_ne!(a.wrapped, b.wrapped);
}
