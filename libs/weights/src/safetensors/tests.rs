//! Files written by hand, whole, cut at every byte, and lying.
use super::*;

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn parse(bytes: &[u8]) -> Result<Header, WeightsError> {
    read(bytes, bytes.len() as u64)
}

const MODEL: &str = r#"{"__metadata__":{"format":"pt"},
    "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},
    "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;

#[test]
fn a_header_is_read() {
    let header = parse(&file(MODEL, 16)).unwrap();
    assert_eq!(header.names, ["a", "b"]);
    assert_eq!(
        (header.tally.parameters(), header.tally.precision()),
        (7, Some("mixed"))
    );
    assert_eq!(parse(&file("{}", 0)).unwrap(), Header::default());
}

#[test]
fn cut_at_every_byte_or_longer_it_is_an_error() {
    let whole = file(MODEL, 16);
    for length in 0..whole.len() {
        assert!(parse(&whole[..length]).is_err(), "{length}");
    }
    let error = parse(&file(MODEL, 15)).unwrap_err();
    assert!(error.to_string().contains("cut short"), "{error}");
    assert!(
        parse(&file(MODEL, 17))
            .unwrap_err()
            .to_string()
            .contains("something follows")
    );
}

#[test]
fn lying_headers_are_refused() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let refused = |header: &str| parse(&file(header, 8)).unwrap_err();
    assert!(matches!(
        refused(&tensor("F32", "[3]", "[0,8]")),
        WeightsError::Tensor { .. }
    ));
    assert!(matches!(
        refused(&tensor("F32", "[2]", "[8,0]")),
        WeightsError::Tensor { .. }
    ));
    assert!(matches!(
        refused(&tensor("F32", "[1]", "[4,8]")),
        WeightsError::Malformed { .. }
    ));
    let huge = tensor("F32", "[4294967296,4294967296,2]", "[0,8]");
    assert!(matches!(refused(&huge), WeightsError::Tensor { .. }));
    assert!(matches!(
        refused(&tensor("F32", "[-1]", "[0,8]")),
        WeightsError::Json { .. }
    ));
    let entry = r#""t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    assert!(matches!(
        refused(&format!("{{{entry},{entry}}}")),
        WeightsError::Json { .. }
    ));
    assert!(matches!(refused("[]"), WeightsError::Magic { .. }));
    assert!(matches!(parse(b"\x80\x04pickle12345"), Err(WeightsError::Magic { .. })));
    assert!(matches!(
        parse(&[&100_000_001_u64.to_le_bytes()[..], b"{}"].concat()),
        Err(WeightsError::Magic { .. })
    ));
    // A type from the future is counted and not measured.
    assert_eq!(
        parse(&file(&tensor("F2", "[2]", "[0,8]"), 8))
            .unwrap()
            .tally
            .parameters(),
        2
    );
}

#[test]
fn an_index_names_plain_files() {
    let index =
        Index::parse(br#"{"metadata":{"total_size":1},"weight_map":{"a":"m-00001-of-00001.safetensors"}}"#).unwrap();
    assert_eq!(index.weight_map["a"], "m-00001-of-00001.safetensors");
    for bad in [
        "{}",
        "[]",
        r#"{"weight_map":{}}"#,
        r#"{"weight_map":{"a":"../x.safetensors"}}"#,
        r#"{"weight_map":{"a":"/x"}}"#,
        r#"{"weight_map":{"a":".."}}"#,
        r#"{"weight_map":{"a":1}}"#,
    ] {
        assert!(Index::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}
