use super::*;
use crate::testing::AdminKey;
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;

fn header() -> Value {
    json!({"alg": "EdDSA", "typ": "JWT"})
}

fn claims() -> Value {
    json!({"aud": "cella-kbs", "sub": "ada", "iat": NOW - 10, "exp": NOW + 110})
}

fn admins(keys: &[&AdminKey]) -> Admins {
    let mut admins = Admins::new();
    for key in keys {
        admins.add_pem(&key.public_pem()).unwrap();
    }
    admins
}

#[test]
fn any_of_the_keys_is_accepted() {
    let (one, two) = (AdminKey::new(), AdminKey::new());
    let admins = admins(&[&one, &two]);
    for key in [&one, &two] {
        assert_eq!(
            admins
                .authenticate(&key.sign(&header(), &claims()), NOW)
                .unwrap()
                .name(),
            "ada"
        );
    }
    assert_eq!(
        admins.authenticate(&AdminKey::new().sign(&header(), &claims()), NOW),
        Err(AdminError::Signature)
    );
    assert_eq!(
        Admins::new().authenticate(&one.sign(&header(), &claims()), NOW),
        Err(AdminError::Signature)
    );
}

#[test]
fn claims_are_checked() {
    let key = AdminKey::new();
    let admins = admins(&[&key]);
    let check = |change: Value| {
        let mut claims = claims();
        claims
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        admins.authenticate(&key.sign(&header(), &claims), NOW).map(|_| ())
    };
    assert_eq!(check(json!({"aud": "cella-kbs2"})), Err(AdminError::Audience));
    assert_eq!(
        check(json!({"iat": NOW - 700, "exp": NOW + 1})),
        Err(AdminError::Lifetime)
    );
    assert_eq!(check(json!({"iat": NOW, "exp": NOW})), Err(AdminError::Lifetime));
    assert_eq!(check(json!({"iat": 0, "exp": u64::MAX})), Err(AdminError::Lifetime));
    assert_eq!(
        check(json!({"iat": NOW + 61, "exp": NOW + 100})),
        Err(AdminError::NotYet)
    );
    assert_eq!(check(json!({"iat": NOW + 60, "exp": NOW + 100})), Ok(()));
    assert_eq!(check(json!({"exp": NOW})), Err(AdminError::Expired));
    assert_eq!(check(json!({"exp": NOW + 1})), Ok(()));
    assert_eq!(check(json!({"sub": ""})), Err(AdminError::Subject));
    assert_eq!(check(json!({"sub": "a\nb"})), Err(AdminError::Subject));
    assert_eq!(check(json!({"sub": "x".repeat(65)})), Err(AdminError::Subject));
    assert_eq!(check(json!({"exp": -1})), Err(AdminError::Token(JwsError::Malformed)));
    assert_eq!(check(json!({"sub": null})), Err(AdminError::Token(JwsError::Malformed)));
    assert_eq!(check(json!({"jti": "ignored"})), Ok(()));
}

#[test]
fn the_header_decides_nothing() {
    let key = AdminKey::new();
    let admins = admins(&[&key]);
    let wanted = AdminError::Token(JwsError::Algorithm { wanted: "EdDSA" });
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"alg": "EdDSA", "crit": ["exp"]}),
    ] {
        assert_eq!(admins.authenticate(&key.sign(&header, &claims()), NOW), Err(wanted));
    }
    assert!(
        admins
            .authenticate(&key.sign(&json!({"alg": "EdDSA"}), &claims()), NOW)
            .is_ok()
    );
}

#[test]
fn no_changed_character_and_no_part_passes() {
    let key = AdminKey::new();
    let admins = admins(&[&key]);
    let token = key.sign(&header(), &claims());
    for index in 0..token.len() {
        assert!(admins.authenticate(&token[..index], NOW).is_err(), "cut at {index}");
        let mut bytes = token.clone().into_bytes();
        bytes[index] ^= 1;
        let changed = String::from_utf8(bytes).unwrap();
        assert!(admins.authenticate(&changed, NOW).is_err(), "changed at {index}");
    }
    assert!(admins.authenticate(&"a".repeat(17_000), NOW).is_err());
}

#[test]
fn only_ed25519_keys_are_taken() {
    let mut admins = Admins::new();
    assert_eq!(admins.add_pem("garbage"), Err(PublicKeyError));
    let p256 = rcgen::KeyPair::generate().unwrap();
    assert_eq!(admins.add_pem(&p256.public_key_pem()), Err(PublicKeyError));
    assert_eq!(admins.add_pem(&AdminKey::new().private_pem()), Err(PublicKeyError));
}
