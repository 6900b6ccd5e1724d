//! Headers written by hand, whole, cut at every byte, and lying.
use super::*;

/// A header's writer.
#[derive(Clone)]
struct Writer(Vec<u8>);

impl Writer {
    fn new(version: u32, tensors: u64, pairs: u64) -> Self {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(pairs.to_le_bytes());
        Self(bytes)
    }

    fn text(mut self, text: &str) -> Self {
        self.0.extend((text.len() as u64).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn pair(self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.text(key).raw(&kind.to_le_bytes()).raw(value)
    }

    fn tensor(self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let mut out = self
            .text(name)
            .raw(&u32::try_from(dimensions.len()).unwrap().to_le_bytes());
        for dimension in dimensions {
            out = out.raw(&dimension.to_le_bytes());
        }
        out.raw(&kind.to_le_bytes()).raw(&offset.to_le_bytes())
    }

    fn data(mut self, bytes: usize) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(32) + bytes, 0);
        self.0
    }
}

fn parse(bytes: &[u8]) -> Result<Header, WeightsError> {
    read(bytes, bytes.len() as u64)
}

fn model() -> Vec<u8> {
    let list = [&4_u32.to_le_bytes()[..], &3_u64.to_le_bytes(), &[0; 12]].concat();
    let words = [
        &8_u32.to_le_bytes()[..],
        &2_u64.to_le_bytes(),
        &1_u64.to_le_bytes(),
        b"a",
        &0_u64.to_le_bytes(),
    ]
    .concat();
    Writer::new(3, 2, 7)
        .text("general.architecture")
        .raw(&8_u32.to_le_bytes())
        .text("llama")
        .pair("general.file_type", 4, &15_u32.to_le_bytes())
        .pair("list", 9, &list)
        .pair("words", 9, &words)
        .pair("split.no", 2, &1_u16.to_le_bytes())
        .pair("split.count", 2, &3_u16.to_le_bytes())
        .pair("scale", 6, &1.5_f32.to_le_bytes())
        .tensor("a", &[256, 2], 12, 0)
        .tensor("b", &[3], 0, 288)
        .data(300)
}

#[test]
fn a_header_is_read() {
    let header = parse(&model()).unwrap();
    assert_eq!(header.architecture.as_deref(), Some("llama"));
    assert_eq!((header.quantization, header.split), (Some("q4_k_m"), Some((1, 3))));
    assert_eq!(header.tally.parameters(), 515);
    assert_eq!(header.tally.dominant(), Some(("q4_k", true)));
}

#[test]
fn cut_at_every_byte_it_is_an_error() {
    let whole = model();
    for length in 0..whole.len() {
        let error = parse(&whole[..length]).unwrap_err();
        assert!(
            matches!(error, WeightsError::HeaderCut | WeightsError::Length { .. }),
            "{length}: {error}"
        );
    }
    let error = parse(&whole[..whole.len() - 1]).unwrap_err();
    assert!(matches!(error, WeightsError::Length { expected, found } if expected == found + 1));
}

#[test]
fn one_flipped_bit_is_an_answer_or_an_error() {
    let whole = model();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let _ = parse(&bytes);
        }
    }
}

#[test]
fn lying_headers_are_refused() {
    let huge = u64::MAX.to_le_bytes();
    let refused = |bytes: Vec<u8>| parse(&bytes).unwrap_err();
    assert!(matches!(refused(b"GGML".repeat(8)), WeightsError::Magic { .. }));
    assert!(matches!(
        refused(Writer::new(1, 0, 0).0),
        WeightsError::Version { found: 1 }
    ));
    assert!(matches!(
        refused(Writer::new(3, u64::MAX, 0).0),
        WeightsError::TooMuch { .. }
    ));
    assert!(matches!(
        refused(Writer::new(3, 0, u64::MAX).0),
        WeightsError::TooMuch { .. }
    ));
    assert!(matches!(
        refused(Writer::new(3, 0, 1).raw(&huge).0),
        WeightsError::TooMuch { .. }
    ));
    let array = |kind: u32| [&kind.to_le_bytes()[..], &huge].concat();
    for kind in [0, 8, 12] {
        let bytes = Writer::new(3, 0, 1).pair("x", 9, &array(kind)).0;
        assert!(matches!(refused(bytes), WeightsError::HeaderCut), "{kind}");
    }
    assert!(matches!(
        refused(Writer::new(3, 0, 1).pair("x", 9, &array(9)).0),
        WeightsError::Malformed { .. }
    ));
    assert!(matches!(
        refused(Writer::new(3, 0, 1).pair("x", 13, &huge).0),
        WeightsError::Malformed { .. }
    ));
    let alignment = Writer::new(3, 0, 1)
        .pair("general.alignment", 4, &33_u32.to_le_bytes())
        .0;
    assert!(matches!(refused(alignment), WeightsError::Malformed { .. }));
    let overflow = Writer::new(3, 1, 0).tensor("t", &[1 << 40, 1 << 40], 0, 0).data(64);
    assert!(matches!(refused(overflow), WeightsError::Tensor { .. }));
    let behind = Writer::new(3, 1, 0).tensor("t", &[8], 0, u64::MAX).data(64);
    assert!(matches!(refused(behind), WeightsError::Tensor { .. }));
    let many = Writer::new(3, 1, 0).tensor("t", &[1; 9], 0, 0).data(64);
    assert!(matches!(refused(many), WeightsError::Tensor { .. }));
    let short = Writer::new(3, 1, 0).tensor("t", &[1000], 0, 0).data(64);
    assert!(matches!(refused(short), WeightsError::Length { .. }));
    // A type from the future is counted and not measured.
    let header = parse(&Writer::new(3, 1, 0).tensor("t", &[1000], 99, 0).data(64)).unwrap();
    assert_eq!(header.tally.parameters(), 1000);
}
