//! Known answers, boundary lengths, and everything that must not open.
use std::io::{Read, Seek, Write};
use std::num::NonZeroUsize;

use ring::digest::{SHA256, digest};

use super::*;
use crate::place::associated_data;
use crate::{DataKey, Secret};

pub(super) const HEADER_BYTES: [u8; HEADER] = *b"\x28@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_pqrstuv";
const AD: &[u8] = b"model-weights/v1";

pub(super) fn main_key() -> DataKey {
    let bytes: Vec<u8> = (0..32).collect();
    Secret::from_slice(&bytes).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

/// Seals through the writer, in odd pieces, with the header of the known answers.
fn seal(size: SegmentSize, ad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let header = Header::parse(&HEADER_BYTES).unwrap();
    let mut writer = SealWriter::with_header(&main_key(), ad, size, header, Vec::new()).unwrap();
    plaintext
        .chunks(1021)
        .for_each(|piece| writer.write_all(piece).unwrap());
    let (out, layout) = writer.finish().unwrap();
    assert_eq!(layout, Layout::of_plaintext(size, plaintext.len() as u64).unwrap());
    assert_eq!(layout.ciphertext_len(), out.len() as u64);
    out
}

/// Seals segment by segment, last first.
fn seal_backwards(size: SegmentSize, ad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let layout = Layout::of_plaintext(size, plaintext.len() as u64).unwrap();
    let sealer = Sealer::with_header(&main_key(), ad, layout, Header::parse(&HEADER_BYTES).unwrap()).unwrap();
    let mut out = vec![0; range(&(0..layout.ciphertext_len())).len()];
    out[..HEADER].copy_from_slice(&sealer.header().to_bytes());
    for index in (0..layout.segments()).rev() {
        let segment = layout.segment(index).unwrap();
        let body = &mut out[range(&segment.body())];
        body.copy_from_slice(&plaintext[range(&segment.plaintext)]);
        let tag = sealer.seal_in_place(index, body).unwrap();
        out[range(&segment.tag())].copy_from_slice(&tag);
    }
    out
}

fn open_with(key: &DataKey, size: SegmentSize, ad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut out = Vec::new();
    open_reader(key, ad, size, sealed.len() as u64, sealed, &mut out).map(|()| out)
}

fn open(size: SegmentSize, ad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    open_with(&main_key(), size, ad, sealed)
}

fn opener(size: SegmentSize, ad: &[u8], sealed: &[u8]) -> Opener {
    let layout = Layout::of_ciphertext(size, sealed.len() as u64).unwrap();
    Opener::new(&main_key(), &Header::parse(&HEADER_BYTES).unwrap(), ad, layout).unwrap()
}

fn range(range: &std::ops::Range<u64>) -> std::ops::Range<usize> {
    range.start.try_into().unwrap()..range.end.try_into().unwrap()
}

fn parts(layout: &Layout, sealed: &[u8], index: u32) -> (Vec<u8>, [u8; TAG]) {
    let segment = layout.segment(index).unwrap();
    (
        sealed[range(&segment.body())].to_vec(),
        sealed[range(&segment.tag())].try_into().unwrap(),
    )
}

const BOTH: [SegmentSize; 2] = [SegmentSize::KIB4, SegmentSize::MIB1];

fn boundaries(size: SegmentSize) -> [usize; 9] {
    let (first, rest) = (size.first_plaintext(), size.rest_plaintext());
    [
        0,
        1,
        first - 1,
        first,
        first + 1,
        first + rest - 1,
        first + rest,
        first + rest + 1,
        first + 3 * rest + 777,
    ]
}

#[test]
fn known_answers_of_tink() {
    let header = hex::encode(HEADER_BYTES);
    let sealed = |text: &[u8]| hex::encode(seal(SegmentSize::KIB4, AD, text));
    assert_eq!(sealed(b""), format!("{header}bf3cd9e9607c238d0baed635b73dda32"));
    assert_eq!(
        sealed(b"hello tink streaming"),
        format!("{header}244b7b338f28e21687cb56b9dbd5bdb22c7086fa389a6c6c3eb86755c96457ec41db1edd")
    );
    let small = seal(SegmentSize::KIB4, AD, &pattern(10_000));
    assert_eq!(small.len(), 10_088);
    assert_eq!(
        sha256(&small),
        "ed3966ab9dcdffc7715a75e0eda5b3ff160fb6caf560d6169027e98881dd913f"
    );
    let large = seal(SegmentSize::MIB1, AD, &pattern(3_000_000));
    assert_eq!(large.len(), 3_000_088);
    assert_eq!(
        sha256(&large),
        "1194b183c40ba69336beda3c5a0a0aed2aacb5d8f8ed1bb5e94fe8d587d95dd7"
    );
}

#[test]
fn known_answer_of_a_place() {
    let ad = associated_data("models/demo", "model.safetensors", 7).unwrap();
    let sealed = seal(SegmentSize::MIB1, &ad, b"hello cella");
    assert_eq!(
        hex::encode(&sealed[HEADER..]),
        "f20892ea1de7e10fe40282cff3c3b09b2b5a05f8d1dde7bea7c747"
    );
    assert_eq!(sealed.len(), 67);
}

#[test]
fn every_boundary_length_round_trips_both_ways_of_sealing() {
    for size in BOTH {
        for len in boundaries(size) {
            let plaintext = pattern(len);
            let sealed = seal(size, AD, &plaintext);
            assert!(sealed == seal_backwards(size, AD, &plaintext), "{size:?} {len}");
            assert!(open(size, AD, &sealed).unwrap() == plaintext, "{size:?} {len}");
        }
    }
}

#[test]
fn threads_open_in_place_at_final_addresses() {
    let plaintext = pattern(boundaries(SegmentSize::MIB1)[8]);
    let sealed = seal(SegmentSize::MIB1, AD, &plaintext);
    let opener = opener(SegmentSize::MIB1, AD, &sealed);
    let mut memory = vec![0; plaintext.len()];
    let mut rest = memory.as_mut_slice();
    let mut slices = Vec::new();
    for segment in opener.layout().iter() {
        let (slice, tail) = std::mem::take(&mut rest).split_at_mut(segment.plaintext_len());
        rest = tail;
        slices.push((segment, slice));
    }
    std::thread::scope(|scope| {
        for (segment, slice) in slices {
            let (opener, sealed) = (&opener, &sealed);
            scope.spawn(move || {
                slice.copy_from_slice(&sealed[range(&segment.body())]);
                let tag = sealed[range(&segment.tag())].try_into().unwrap();
                opener.open_in_place(segment.index, slice, &tag).unwrap();
            });
        }
    });
    opener.finish().unwrap();
    assert!(memory == plaintext);
}

#[test]
fn segments_open_out_of_place_with_a_gap_between() {
    for size in BOTH {
        for len in boundaries(size) {
            let plaintext = pattern(len);
            let sealed = seal(size, AD, &plaintext);
            let opener = opener(size, AD, &sealed);
            for segment in opener.layout().iter() {
                let length = segment.plaintext_len();
                let stored = &sealed[range(&(segment.body().start..segment.tag().end))];
                let mut window = vec![7; length + 100];
                window.extend_from_slice(stored);
                opener.open_within(segment.index, &mut window, length + 100).unwrap();
                assert!(
                    window[..length] == plaintext[range(&segment.plaintext)],
                    "{size:?} {len}"
                );
                assert_eq!(window[length..length + 100], [7; 100]);
                assert!(window[length + 100..] == *stored, "the ciphertext stays");
            }
            opener.finish().unwrap();
        }
    }
}

#[test]
fn what_does_not_open_out_of_place_leaves_zeros() {
    let sealed = seal(SegmentSize::KIB4, AD, &pattern(9000));
    let opener = opener(SegmentSize::KIB4, AD, &sealed);
    let (body, tag) = parts(opener.layout(), &sealed, 1);
    let mut window = vec![7; body.len()];
    window.extend_from_slice(&body);
    window.extend_from_slice(&tag);
    let ciphertext = body.len();
    for (ciphertext, found) in [
        (ciphertext + 1, body.len() - 1),
        (usize::MAX, 0),
        (ciphertext - 1, body.len() + 1),
    ] {
        let error = opener.open_within(1, &mut window.clone(), ciphertext).unwrap_err();
        assert!(
            matches!(error, OpenError::Length { index: 1, found: f, .. } if f == found),
            "{error}"
        );
    }
    window[ciphertext + 5] ^= 1;
    let error = opener.open_within(1, &mut window, ciphertext).unwrap_err();
    assert!(matches!(error, OpenError::NotAuthentic { index: 1 }));
    assert!(window[..body.len()].iter().all(|byte| *byte == 0));
    let repeated = opener.open_within(1, &mut window, ciphertext).unwrap_err();
    assert!(matches!(repeated, OpenError::Repeated { index: 1 }));
}

#[test]
fn one_flipped_bit_anywhere_does_not_open() {
    let size = SegmentSize::KIB4;
    let sealed = seal(size, AD, &pattern(9000));
    for at in 0..sealed.len() {
        let mut bad = sealed.clone();
        bad[at] ^= 1 << (at % 8);
        let segment = u32::try_from(at / 4096).unwrap();
        match (at, open(size, AD, &bad).unwrap_err()) {
            (0, OpenError::Header(_)) => {}
            // Salt and prefix make the key and the nonces: the first segment fails.
            (1..40, OpenError::NotAuthentic { index: 0 }) => {}
            (40.., OpenError::NotAuthentic { index }) if index == segment => {}
            (at, error) => panic!("byte {at}: {error}"),
        }
    }
}

#[test]
fn cut_at_every_byte_does_not_open() {
    let size = SegmentSize::KIB4;
    let sealed = seal(size, AD, &pattern(4040 + 4080 + 5));
    for len in 0..sealed.len() {
        let error = open(size, AD, &sealed[..len]).unwrap_err();
        let expected = match len {
            0..56 => matches!(error, OpenError::Layout(LayoutError::TooShort { .. })),
            // A segment that is now the last was sealed as another, or its tag is not where it was.
            56..=4096 => matches!(error, OpenError::NotAuthentic { index: 0 }),
            4097..=4112 | 8193..=8208 => matches!(error, OpenError::Layout(LayoutError::Ragged { .. })),
            4113..=8192 => matches!(error, OpenError::NotAuthentic { index: 1 }),
            _ => matches!(error, OpenError::NotAuthentic { index: 2 }),
        };
        assert!(expected, "{len}: {error}");
        // The true length, with the bytes missing: the reader notices.
        let read = open_reader(
            &main_key(),
            AD,
            size,
            sealed.len() as u64,
            &sealed[..len],
            std::io::sink(),
        );
        assert!(matches!(read, Err(OpenError::Read { .. })), "{len}");
    }
}

#[test]
fn extended_files_do_not_open() {
    let size = SegmentSize::KIB4;
    for len in [0, 100, 4040, 4040 + 4080] {
        let sealed = seal(size, AD, &pattern(len));
        for more in [1, 16, 17, 4096, 5000] {
            let longer = [sealed.clone(), vec![0; more]].concat();
            let error = open(size, AD, &longer).unwrap_err();
            let refused = matches!(
                error,
                OpenError::NotAuthentic { .. } | OpenError::Layout(LayoutError::Ragged { .. })
            );
            assert!(refused, "{len}+{more}: {error}");
            let error =
                open_reader(&main_key(), AD, size, sealed.len() as u64, &longer[..], std::io::sink()).unwrap_err();
            assert!(matches!(error, OpenError::Trailing), "{len}+{more}: {error}");
        }
    }
}

#[test]
fn a_segment_opens_nowhere_else() {
    let size = SegmentSize::KIB4;
    let sealed = seal(size, AD, &pattern(4040 + 3 * 4080));
    let layout = *opener(size, AD, &sealed).layout();
    // Swapped within the file.
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1)] {
        let (mut body, tag) = parts(&layout, &sealed, from);
        let error = opener(size, AD, &sealed)
            .open_in_place(to, &mut body, &tag)
            .unwrap_err();
        assert!(matches!(error, OpenError::NotAuthentic { index } if index == to));
        assert!(body.iter().all(|byte| *byte == 0));
    }
    // From another model under the same main key, and the same model under another key.
    let other = seal(size, b"model-weights/v2", &pattern(4040 + 3 * 4080));
    let (mut body, tag) = parts(&layout, &other, 1);
    let error = opener(size, AD, &sealed).open_in_place(1, &mut body, &tag).unwrap_err();
    assert!(matches!(error, OpenError::NotAuthentic { index: 1 }));
    assert!(matches!(
        open_with(&DataKey::random().unwrap(), size, AD, &sealed),
        Err(OpenError::NotAuthentic { index: 0 })
    ));
    assert!(matches!(
        open(size, b"model-weights/v2", &sealed),
        Err(OpenError::NotAuthentic { index: 0 })
    ));
}

#[test]
fn the_last_flag_counts() {
    let size = SegmentSize::KIB4;
    let sealed = seal(size, AD, &pattern(4040 + 4080));
    // Cut at a segment's end: the first segment is not the last.
    assert!(matches!(
        open(size, AD, &sealed[..4096]),
        Err(OpenError::NotAuthentic { index: 0 })
    ));
    // The last segment, taken for one of the middle.
    let longer = Layout::of_plaintext(size, 4040 + 2 * 4080).unwrap();
    let opener = Opener::new(&main_key(), &Header::parse(&HEADER_BYTES).unwrap(), AD, longer).unwrap();
    let (mut body, tag) = parts(&longer, &sealed, 1);
    assert!(matches!(
        opener.open_in_place(1, &mut body, &tag),
        Err(OpenError::NotAuthentic { index: 1 })
    ));
}

#[test]
fn place_and_version_are_bound() {
    let ad = |name, path, version| associated_data(name, path, version).unwrap();
    let sealed = seal(SegmentSize::MIB1, &ad("models/demo", "a.gguf", 7), b"weights");
    for wrong in [
        ad("models/demo", "a.gguf", 6),
        ad("models/demo", "b.gguf", 7),
        ad("models/demi", "a.gguf", 7),
    ] {
        assert!(matches!(
            open(SegmentSize::MIB1, &wrong, &sealed),
            Err(OpenError::NotAuthentic { index: 0 })
        ));
    }
}

#[test]
fn an_opener_wants_every_segment_once() {
    let size = SegmentSize::KIB4;
    let sealed = seal(size, AD, &pattern(5000));
    let opener = opener(size, AD, &sealed);
    let layout = *opener.layout();
    let (mut body, tag) = parts(&layout, &sealed, 1);
    opener.open_in_place(1, &mut body, &tag).unwrap();
    assert!(matches!(
        opener.finish(),
        Err(OpenError::Incomplete { opened: 1, segments: 2 })
    ));
    let (mut again, tag) = parts(&layout, &sealed, 1);
    assert!(matches!(
        opener.open_in_place(1, &mut again, &tag),
        Err(OpenError::Repeated { index: 1 })
    ));
    assert!(matches!(
        opener.open_in_place(2, &mut again, &tag),
        Err(OpenError::NoSuchSegment { index: 2, segments: 2 })
    ));
    let error = opener.open_in_place(0, &mut [1; 10], &tag).unwrap_err();
    assert!(matches!(
        error,
        OpenError::Length {
            index: 0,
            expected: 4040,
            found: 10
        }
    ));
    let (mut body, tag) = parts(&layout, &sealed, 0);
    opener.open_in_place(0, &mut body, &tag).unwrap();
    opener.finish().unwrap();
}

#[test]
fn a_failed_segment_keeps_the_file_incomplete() {
    let sealed = seal(SegmentSize::KIB4, AD, b"weights");
    let opener = opener(SegmentSize::KIB4, AD, &sealed);
    let (mut body, tag) = parts(opener.layout(), &sealed, 0);
    let mut bad = body.clone();
    bad[0] ^= 1;
    assert!(matches!(
        opener.open_in_place(0, &mut bad, &tag),
        Err(OpenError::NotAuthentic { index: 0 })
    ));
    assert_eq!(bad, [0; 7]);
    assert!(matches!(
        opener.open_in_place(0, &mut body, &tag),
        Err(OpenError::Repeated { index: 0 })
    ));
    assert!(matches!(
        opener.finish(),
        Err(OpenError::Incomplete { opened: 0, segments: 1 })
    ));
}

#[test]
fn a_sealer_seals_each_segment_once() {
    let sealer = Sealer::new(&main_key(), AD, Layout::from_plaintext_len(3).unwrap()).unwrap();
    assert!(matches!(
        sealer.seal_in_place(0, &mut [0; 4]),
        Err(SealError::Length {
            index: 0,
            expected: 3,
            found: 4
        })
    ));
    sealer.seal_in_place(0, &mut [0; 3]).unwrap();
    assert!(matches!(
        sealer.seal_in_place(0, &mut [1; 3]),
        Err(SealError::Repeated { index: 0 })
    ));
    assert!(matches!(
        sealer.seal_in_place(1, &mut [1; 3]),
        Err(SealError::NoSuchSegment { index: 1, segments: 1 })
    ));
}

#[test]
fn sealing_twice_gives_other_salts_and_prefixes() {
    let seal = || {
        let mut writer = SealWriter::new(&main_key(), AD, Vec::new()).unwrap();
        writer.write_all(b"same").unwrap();
        writer.finish().unwrap().0
    };
    let (a, b) = (seal(), seal());
    assert_ne!(a[1..33], b[1..33]);
    assert_ne!(a[33..40], b[33..40]);
    assert_eq!(
        open(SegmentSize::MIB1, AD, &a).unwrap(),
        open(SegmentSize::MIB1, AD, &b).unwrap()
    );
}

#[test]
fn files_seal_in_parallel_with_all_digests() {
    for len in [
        0,
        1,
        FIRST_PLAINTEXT,
        FIRST_PLAINTEXT + 1,
        FIRST_PLAINTEXT + 5 * REST_PLAINTEXT + 99,
    ] {
        let plaintext = pattern(len);
        let (mut from, mut out) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all(&plaintext).unwrap();
        let sealed = seal_file(&main_key(), AD, &from, &out, NonZeroUsize::new(4).unwrap()).unwrap();
        let mut bytes = Vec::new();
        out.rewind().unwrap();
        out.read_to_end(&mut bytes).unwrap();
        assert_eq!(sealed.layout.ciphertext_len(), bytes.len() as u64);
        assert_eq!(hex::encode(sealed.plaintext_sha256), sha256(&plaintext));
        assert_eq!(sealed.plaintext_blake3.0, *blake3::hash(&plaintext).as_bytes());
        assert_eq!(hex::encode(sealed.ciphertext_sha256), sha256(&bytes));
        assert!(open(SegmentSize::MIB1, AD, &bytes).unwrap() == plaintext, "{len}");
    }
}

#[test]
fn sealing_a_file_that_cannot_be_written_ends_with_the_cause() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plain");
    std::fs::write(&path, pattern(4 * SEGMENT)).unwrap();
    let (from, read_only) = (std::fs::File::open(&path).unwrap(), std::fs::File::open(&path).unwrap());
    let error = seal_file(&main_key(), AD, &from, &read_only, NonZeroUsize::new(4).unwrap()).unwrap_err();
    assert!(matches!(error, SealError::Write { .. }), "{error}");
}

#[test]
fn a_header_of_another_key_type_is_named() {
    let mut bytes = HEADER_BYTES;
    bytes[0] = 24;
    assert_eq!(Header::parse(&bytes), Err(HeaderError { found: 24 }));
    assert_eq!(Header::parse(&HEADER_BYTES).unwrap().to_bytes(), HEADER_BYTES);
}
