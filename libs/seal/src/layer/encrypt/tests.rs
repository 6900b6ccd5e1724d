//! Tests of the layer cipher, both directions.
use std::io::Read;

use super::super::{DecryptReader, LayerDecryptor, LayerError, LayerKeys};
use super::*;

const PLAINTEXT: &[u8] = b"cella ocicrypt known answer: three AES blocks + 3";
const CIPHERTEXT: &str =
    "0080d86ed43e27be938e8ba7e9b8072f87f693736cc61ea924e263417dfb3f9c97f520f76f1abfb2c59cf901ae0e5ca0c3";
const HMAC: &str = "794c781f8c7fbc24c3b12bbeb4e8628a2a7bc422f9689871550f3b7aedd6d563";

fn key() -> DataKey {
    DataKey::from_slice(&(0..32).collect::<Vec<u8>>()).unwrap()
}

/// The counter wraps after the second block.
fn nonce() -> [u8; 16] {
    let mut nonce = [0xff; 16];
    nonce[15] = 0xfe;
    nonce
}

fn encrypt(plaintext: &[u8]) -> (Vec<u8>, LayerKeys) {
    let mut encryptor = LayerEncryptor::with_key(key(), nonce());
    let mut bytes = plaintext.to_vec();
    bytes.chunks_mut(7).for_each(|piece| encryptor.update(piece));
    let EncryptedLayer { public, private } = encryptor.finish();
    let keys = LayerKeys {
        key: private.symkey,
        nonce: private.nonce.unwrap(),
        hmac: public.hmac.unwrap(),
        digest: private.digest,
    };
    (bytes, keys)
}

fn decrypt(keys: &LayerKeys, ciphertext: &[u8]) -> (Vec<u8>, Result<u64, LayerError>) {
    let mut decryptor = LayerDecryptor::new(keys);
    let mut bytes = ciphertext.to_vec();
    bytes.chunks_mut(11).for_each(|piece| decryptor.update(piece));
    (bytes, decryptor.finish().map(|layer| layer.length()))
}

#[test]
fn known_answer_with_a_counter_that_wraps() {
    let (ciphertext, keys) = encrypt(PLAINTEXT);
    assert_eq!(hex::encode(&ciphertext), CIPHERTEXT);
    assert_eq!(hex::encode(keys.hmac), HMAC);
    assert_eq!(
        keys.digest.to_string(),
        "sha256:25c1adcabe6f75eac73b3eb6c068da21497ad8ded4db3d41a529385a628ca2f6"
    );
    let (plaintext, outcome) = decrypt(&keys, &ciphertext);
    assert_eq!(plaintext, PLAINTEXT);
    assert_eq!(outcome.unwrap(), 49);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let (ciphertext, keys) = encrypt(PLAINTEXT);
    for at in 0..ciphertext.len() {
        let mut flipped = ciphertext.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(
            matches!(decrypt(&keys, &flipped).1, Err(LayerError::NotAuthentic)),
            "{at}"
        );
        assert!(
            matches!(decrypt(&keys, &ciphertext[..at]).1, Err(LayerError::NotAuthentic)),
            "{at}"
        );
    }
    let longer = [ciphertext.as_slice(), &[0]].concat();
    assert!(matches!(decrypt(&keys, &longer).1, Err(LayerError::NotAuthentic)));
}

#[test]
fn wrong_keys_macs_nonces_and_digests_are_told_apart() {
    let outcome = |change: fn(&mut LayerKeys)| {
        let (ciphertext, mut keys) = encrypt(PLAINTEXT);
        change(&mut keys);
        decrypt(&keys, &ciphertext).1.unwrap_err()
    };
    assert!(matches!(
        outcome(|keys| keys.key = DataKey::random().unwrap()),
        LayerError::NotAuthentic
    ));
    assert!(matches!(outcome(|keys| keys.hmac[31] ^= 1), LayerError::NotAuthentic));
    // The MAC does not cover the nonce; the digest does.
    assert!(matches!(outcome(|keys| keys.nonce[0] ^= 1), LayerError::Digest));
    assert!(matches!(outcome(|keys| keys.digest.0[0] ^= 1), LayerError::Digest));
}

#[test]
fn errors_show_no_mac() {
    let (ciphertext, mut keys) = encrypt(PLAINTEXT);
    keys.hmac[0] ^= 1;
    let error = decrypt(&keys, &ciphertext).1.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(&HMAC[2..]) && !shown.contains("sha256"), "{shown}");
}

#[test]
fn empty_layers_round_trip() {
    let (ciphertext, keys) = encrypt(b"");
    assert!(ciphertext.is_empty());
    assert_eq!(decrypt(&keys, b"").1.unwrap(), 0);
    assert!(matches!(decrypt(&keys, b"x").1, Err(LayerError::NotAuthentic)));
}

#[test]
fn a_reader_that_stops_early_still_checks_the_rest() {
    let (mut ciphertext, keys) = encrypt(PLAINTEXT);
    let read_five = |ciphertext: &[u8]| {
        let mut reader = DecryptReader::new(&keys, ciphertext);
        let mut five = [0; 5];
        reader.read_exact(&mut five).unwrap();
        assert_eq!(five, PLAINTEXT[..5]);
        reader
            .finish()
            .map(|(layer, rest)| (layer.length(), layer.digest(), rest.len()))
    };
    assert_eq!(read_five(&ciphertext).unwrap(), (49, keys.digest, 0));
    ciphertext[48] ^= 1;
    assert!(matches!(read_five(&ciphertext), Err(LayerError::NotAuthentic)));
}

#[test]
fn a_failing_source_is_not_taken_for_the_end() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
    let (_, keys) = encrypt(b"");
    assert!(matches!(
        DecryptReader::new(&keys, Broken).finish(),
        Err(LayerError::Read { .. })
    ));
}

#[test]
fn every_layer_has_its_own_key_and_nonce() {
    let (a, b) = (
        LayerEncryptor::new().unwrap().finish(),
        LayerEncryptor::new().unwrap().finish(),
    );
    assert!(!a.private.symkey.same_as(&b.private.symkey));
    assert_ne!(a.private.nonce, b.private.nonce);
}
