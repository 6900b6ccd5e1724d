//! Tokens: an administrator's and the broker's own at the broker, and the broker's at the guest. The first byte says how much of the
//! token is ours: nothing, or header and signature around foreign claims, so that the parser behind the signature is reached too.
#![no_main]
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cella_kbs::admin::Admins;
use cella_kbs::token::TokenKey;
use cella_kbs_client::TeeKey;
use cella_kbs_client::token::Token;
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

const NOW: u64 = 1_800_000_000;

struct Keys {
    admins: Admins,
    admin: Ed25519KeyPair,
    broker: TokenKey,
    signs: EcdsaKeyPair,
    guest: TeeKey,
    random: SystemRandom,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let random = SystemRandom::new();
    let admin = Ed25519KeyPair::generate_pkcs8(&random).expect("key");
    let admin = Ed25519KeyPair::from_pkcs8(admin.as_ref()).expect("key");
    let mut spki = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
    spki.extend(admin.public_key().as_ref());
    let mut admins = Admins::new();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(spki));
    admins.add_pem(&pem).expect("public key");
    let der = TokenKey::generate().expect("key");
    Keys {
        admins,
        admin,
        broker: TokenKey::from_pkcs8(&der).expect("key"),
        signs: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random).expect("key"),
        guest: TeeKey::generate().expect("key"),
        random,
    }
});

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 3 {
        0 => {
            let Ok(text) = std::str::from_utf8(rest) else { return };
            assert!(KEYS.admins.authenticate(text, NOW).is_err(), "nothing that was not signed is an admin's");
            assert!(KEYS.broker.verify(text, NOW).is_err(), "nothing that was not signed is the broker's");
            let _ = Token::read(text, &[], &KEYS.guest.public());
            assert!(Token::read(text, &[[0; 32].into()], &KEYS.guest.public()).is_err(), "nobody has the key that was pinned");
        }
        1 => {
            let token = signed(r#"{"alg":"EdDSA"}"#, rest, |input| KEYS.admin.sign(input).as_ref().to_vec());
            if let Ok(admin) = KEYS.admins.authenticate(&token, NOW) {
                assert!(!admin.name().is_empty() && admin.name().len() <= 64);
            }
        }
        _ => {
            let sign = |input: &[u8]| KEYS.signs.sign(&KEYS.random, input).expect("signature").as_ref().to_vec();
            let token = signed(r#"{"alg":"ES256"}"#, rest, sign);
            let _ = KEYS.broker.verify(&token, NOW);
            let _ = Token::read(&token, &[], &KEYS.guest.public());
        }
    }
});

fn signed(header: &str, claims: &[u8], sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = sign(input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}
