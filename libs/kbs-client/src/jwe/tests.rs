//! The known answer of kbs-protocol 0.4.0, section 6, and everything that must not open.
use serde_json::json;

use super::*;

fn counting<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|i| first + u8::try_from(i).unwrap())
}

fn tee_key() -> TeeKey {
    TeeKey::from_bytes(&counting(0x01)).unwrap()
}

fn known_answer() -> Jwe {
    serde_json::from_value(json!({
        "protected": "eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIsIngiOiJIeFFCUnIteHNsSDRUMDNiNE5UTno5ZDZfWmhLbFNEalY1UUNINE1TdTU0IiwieSI6IjdKbGFDTEg2ZHdUZlBjd0xVS2xtVW1QN2R4SDVYNS1LUkp4UWx1UjhpU3MifX0",
        "encrypted_key": "IC-TxB6P94l1m8KtMEKBPVM4CBSoUuX9KUa5kyy9fsmuUDIVmfHZlw",
        "iv": "YGFiY2RlZmdoaWpr",
        "ciphertext": "z01laWa0-8R6oRxOZOssZ2o",
        "tag": "idMyBlrI4uJirmemmTDbfw"
    }))
    .unwrap()
}

/// A message whose protected header is `header`, otherwise made as by [`encrypt`].
fn with_header(header: &str, ephemeral: &TeeKey) -> Jwe {
    let protected = URL_SAFE_NO_PAD.encode(header);
    let kek = derive(&ephemeral.agree(&tee_key().public()));
    let (cek, iv) = (counting::<32>(0x40), counting::<12>(0x60));
    let mut wrapped = [0; 40];
    KwAes256::new(&(*kek).into()).wrap_key(&cek, &mut wrapped).unwrap();
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &cek).unwrap());
    let mut text = b"cella kbs example".to_vec();
    let nonce = Nonce::assume_unique_for_key(iv);
    let tag = cipher
        .seal_in_place_separate_tag(nonce, Aad::from(protected.as_bytes()), &mut text)
        .unwrap();
    let [encrypted_key, iv, ciphertext, tag] =
        [&wrapped[..], &iv[..], &text[..], tag.as_ref()].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    Jwe {
        protected,
        encrypted_key,
        iv,
        ciphertext,
        tag,
    }
}

#[test]
fn opens_and_makes_the_known_answer() {
    assert_eq!(
        decrypt(&tee_key(), &known_answer()).unwrap().as_slice(),
        b"cella kbs example"
    );
    let ephemeral = TeeKey::from_bytes(&counting(0x21)).unwrap();
    let z = ephemeral.agree(&tee_key().public());
    assert_eq!(hex::encode(&z[..4]), "4fe24390");
    assert_eq!(hex::encode(&z[28..]), "1245150a");
    assert_eq!(
        hex::encode(*derive(&z)),
        "b403833737c544b17814a63edb2770bdf0bc9b8a51cade91f4f1c64861a2ccf4"
    );
    let made = encrypt_with(
        &tee_key().public(),
        &ephemeral,
        &counting(0x40),
        counting(0x60),
        b"cella kbs example",
    )
    .unwrap();
    assert_eq!(made, known_answer());
}

#[test]
fn round_trips_every_small_length() {
    let key = TeeKey::generate().unwrap();
    for length in [0, 1, 15, 16, 17, 32, 4096] {
        let secret = vec![0xa5; length];
        let message = encrypt(&key.public(), &secret).unwrap();
        let text = serde_json::to_vec(&message).unwrap();
        let message: Jwe = serde_json::from_slice(&text).unwrap();
        assert_eq!(*decrypt(&key, &message).unwrap(), secret);
    }
}

#[test]
fn two_messages_share_nothing() {
    let key = tee_key().public();
    let (one, two) = (encrypt(&key, b"same").unwrap(), encrypt(&key, b"same").unwrap());
    assert_ne!(one.protected, two.protected);
    assert_ne!(one.encrypted_key, two.encrypted_key);
    assert_ne!(one.iv, two.iv);
    assert_ne!(one.ciphertext, two.ciphertext);
}

#[test]
fn any_order_and_any_blanks_in_the_header_open() {
    let ephemeral = TeeKey::generate().unwrap();
    let (x, y) = ephemeral.public().coordinates();
    for header in [
        format!(r#"{{"epk":{{"y":"{y}","kty":"EC","x":"{x}","crv":"P-256"}},"enc":"A256GCM","alg":"ECDH-ES+A256KW"}}"#),
        format!(
            "{{ \"enc\" :\n\t\"A256GCM\", \"alg\":\"ECDH-ES+A256KW\", \"epk\":{{\"x\":\"{x}\",\"y\":\"{y}\",\"crv\":\"P-256\",\"kty\":\"EC\"}} }}"
        ),
    ] {
        assert_eq!(
            decrypt(&tee_key(), &with_header(&header, &ephemeral))
                .unwrap()
                .as_slice(),
            b"cella kbs example"
        );
    }
}

#[test]
fn headers_of_another_form_are_refused() {
    let ephemeral = TeeKey::generate().unwrap();
    let good = Header::write(&ephemeral.public());
    for (bad, algorithm) in [
        (good.replace("A256GCM", "A128GCM"), true),
        (good.replace("+A256KW", ""), true),
        (good.replace("P-256", "P-384"), true),
        (good.replace("\"EC\"", "\"OKP\""), true),
        (good.replace(r#""enc""#, r#""crit":["x"],"enc""#), false),
        (good.replace(r#""enc""#, r#""zip":"DEF","enc""#), false),
        (good.replace(r#""enc""#, r#""apu":"YQ","enc""#), false),
        (good.replace(r#""alg""#, r#""alg":"x","alg""#), false),
        (format!("{good}x"), false),
        (String::new(), false),
    ] {
        match decrypt(&tee_key(), &with_header(&bad, &ephemeral)) {
            Err(JweError::Algorithm) => assert!(algorithm, "{bad}"),
            Err(JweError::Header) => assert!(!algorithm, "{bad}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
    let (x, _) = ephemeral.public().coordinates();
    let elsewhere = good.replace(&x, &URL_SAFE_NO_PAD.encode([0xff; 32]));
    assert!(matches!(
        decrypt(&tee_key(), &with_header(&elsewhere, &ephemeral)),
        Err(JweError::Epk(_))
    ));
    let large = good.replace('{', &format!("{{{}", " ".repeat(4096)));
    assert!(matches!(
        decrypt(&tee_key(), &with_header(&large, &ephemeral)),
        Err(JweError::Header)
    ));
}

#[test]
fn another_key_does_not_open() {
    assert!(matches!(
        decrypt(&TeeKey::generate().unwrap(), &known_answer()),
        Err(JweError::NotForThisKey)
    ));
}

#[test]
fn a_flipped_bit_anywhere_is_an_error() {
    let text = serde_json::to_vec(&known_answer()).unwrap();
    for position in 0..text.len() {
        let mut changed = text.clone();
        changed[position] ^= 1;
        if let Ok(message) = serde_json::from_slice::<Jwe>(&changed) {
            assert!(decrypt(&tee_key(), &message).is_err(), "bit flipped at byte {position}");
        }
    }
}

#[test]
fn a_message_cut_short_is_an_error() {
    let text = serde_json::to_vec(&known_answer()).unwrap();
    for length in 0..text.len() {
        assert!(serde_json::from_slice::<Jwe>(&text[..length]).is_err());
    }
    for member in ["encrypted_key", "iv", "tag"] {
        let mut message = serde_json::to_value(known_answer()).unwrap();
        let short = message[member].as_str().unwrap()[4..].to_owned();
        message[member] = short.into();
        let message: Jwe = serde_json::from_value(message).unwrap();
        assert!(matches!(decrypt(&tee_key(), &message), Err(JweError::Member(name)) if name == member));
    }
}

#[test]
fn further_members_are_refused() {
    let mut message = serde_json::to_value(known_answer()).unwrap();
    message["aad"] = "YQ".into();
    assert!(serde_json::from_value::<Jwe>(message).is_err());
}
