//! Where the segments of a sealed file are. Pure arithmetic on lengths that a registry may have invented.
use std::ops::Range;

use super::{HEADER, SEGMENT, TAG};

/// Bytes of one ciphertext segment. Cella seals with [`SegmentSize::MIB1`] only; the other is for Tink's test vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// `AES256_GCM_HKDF_1MB`.
    pub const MIB1: Self = Self(1 << 20);
    /// `AES256_GCM_HKDF_4KB`.
    pub const KIB4: Self = Self(1 << 12);

    fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// Bytes of plaintext in a full first segment.
    pub(super) fn first_plaintext(self) -> usize {
        self.rest_plaintext() - HEADER
    }

    /// Bytes of plaintext in every other full segment.
    pub(super) fn rest_plaintext(self) -> usize {
        usize::try_from(self.0).unwrap_or(SEGMENT) - TAG
    }
}

/// The segments of one sealed file, computed from either length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    size: SegmentSize,
    plaintext_len: u64,
    segments: u32,
}

impl Layout {
    /// The layout of a plaintext of this length.
    ///
    /// # Errors
    /// When it needs more than 2³² − 1 segments.
    pub fn from_plaintext_len(plaintext_len: u64) -> Result<Self, LayoutError> {
        Self::of_plaintext(SegmentSize::MIB1, plaintext_len)
    }

    /// The layout of a sealed file of this length, header included.
    ///
    /// # Errors
    /// When no plaintext seals to this length, or the file is too long.
    pub fn from_ciphertext_len(ciphertext_len: u64) -> Result<Self, LayoutError> {
        Self::of_ciphertext(SegmentSize::MIB1, ciphertext_len)
    }

    /// [`Layout::from_plaintext_len`] with another segment size.
    ///
    /// # Errors
    /// As there.
    pub fn of_plaintext(size: SegmentSize, plaintext_len: u64) -> Result<Self, LayoutError> {
        let (first, rest) = (size.bytes() - HEADER_LEN - TAG_LEN, size.bytes() - TAG_LEN);
        let more = plaintext_len.saturating_sub(first).div_ceil(rest);
        let segments = u32::try_from(more)
            .ok()
            .and_then(|more| more.checked_add(1))
            .ok_or(LayoutError::TooLong { length: plaintext_len })?;
        Ok(Self {
            size,
            plaintext_len,
            segments,
        })
    }

    /// [`Layout::from_ciphertext_len`] with another segment size.
    ///
    /// # Errors
    /// As there.
    pub fn of_ciphertext(size: SegmentSize, ciphertext_len: u64) -> Result<Self, LayoutError> {
        if ciphertext_len < HEADER_LEN + TAG_LEN {
            return Err(LayoutError::TooShort { length: ciphertext_len });
        }
        let segments = ciphertext_len.div_ceil(size.bytes());
        let overhead = HEADER_LEN + TAG_LEN * segments;
        let layout = match ciphertext_len.checked_sub(overhead) {
            Some(plaintext_len) => Self::of_plaintext(size, plaintext_len)?,
            None => return Err(LayoutError::Ragged { length: ciphertext_len }),
        };
        // A tail too short to hold a tag and one byte would belong to fewer segments.
        if u64::from(layout.segments) != segments {
            return Err(LayoutError::Ragged { length: ciphertext_len });
        }
        Ok(layout)
    }

    /// Bytes of the sealed file, header included.
    pub fn ciphertext_len(&self) -> u64 {
        self.plaintext_len + HEADER_LEN + TAG_LEN * u64::from(self.segments)
    }

    /// Bytes of the plaintext.
    pub fn plaintext_len(&self) -> u64 {
        self.plaintext_len
    }

    /// Number of segments, at least 1.
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Segment `index`; `None` behind the last.
    pub fn segment(&self, index: u32) -> Option<Segment> {
        if index >= self.segments {
            return None;
        }
        let last = index == self.segments - 1;
        let start = u64::from(index) * self.size.bytes();
        let end = if last {
            self.ciphertext_len()
        } else {
            start + self.size.bytes()
        };
        // What lies in front of this segment that is not plaintext: a tag for each segment, and the header.
        let tags = TAG_LEN * u64::from(index);
        let (plain_start, skip) = if index == 0 {
            (0, HEADER_LEN)
        } else {
            (start - HEADER_LEN - tags, 0)
        };
        let plain_len = end - start - skip - TAG_LEN;
        Some(Segment {
            index,
            last,
            ciphertext: start..end,
            plaintext: plain_start..plain_start + plain_len,
        })
    }

    /// Numbers of the segments that hold these bytes of the plaintext; where there are none, of the one where they would be.
    pub fn segments_of(&self, plaintext: &Range<u64>) -> Range<u32> {
        let rest = self.size.bytes() - TAG_LEN;
        // As if the header were plaintext: then all segments but the last have the same length.
        let at = |byte: u64| u32::try_from(byte.saturating_add(HEADER_LEN) / rest).unwrap_or(u32::MAX);
        let first = at(plaintext.start).min(self.segments - 1);
        let last = at(plaintext.end.saturating_sub(1)).clamp(first, self.segments - 1);
        first..last + 1
    }

    /// All segments in order.
    pub fn iter(&self) -> impl Iterator<Item = Segment> + use<> {
        let layout = *self;
        (0..self.segments).filter_map(move |index| layout.segment(index))
    }

    /// Bytes of plaintext in the largest segment: what one buffer must hold.
    pub(super) fn largest_plaintext(&self) -> usize {
        usize::try_from(self.plaintext_len.min(self.size.bytes() - TAG_LEN)).unwrap_or(SEGMENT)
    }
}

/// One segment of a sealed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its number, from 0.
    pub index: u32,
    /// Whether it is the last one.
    pub last: bool,
    /// Bytes of the sealed file: body and tag, and for segment 0 the header in front.
    pub ciphertext: Range<u64>,
    /// Bytes of the plaintext.
    pub plaintext: Range<u64>,
}

impl Segment {
    /// Bytes of the sealed file that hold the body: as long as the plaintext, without header and tag.
    pub fn body(&self) -> Range<u64> {
        let end = self.tag().start;
        end - (self.plaintext.end - self.plaintext.start)..end
    }

    /// Bytes of the sealed file that hold the tag.
    pub fn tag(&self) -> Range<u64> {
        self.ciphertext.end - TAG_LEN..self.ciphertext.end
    }

    /// Bytes of plaintext. At most the segment size, so it fits.
    pub fn plaintext_len(&self) -> usize {
        usize::try_from(self.plaintext.end - self.plaintext.start).unwrap_or(SEGMENT)
    }
}

/// Why a length is not that of a sealed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Shorter than header and one tag.
    #[error("{length} bytes are too few for a sealed file: header and one tag alone are 56")]
    TooShort {
        /// The length that was given.
        length: u64,
    },
    /// The last segment would hold no plaintext: the file was cut or extended.
    #[error("no sealed file is {length} bytes long: its last segment would be empty")]
    Ragged {
        /// The length that was given.
        length: u64,
    },
    /// More segments than the nonce can number.
    #[error("{length} bytes need more than 4294967295 segments")]
    TooLong {
        /// The length that was given.
        length: u64,
    },
}

const HEADER_LEN: u64 = HEADER as u64;
const TAG_LEN: u64 = TAG as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_lie_in_the_segments_that_have_them() {
        for length in [0, 1, 4040, 4041, 20_000] {
            let layout = Layout::of_plaintext(SegmentSize::KIB4, length).unwrap();
            for start in 0..=length {
                for end in [start, start + 1, start + 4080, start + 9000].map(|end| end.min(length)) {
                    let has = |byte: u64| layout.iter().position(|segment| segment.plaintext.contains(&byte));
                    let found = layout.segments_of(&(start..end));
                    if start < end {
                        let (first, last) = (has(start).unwrap(), has(end - 1).unwrap());
                        assert_eq!(
                            (
                                usize::try_from(found.start).unwrap(),
                                usize::try_from(found.end).unwrap()
                            ),
                            (first, last + 1)
                        );
                    } else {
                        assert_eq!(found.len(), 1);
                    }
                }
            }
        }
    }

    #[test]
    fn segments_tile_both_files() {
        for size in [SegmentSize::KIB4, SegmentSize::MIB1] {
            let (first, rest) = (size.bytes() - 56, size.bytes() - 16);
            for len in [
                0,
                1,
                first - 1,
                first,
                first + 1,
                first + rest,
                first + rest + 1,
                first + 3 * rest + 777,
            ] {
                let layout = Layout::of_plaintext(size, len).unwrap();
                assert_eq!(Layout::of_ciphertext(size, layout.ciphertext_len()), Ok(layout));
                let (mut plain, mut cipher) = (0, 0);
                for segment in layout.iter() {
                    assert_eq!((segment.plaintext.start, segment.ciphertext.start), (plain, cipher));
                    assert_eq!(segment.body().end, segment.tag().start);
                    let gap = if segment.index == 0 { 40 } else { 0 };
                    assert_eq!(segment.body().start, segment.ciphertext.start + gap);
                    (plain, cipher) = (segment.plaintext.end, segment.ciphertext.end);
                    assert_eq!(segment.last, segment.index + 1 == layout.segments());
                    assert!(segment.last || segment.ciphertext.end % size.bytes() == 0);
                    assert!(segment.plaintext_len() > 0 || len == 0);
                }
                assert_eq!((plain, cipher), (len, layout.ciphertext_len()));
                assert_eq!(layout.segment(layout.segments()), None);
            }
        }
    }

    #[test]
    fn every_small_ciphertext_length_is_a_layout_or_an_error() {
        let size = SegmentSize::KIB4;
        for length in 0..3 * 4096 + 100 {
            match Layout::of_ciphertext(size, length) {
                Ok(layout) => assert_eq!(layout.ciphertext_len(), length),
                Err(LayoutError::TooShort { .. }) => assert!(length < 56),
                Err(LayoutError::Ragged { .. }) => assert!((1..=16).contains(&(length % 4096)), "{length}"),
                Err(error) => panic!("{length}: {error}"),
            }
        }
    }

    #[test]
    fn lengths_beyond_the_nonce_are_refused() {
        let size = SegmentSize::KIB4;
        let most = 4040 + 4080 * (u64::from(u32::MAX) - 1);
        let layout = Layout::of_plaintext(size, most).unwrap();
        assert_eq!(layout.segments(), u32::MAX);
        assert_eq!(Layout::of_ciphertext(size, layout.ciphertext_len()), Ok(layout));
        assert_eq!(
            Layout::of_plaintext(size, most + 1),
            Err(LayoutError::TooLong { length: most + 1 })
        );
        for length in [layout.ciphertext_len() + 17, 1 << 63, u64::MAX] {
            let error = Layout::of_ciphertext(size, length).unwrap_err();
            assert!(
                matches!(error, LayoutError::TooLong { .. } | LayoutError::Ragged { .. }),
                "{length}: {error}"
            );
        }
        for length in [1 << 63, u64::MAX] {
            assert_eq!(Layout::from_plaintext_len(length), Err(LayoutError::TooLong { length }));
        }
    }
}
