//! Known answers of initdata 0.1.0, and everything that a host could put in their place.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

const KNOWN: &str = "algorithm = \"sha256\"\nversion = \"0.1.0\"\n\n[data]\n\"cella.toml\" = '''\nversion = 1\n'''\n";

fn known_sha384() -> String {
    KNOWN.replace("sha256", "sha384")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A device around any stream, padded as Kata does.
fn device(stream: &[u8]) -> Vec<u8> {
    let mut device = b"initdata".to_vec();
    device.extend_from_slice(&(stream.len() as u64).to_le_bytes());
    device.extend_from_slice(stream);
    device.resize(device.len().next_multiple_of(512), 0);
    device
}

fn document_with(policy: &str) -> String {
    write(policy, Algorithm::Sha256)
}

#[test]
fn known_digests() {
    assert_eq!(KNOWN.len(), 82);
    let sha256 = digests(KNOWN.as_bytes());
    assert_eq!(
        hex::encode(sha256.sha256),
        "8962477807ee0dbf93f7419e45ead68f07291306eba0f45b961bb96134877ce7"
    );
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
    assert_eq!(
        base64(&host_data(KNOWN.as_bytes()).unwrap()),
        "iWJHeAfuDb+T90GeRerWjwcpEwbroPRblhu5YTSHfOc="
    );
    assert_eq!(
        base64(&mr_config_id(KNOWN.as_bytes()).unwrap()),
        "iWJHeAfuDb+T90GeRerWjwcpEwbroPRblhu5YTSHfOcAAAAAAAAAAAAAAAAAAAAA"
    );
    let text = known_sha384();
    assert_eq!(
        hex::encode(digests(text.as_bytes()).sha384),
        "f7fc122834c619bba5b0add1f42f16cc3ddae30a2c8660de17976fcde8f8728042d3be6f2f0d498df75affde1d3f7b85"
    );
    assert_eq!(
        base64(&host_data(text.as_bytes()).unwrap()),
        "9/wSKDTGGbulsK3R9C8WzD3a4woshmDeF5dvzej4coA="
    );
    assert_eq!(
        base64(&mr_config_id(text.as_bytes()).unwrap()),
        "9/wSKDTGGbulsK3R9C8WzD3a4woshmDeF5dvzej4coBC075vLw1Jjfda/94dP3uF"
    );
}

#[test]
fn evidence_binds_one_algorithm() {
    let known = digests(KNOWN.as_bytes());
    assert_eq!(
        known.matches_host_data(&host_data(KNOWN.as_bytes()).unwrap()),
        Some(Algorithm::Sha256)
    );
    assert_eq!(
        known.matches_mr_config_id(&mr_config_id(KNOWN.as_bytes()).unwrap()),
        Some(Algorithm::Sha256)
    );
    let text = known_sha384();
    let cut = host_data(text.as_bytes()).unwrap();
    assert_eq!(
        digests(text.as_bytes()).matches_host_data(&cut),
        Some(Algorithm::Sha384),
        "cut to 32 bytes on SNP"
    );
    assert_eq!(known.matches_host_data(&cut), None);
    let sha512: [u8; 32] = known.field(Algorithm::Sha512);
    assert_eq!(known.matches_host_data(&sha512), Some(Algorithm::Sha512));
}

#[test]
fn zero_never_binds() {
    let zero = Digests {
        sha256: [0; 32],
        sha384: [0; 48],
        sha512: [0; 64],
    };
    assert_eq!(zero.matches_host_data(&[0; 32]), None);
    assert_eq!(zero.matches_mr_config_id(&[0; 48]), None);
    assert_eq!(digests(KNOWN.as_bytes()).matches_host_data(&[0; 32]), None);
}

#[test]
fn any_flipped_bit_unbinds() {
    let known = digests(KNOWN.as_bytes());
    let bound = host_data(KNOWN.as_bytes()).unwrap();
    for bit in 0..256 {
        let mut other = bound;
        other[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(known.matches_host_data(&other), None, "bit {bit}");
    }
}

#[test]
fn line_ends_count() {
    let windows = KNOWN.replace('\n', "\r\n");
    assert_ne!(digests(windows.as_bytes()), digests(KNOWN.as_bytes()));
    assert_eq!(
        algorithm(windows.as_bytes()).unwrap(),
        Algorithm::Sha256,
        "CRLF is TOML, with a digest of its own"
    );
    assert_ne!(digests(KNOWN.trim_end().as_bytes()), digests(KNOWN.as_bytes()));
}

#[test]
fn device_and_annotation_round_trip() {
    for length in [0, 1, 100, 4096] {
        let document: Vec<u8> = (0..length)
            .map(|i: u32| u8::try_from((i * i + i / 7) % 251).unwrap())
            .collect();
        let device = encode_device(&document);
        assert_eq!(device.len() % 512, 0);
        assert_eq!(inflate_device(&device).unwrap(), document);
        assert_eq!(inflate_annotation(&encode_annotation(&document)).unwrap(), document);
    }
    assert_eq!(encode_device(KNOWN.as_bytes()), encode_device(KNOWN.as_bytes()));
}

#[test]
fn kata_streams_with_name_and_comment_are_read() {
    let mut encoder = flate2::GzBuilder::new()
        .filename("initdata.toml")
        .comment("This is initdata")
        .mtime(1_700_000_000)
        .write(Vec::new(), Compression::best());
    encoder.write_all(KNOWN.as_bytes()).unwrap();
    assert_eq!(
        inflate_device(&device(&encoder.finish().unwrap())).unwrap(),
        KNOWN.as_bytes()
    );
}

#[test]
fn wrong_magic() {
    let mut bytes = encode_device(KNOWN.as_bytes());
    bytes[0] = b'I';
    assert!(matches!(inflate_device(&bytes), Err(InitdataError::Magic)));
    assert!(matches!(inflate_device(&[0; 512]), Err(InitdataError::Magic)));
    assert!(matches!(
        inflate_device(b"initdata"),
        Err(InitdataError::Short { found: 8, needed: 512 })
    ));
    assert!(matches!(
        inflate_device(b""),
        Err(InitdataError::Short { found: 0, .. })
    ));
}

#[test]
fn impossible_lengths() {
    for length in [0, 19, MAX_COMPRESSED as u64 + 1, 1 << 63, u64::MAX] {
        let mut bytes = encode_device(KNOWN.as_bytes());
        bytes[8..16].copy_from_slice(&length.to_le_bytes());
        match inflate_device(&bytes) {
            Err(InitdataError::Length { found }) => assert_eq!(found, length),
            other => panic!("{length}: {other:?}"),
        }
    }
}

#[test]
fn device_shorter_or_longer_than_its_content() {
    let good = encode_device(KNOWN.as_bytes());
    let mut bytes = good.clone();
    bytes[8..16].copy_from_slice(&4096_u64.to_le_bytes());
    assert!(matches!(
        inflate_device(&bytes),
        Err(InitdataError::Short {
            found: 512,
            needed: 4608
        })
    ));
    let mut bytes = good.clone();
    bytes.resize(1024, 0);
    assert!(matches!(
        inflate_device(&bytes),
        Err(InitdataError::Long {
            found: 1024,
            expected: 512
        })
    ));
    let header = good.first_chunk::<16>().unwrap();
    assert_eq!(device_read_length(header, 512).unwrap(), 512);
    assert!(matches!(
        device_read_length(header, u64::MAX),
        Err(InitdataError::Long { .. })
    ));
}

#[test]
fn padding_is_zero() {
    let mut bytes = encode_device(KNOWN.as_bytes());
    let last = bytes.len() - 1;
    bytes[last] = 1;
    assert!(matches!(inflate_device(&bytes), Err(InitdataError::Padding { offset }) if offset == last));
}

#[test]
fn one_member_and_nothing_behind_it() {
    let member = gzip(KNOWN.as_bytes());
    let two = [member.clone(), member.clone()].concat();
    assert!(matches!(inflate_device(&device(&two)), Err(InitdataError::Trailing { found }) if found == member.len()));
    let trailing = [member, vec![0]].concat();
    assert!(matches!(
        inflate_device(&device(&trailing)),
        Err(InitdataError::Trailing { found: 1 })
    ));
}

#[test]
fn bombs_stop_at_the_limit() {
    let noise = |len: usize| {
        let mut state = 1_u32;
        let next = move |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"0123456789abcdef"[(state >> 28) as usize]
        };
        (0..len).map(next).collect::<Vec<u8>>()
    };
    let bomb = gzip(&vec![b'a'; 64 << 20]);
    assert!(bomb.len() < MAX_COMPRESSED);
    assert!(matches!(inflate_device(&device(&bomb)), Err(InitdataError::TooLong)));
    let small = gzip(&vec![b'a'; 100_000]);
    assert!(matches!(
        inflate_device(&device(&small)),
        Err(InitdataError::Bomb { .. })
    ));
    // Incompressible enough to stay below the ratio, one byte over the document limit.
    let mut long = noise(200_000);
    long.resize(MAX_DOCUMENT + 1, b' ');
    assert!(matches!(
        inflate_device(&device(&gzip(&long))),
        Err(InitdataError::TooLong)
    ));
    long.truncate(MAX_DOCUMENT);
    assert_eq!(inflate_device(&device(&gzip(&long))).unwrap().len(), MAX_DOCUMENT);
}

#[test]
fn damage_anywhere_is_an_error() {
    let good = encode_device(KNOWN.as_bytes());
    let stream_end = 16 + usize::try_from(u64::from_le_bytes(*good[8..].first_chunk().unwrap())).unwrap();
    for length in 0..good.len() {
        assert!(inflate_device(&good[..length]).is_err(), "truncated to {length}");
    }
    for length in 20..stream_end - 16 {
        assert!(
            inflate_device(&device(&good[16..16 + length])).is_err(),
            "stream truncated to {length}"
        );
    }
    for index in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[index] ^= 1 << bit;
            // Time, extra flags and system in the gzip header and the fill bits of deflate's last byte carry no meaning.
            if let Ok(document) = inflate_device(&bytes) {
                assert!(
                    (19..26).contains(&index) || index == stream_end - 9,
                    "byte {index} bit {bit}"
                );
                assert_eq!(document, KNOWN.as_bytes());
            }
        }
    }
}

#[test]
fn annotations_are_strict_base64() {
    assert!(matches!(inflate_annotation("%%%%"), Err(InitdataError::Base64)));
    assert!(matches!(inflate_annotation(""), Err(InitdataError::Gzip { .. })));
    let limit = MAX_COMPRESSED.div_ceil(3) * 4;
    let long = "A".repeat(limit + 1);
    assert!(matches!(
        inflate_annotation(&long),
        Err(InitdataError::AnnotationTooLong { .. })
    ));
    let newline = format!("{}\n", encode_annotation(KNOWN.as_bytes()));
    assert!(matches!(inflate_annotation(&newline), Err(InitdataError::Base64)));
}

#[test]
fn algorithm_must_be_the_one_that_binds() {
    let document = document_with(crate::policy::tests::EXAMPLE);
    let parsed = parse(document.as_bytes(), Algorithm::Sha256).unwrap();
    assert_eq!(parsed.algorithm, Algorithm::Sha256);
    assert!(parsed.other.is_empty());
    assert!(matches!(
        parse(document.as_bytes(), Algorithm::Sha384),
        Err(InitdataError::OtherAlgorithm {
            claimed: Algorithm::Sha256,
            bound: Algorithm::Sha384
        })
    ));
}

#[test]
fn other_versions_algorithms_and_keys_are_refused() {
    let refused = |from: &str, to: &str| {
        let text = KNOWN.replacen(from, to, 1);
        assert_ne!(text, KNOWN);
        algorithm(text.as_bytes()).unwrap_err()
    };
    assert!(matches!(refused("0.1.0", "0.2.0"), InitdataError::Version { .. }));
    for bad in ["sha-256", "SHA256", "sm3", ""] {
        assert!(
            matches!(refused("sha256", bad), InitdataError::UnknownAlgorithm { .. }),
            "{bad}"
        );
    }
    let error = refused("\n[data]", "extra = 1\n[data]");
    assert!(matches!(&error, InitdataError::Syntax { line: 3, .. }), "{error:?}");
    assert!(error.to_string().contains("`extra`"), "{error}");
    let error = refused("version = \"0.1.0\"", "version = \"0.1.0\"\nversion = \"0.1.0\"");
    assert!(error.to_string().contains("duplicate key"), "{error}");
    let error = refused("\n'''\n", "\n'''\n\"cella.toml\" = \"\"\n");
    assert!(error.to_string().contains("duplicate key"), "{error}");
    let error = refused("version = \"0.1.0\"\n", "");
    assert!(error.to_string().contains("missing field `version`"), "{error}");
    let error = refused("= '''\nversion = 1\n'''", "= 7");
    assert!(matches!(error, InitdataError::Syntax { .. }));
}

#[test]
fn the_policy_must_be_there_and_right() {
    let none = "algorithm = \"sha256\"\nversion = \"0.1.0\"\n[data]\n\"aa.toml\" = ''\n";
    assert!(matches!(
        parse(none.as_bytes(), Algorithm::Sha256),
        Err(InitdataError::NoPolicy)
    ));
    assert!(matches!(
        parse(KNOWN.as_bytes(), Algorithm::Sha256),
        Err(InitdataError::Policy { .. })
    ));
    let both = document_with(crate::policy::tests::EXAMPLE) + "\"aa.toml\" = 'x'\n";
    let parsed = parse(both.as_bytes(), Algorithm::Sha256).unwrap();
    assert_eq!(parsed.other.get("aa.toml").map(String::as_str), Some("x"));
}

#[test]
fn written_documents_carry_any_text() {
    #[derive(serde::Deserialize)]
    struct Raw {
        data: std::collections::BTreeMap<String, String>,
    }
    for text in [
        "",
        "a = 1\n",
        "quoted '''\n",
        "ends with '",
        "\\ \" \"\"\" \u{1}\t\r\n",
        "é\u{85}",
    ] {
        let document = write(text, Algorithm::Sha512);
        let raw: Raw = toml::from_str(&document).unwrap();
        assert_eq!(raw.data[POLICY_KEY], text);
        assert_eq!(algorithm(document.as_bytes()).unwrap(), Algorithm::Sha512);
    }
    assert_eq!(document_with("version = 1\n"), KNOWN, "the specification's example");
}

#[test]
fn no_bytes_panic() {
    let good = document_with(crate::policy::tests::EXAMPLE).into_bytes();
    for length in 0..good.len() {
        let _ = parse(&good[..length], Algorithm::Sha256);
    }
    for index in 0..good.len() {
        for replacement in [0, b'\n', b'"', b'[', b'\\', 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[index] = replacement;
            let _ = parse(&bytes, Algorithm::Sha256);
        }
    }
    assert!(matches!(
        parse(&[0xff], Algorithm::Sha256),
        Err(InitdataError::Utf8 { offset: 0 })
    ));
    assert!(matches!(
        parse(&vec![b' '; MAX_DOCUMENT + 1], Algorithm::Sha256),
        Err(InitdataError::TooLong)
    ));
    let deep = format!("a = {}", "[".repeat(500_000));
    assert!(parse(deep.as_bytes(), Algorithm::Sha256).is_err());
    let deep = format!("{} = 1", "a.".repeat(200_000) + "a");
    assert!(parse(deep.as_bytes(), Algorithm::Sha256).is_err());
}
