use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

use super::*;
use crate::TeeKey;

const NOW: u64 = 1_800_000_000;

struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref(), &random).unwrap())
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        let [x, y] = [1..33, 33..65].map(|range| URL_SAFE_NO_PAD.encode(&point[range]));
        json!({"alg": "ES256", "crv": "P-256", "kid": "any", "kty": "EC", "use": "sig", "x": x, "y": y})
    }

    fn thumbprint(&self) -> KeyThumbprint {
        let jwk = self.jwk();
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
        KeyThumbprint(digest(&SHA256, text.as_bytes()).as_ref().try_into().unwrap())
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "typ": "JWT", "jwk": self.jwk()}), claims)
    }
}

fn claims(key: &TeePubKey, iat: u64) -> Value {
    let runtime = json!({"nonce": "x", "tee-pubkey": key});
    let evidence = json!({"ear.veraison.annotated-evidence": {"runtime_data_claims": runtime}});
    json!({"iat": iat, "exp": iat + 300, "jti": "0011223344556677", "submods": {"cpu0": evidence}})
}

#[test]
fn t10_a_token_of_a_pinned_key_about_this_guest_states_the_time() {
    let (signer, other, key) = (Signer::new(), Signer::new(), TeeKey::generate().unwrap().public());
    let text = signer.token(&claims(&key, NOW));
    let token = Token::read(&text, &[other.thumbprint(), signer.thumbprint()], &key).unwrap();
    assert_eq!(
        token,
        Token {
            id: "0011223344556677".to_owned(),
            issued: Duration::from_secs(NOW),
            lifetime: Duration::from_secs(300),
            signer: Some(signer.thumbprint()),
        }
    );
    // Without pins the connection vouches for it, and the signature is not looked at.
    let (signed, _) = text.rsplit_once('.').unwrap();
    assert_eq!(Token::read(&format!("{signed}.AAAA"), &[], &key).unwrap().signer, None);
}

#[test]
fn t10_t17_another_key_an_older_token_and_any_change_are_refused() {
    let (signer, other, key) = (Signer::new(), Signer::new(), TeeKey::generate().unwrap().public());
    let pins = [signer.thumbprint()];
    let read = |text: &str| Token::read(text, &pins, &key).unwrap_err();
    let good = signer.token(&claims(&key, NOW));
    assert_eq!(read(&other.token(&claims(&key, NOW))), TokenError::NotPinned);
    let before = TeeKey::generate().unwrap().public();
    assert_eq!(read(&signer.token(&claims(&before, NOW))), TokenError::NotAboutUs);
    assert_eq!(
        read(&signer.token(&json!({"iat": NOW, "exp": NOW + 1}))),
        TokenError::NotAboutUs
    );
    // The pinned key in the header, another behind the signature.
    let header = json!({"alg": "ES256", "jwk": signer.jwk()});
    assert_eq!(read(&other.sign(&header, &claims(&key, NOW))), TokenError::Signature);
    for header in [
        json!({"alg": "none", "jwk": signer.jwk()}),
        json!({"alg": "HS256", "jwk": signer.jwk()}),
        json!({"alg": "ES256"}),
        json!({"alg": "ES256", "jwk": signer.jwk(), "crit": ["b64"]}),
        json!({"alg": "ES256", "jwk": {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}}),
    ] {
        assert_eq!(
            read(&signer.sign(&header, &claims(&key, NOW))),
            TokenError::Algorithm,
            "{header}"
        );
    }
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let Ok(changed) = String::from_utf8(bytes) else {
            continue;
        };
        assert!(Token::read(&changed, &pins, &key).is_err(), "{at}");
        assert!(Token::read(&good[..at], &pins, &key).is_err(), "{at}");
    }
}

#[test]
fn t10_times_and_names_that_cannot_be_are_refused_pinned_or_not() {
    let (signer, key) = (Signer::new(), TeeKey::generate().unwrap().public());
    let with = |name: &str, value: Value| {
        let mut claims = claims(&key, NOW);
        claims[name] = value;
        signer.token(&claims)
    };
    for (text, error) in [
        (with("iat", json!(0)), TokenError::Claims),
        (with("iat", json!(EARLIEST - 1)), TokenError::Claims),
        (with("iat", json!(u64::MAX)), TokenError::Claims),
        (with("exp", json!(NOW)), TokenError::Claims),
        (with("jti", json!("a b")), TokenError::Claims),
        (with("jti", json!("x".repeat(129))), TokenError::Claims),
        (with("iat", json!("now")), TokenError::Malformed),
        (with("iat", json!(-1)), TokenError::Malformed),
        ("e30.e30.e30".to_owned(), TokenError::Malformed),
        (String::new(), TokenError::Malformed),
        ("a".repeat(MAX_TOKEN + 1), TokenError::Malformed),
    ] {
        assert_eq!(Token::read(&text, &[], &key), Err(error));
        assert!(Token::read(&text, &[signer.thumbprint()], &key).is_err());
    }
}

#[test]
fn thumbprints_are_written_as_kids_are() {
    let thumbprint = Signer::new().thumbprint();
    let text = thumbprint.to_string();
    assert_eq!((text.len(), text.parse()), (43, Ok(thumbprint)));
    for bad in [
        "",
        "AAAA",
        &text[1..],
        &format!("{text}="),
        &text.replace(&text[..1], "+"),
    ] {
        assert!(bad.parse::<KeyThumbprint>().is_err(), "{bad}");
    }
}
