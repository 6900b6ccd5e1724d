use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const KID: &str = "kbs:///demo/image-kek/1";

fn image() -> (PubOpts, PrivateOptions) {
    let public = PubOpts {
        cipher: Cipher::AesCtrHmac,
        hmac: Some([1; 32]),
    };
    (
        public,
        PrivateOptions {
            symkey: key(7),
            digest: PlainDigest([2; 32]),
            nonce: Some([3; 16]),
        },
    )
}

fn model() -> (PubOpts, PrivateOptions) {
    let public = PubOpts {
        cipher: Cipher::TinkStream,
        hmac: None,
    };
    (
        public,
        PrivateOptions {
            symkey: key(7),
            digest: PlainDigest([2; 32]),
            nonce: None,
        },
    )
}

fn key(byte: u8) -> Kek {
    Kek::from_slice(&[byte; 32]).unwrap()
}

fn annotations((public, private): (PubOpts, PrivateOptions), kek: &Kek) -> BTreeMap<String, String> {
    wrap_layer(&public, &private, kek, KID).unwrap()
}

fn unwrap(annotations: &BTreeMap<String, String>, kek: &Kek) -> Result<UnwrappedLayer, PacketError> {
    unwrap_layer(annotations, |kid| (kid == KID).then_some(kek))
}

/// What comes of an image's annotations after a change.
fn changed(change: impl FnOnce(&mut BTreeMap<String, String>)) -> Result<UnwrappedLayer, PacketError> {
    let mut annotations = annotations(image(), &key(1));
    change(&mut annotations);
    unwrap(&annotations, &key(1))
}

fn with_pubopts(json: &'static str) -> PacketError {
    changed(|map| drop(map.insert(PUBOPTS_ANNOTATION.to_owned(), STANDARD.encode(json))))
        .err()
        .unwrap()
}

#[test]
fn images_and_models_round_trip() {
    let kek = key(1);
    let layer = unwrap(&annotations(image(), &kek), &kek).unwrap();
    assert_eq!(layer.kid, KID);
    let keys = layer.for_image().unwrap();
    assert!(keys.key.same_as(&key(7)));
    assert_eq!(
        (keys.hmac, keys.nonce, keys.digest),
        ([1; 32], [3; 16], PlainDigest([2; 32]))
    );
    let (main_key, digest) = unwrap(&annotations(model(), &kek), &kek).unwrap().for_model().unwrap();
    assert!(main_key.same_as(&key(7)));
    assert_eq!(digest, PlainDigest([2; 32]));
    assert_eq!(layer_kids(&annotations(model(), &kek)).unwrap(), [KID]);
}

#[test]
fn public_options_are_as_the_format_says() {
    let (public, _) = model();
    let json = r#"{"cipher":"AES256_GCM_HKDF_1MB","hmac":"","cipheroptions":{}}"#;
    assert_eq!(public.to_annotation(), STANDARD.encode(json));
    assert_eq!(PubOpts::parse(&STANDARD.encode(json)).unwrap(), public);
    let (public, _) = image();
    assert_eq!(PubOpts::parse(&public.to_annotation()).unwrap(), public);
}

#[test]
fn ciphers_are_not_exchanged() {
    let kek = key(1);
    let unwrapped = |layer| unwrap(&annotations(layer, &kek), &kek).unwrap();
    let error = unwrapped(image()).for_model().err().unwrap();
    assert!(matches!(
        error,
        PacketError::WrongCipher {
            found: "AES_256_CTR_HMAC_SHA256",
            ..
        }
    ));
    let error = unwrapped(model()).for_image().err().unwrap();
    assert!(matches!(
        error,
        PacketError::WrongCipher {
            found: "AES256_GCM_HKDF_1MB",
            ..
        }
    ));
    let (public, mut private) = model();
    private.nonce = Some([0; 16]);
    let error = unwrapped((public, private)).for_model().err().unwrap();
    assert!(matches!(error, PacketError::CipherField { field: "nonce", .. }));
    let (public, mut private) = image();
    private.nonce = None;
    let error = unwrapped((public, private)).for_image().err().unwrap();
    assert!(matches!(error, PacketError::CipherField { field: "nonce", .. }));
}

#[test]
fn public_options_that_could_mislead_are_refused() {
    let mac = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    assert!(matches!(
        with_pubopts(
            r#"{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"AQEB","cipheroptions":{"nonce":"AAAAAAAAAAAAAAAAAAAAAA=="}}"#
        ),
        PacketError::PublicCipherOptions
    ));
    assert!(matches!(
        with_pubopts(r#"{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"","cipheroptions":{}}"#),
        PacketError::CipherField { field: "hmac", .. }
    ));
    assert!(matches!(
        with_pubopts(r#"{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"AQEB","cipheroptions":{}}"#),
        PacketError::Length {
            field: "hmac",
            found: 3,
            expected: 32
        }
    ));
    assert!(matches!(
        with_pubopts(r#"{"cipher":"AES256_GCM_HKDF_1MB","hmac":"AQEB","cipheroptions":{}}"#),
        PacketError::CipherField { field: "hmac", .. }
    ));
    let unknown = with_pubopts(r#"{"cipher":"AES_128","hmac":"","cipheroptions":null}"#);
    assert!(matches!(unknown, PacketError::Unsupported { field: "cipher", .. }));
    assert!(matches!(
        with_pubopts(r#"{"cipher":"AES_128"}"#),
        PacketError::Json { .. }
    ));
    assert!(matches!(
        with_pubopts(r#"{"hmac":"","cipher":"x","cipheroptions":{},"x":1}"#),
        PacketError::Json { .. }
    ));
    let long = changed(|map| drop(map.insert(PUBOPTS_ANNOTATION.to_owned(), mac.repeat(100))));
    assert!(matches!(long, Err(PacketError::TooLong { .. })));
}

#[test]
fn annotations_must_be_there_and_no_others() {
    let missing = |key: &'static str| changed(|map| drop(map.remove(key))).err().unwrap();
    assert!(matches!(
        missing(PROVIDER_ANNOTATION),
        PacketError::Missing {
            key: PROVIDER_ANNOTATION
        }
    ));
    assert!(matches!(
        missing(PUBOPTS_ANNOTATION),
        PacketError::Missing {
            key: PUBOPTS_ANNOTATION
        }
    ));
    let second = changed(|map| {
        let packet = map[PROVIDER_ANNOTATION].clone();
        map.insert(format!("{PROVIDER_PREFIX}other"), packet);
    });
    assert!(matches!(second, Err(PacketError::OtherProvider { provider }) if provider == "other"));
    // Other schemes than key providers are other people's.
    changed(|map| drop(map.insert("org.opencontainers.image.enc.keys.jwe".to_owned(), "x".to_owned()))).unwrap();
}

#[test]
fn keys_are_those_that_the_caller_names() {
    let annotations = annotations(image(), &key(1));
    let error = unwrap_layer(&annotations, |_| None).err().unwrap();
    assert!(matches!(error, PacketError::KeyNotNamed { kid } if kid == KID));
    assert!(matches!(
        unwrap(&annotations, &key(2)),
        Err(PacketError::NotAuthentic { .. })
    ));
}

#[test]
fn several_packets_are_tried_in_turn() {
    let (public, private) = image();
    let packet = |kek: &Kek, kid| AnnotationPacket::wrap(&private, kek, kid).unwrap().to_base64().unwrap();
    let joined = |packets: &[String]| {
        BTreeMap::from([
            (PROVIDER_ANNOTATION.to_owned(), packets.join(",")),
            (PUBOPTS_ANNOTATION.to_owned(), public.to_annotation()),
        ])
    };
    let (other, own) = (packet(&key(9), "kbs:///other/kek/1"), packet(&key(1), KID));
    assert_eq!(
        unwrap(&joined(&[other.clone(), own.clone()]), &key(1)).unwrap().kid,
        KID
    );
    let stale = packet(&key(8), KID);
    assert!(unwrap(&joined(&[stale.clone(), own.clone()]), &key(1)).is_ok());
    assert!(matches!(
        unwrap(&joined(&[other.clone(), stale]), &key(1)),
        Err(PacketError::NotAuthentic { .. })
    ));
    let five = joined(&[other.clone(), other.clone(), other.clone(), other, own]);
    assert!(matches!(
        unwrap(&five, &key(1)),
        Err(PacketError::TooManyPackets { found: 5, limit: 4 })
    ));
    assert!(matches!(
        unwrap(&joined(&[String::new()]), &key(1)),
        Err(PacketError::Json { .. })
    ));
}

/// Two layers under one KEK: a packet moved to the other layer opens, and gives a key that does not fit.
#[test]
fn an_exchanged_packet_gives_the_other_layers_digest() {
    let kek = key(1);
    let (public, mut private) = image();
    private.digest = PlainDigest([9; 32]);
    let other = annotations((public, private), &kek);
    let moved = changed(|map| drop(map.insert(PROVIDER_ANNOTATION.to_owned(), other[PROVIDER_ANNOTATION].clone())));
    assert_eq!(moved.unwrap().private.digest, PlainDigest([9; 32]));
}
