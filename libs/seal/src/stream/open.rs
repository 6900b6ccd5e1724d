//! Opening a sealed file, segment by segment, from any number of threads.
use std::io::{self, Read, Write};

use zeroize::{Zeroize, Zeroizing};

use super::claims::Claims;
use super::key::StreamKey;
use super::{HEADER, Header, HeaderError, Layout, LayoutError, SegmentSize, TAG};
use crate::secret::DataKey;

/// Opens the segments of one sealed file in place: `&self` is enough, so threads share it and each takes segments of
/// its own. Every segment opens at most once.
///
/// The caller places a segment's body at its final address, in memory that nobody else sees yet, and opens it there.
/// The file is whole when [`Opener::finish`] says so, and may be shown only then.
pub struct Opener {
    key: StreamKey,
    layout: Layout,
    claims: Claims,
}

impl Opener {
    /// An opener for the file with this header and length. The associated data is checked with the first segment.
    ///
    /// # Errors
    /// [`OpenError::Key`] when the cryptographic library refuses the key, which no input brings about.
    pub fn new(main_key: &DataKey, header: &Header, associated_data: &[u8], layout: Layout) -> Result<Self, OpenError> {
        let key = StreamKey::derive(main_key, header, associated_data).ok_or(OpenError::Key)?;
        Ok(Self {
            key,
            layout,
            claims: Claims::new(layout.segments()),
        })
    }

    /// The layout it was made with.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Opens segment `index`: `body` is its ciphertext without header and tag and becomes its plaintext. On failure
    /// `body` is all zero, and the segment cannot be tried again.
    ///
    /// # Errors
    /// [`OpenError::NotAuthentic`] for a segment that is not the owner's at this place;
    /// [`OpenError::NoSuchSegment`], [`OpenError::Length`] and [`OpenError::Repeated`] for a caller's mistake.
    pub fn open_in_place(&self, index: u32, body: &mut [u8], tag: &[u8; TAG]) -> Result<(), OpenError> {
        self.open(index, body.len(), |last| self.key.open(index, last, body, tag))
            .inspect_err(|_| body.zeroize())
    }

    /// Opens segment `index` out of place: `window` begins with room for the plaintext, and its bytes from `ciphertext` on are
    /// ciphertext and tag. On failure the room is all zero, and the segment cannot be tried again. Saves a copy where the ciphertext is
    /// in memory already.
    ///
    /// # Errors
    /// As [`Opener::open_in_place`].
    pub fn open_within(&self, index: u32, window: &mut [u8], ciphertext: usize) -> Result<(), OpenError> {
        let found = window.len().saturating_sub(ciphertext).saturating_sub(TAG);
        self.open(index, found, |last| {
            self.key.open_within(index, last, window, ciphertext)
        })
        .inspect_err(|_| window.get_mut(..found).unwrap_or_default().zeroize())
    }

    /// Says whether every segment was opened, the last one as the last: only then is the file whole.
    ///
    /// # Errors
    /// [`OpenError::Incomplete`] if a segment is missing or failed.
    pub fn finish(&self) -> Result<(), OpenError> {
        let (opened, segments) = (self.claims.done(), self.layout.segments());
        if opened == segments {
            Ok(())
        } else {
            Err(OpenError::Incomplete { opened, segments })
        }
    }

    /// Opens a segment with `decrypt`, if it is one of `found` bytes of plaintext and was not opened before.
    fn open(&self, index: u32, found: usize, decrypt: impl FnOnce(bool) -> bool) -> Result<(), OpenError> {
        let segments = self.layout.segments();
        let segment = self
            .layout
            .segment(index)
            .ok_or(OpenError::NoSuchSegment { index, segments })?;
        let expected = segment.plaintext_len();
        if found != expected {
            return Err(OpenError::Length { index, expected, found });
        }
        if !self.claims.take(index) {
            return Err(OpenError::Repeated { index });
        }
        if !decrypt(segment.last) {
            return Err(OpenError::NotAuthentic { index });
        }
        self.claims.complete();
        Ok(())
    }
}

/// Opens a sealed stream of `ciphertext_len` bytes into `out`, in order, with one segment in memory.
///
/// Each segment is written after it was authenticated; whether the whole is complete is known only from the `Ok`.
///
/// # Errors
/// As [`Opener`], [`OpenError::Header`] and [`OpenError::Layout`] for what is not a sealed file, and the errors of
/// reader and writer. Bytes behind the last segment are [`OpenError::Trailing`].
pub fn open_reader(
    main_key: &DataKey,
    associated_data: &[u8],
    size: SegmentSize,
    ciphertext_len: u64,
    mut from: impl Read,
    mut out: impl Write,
) -> Result<(), OpenError> {
    let layout = Layout::of_ciphertext(size, ciphertext_len)?;
    let mut header = [0; HEADER];
    from.read_exact(&mut header)
        .map_err(|source| OpenError::Read { index: 0, source })?;
    let opener = Opener::new(main_key, &Header::parse(&header)?, associated_data, layout)?;
    let mut buffer = Zeroizing::new(Vec::with_capacity(layout.largest_plaintext()));
    for segment in layout.iter() {
        let index = segment.index;
        let mut tag = [0; TAG];
        buffer.resize(segment.plaintext_len(), 0);
        from.read_exact(&mut buffer)
            .map_err(|source| OpenError::Read { index, source })?;
        from.read_exact(&mut tag)
            .map_err(|source| OpenError::Read { index, source })?;
        opener.open_in_place(index, &mut buffer, &tag)?;
        out.write_all(&buffer)
            .map_err(|source| OpenError::Write { index, source })?;
    }
    match from.read_exact(&mut [0]) {
        Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => opener.finish(),
        Err(source) => Err(OpenError::Read {
            index: layout.segments(),
            source,
        }),
        Ok(()) => Err(OpenError::Trailing),
    }
}

/// Why a sealed file does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The tag is wrong: changed bytes, another key, another model, path or version, another position, or not the end.
    #[error("segment {index} is not authentic: changed, or sealed for another place, version or key")]
    NotAuthentic {
        /// The segment.
        index: u32,
    },
    /// A buffer of the wrong size was given.
    #[error("segment {index} has {expected} bytes and was given {found}")]
    Length {
        /// The segment.
        index: u32,
        /// Bytes that its body has.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// An index behind the last segment.
    #[error("there is no segment {index}: the file has {segments}")]
    NoSuchSegment {
        /// The index that was asked for.
        index: u32,
        /// Segments of the file.
        segments: u32,
    },
    /// A segment was given twice.
    #[error("segment {index} was opened before")]
    Repeated {
        /// The segment.
        index: u32,
    },
    /// Not every segment was opened.
    #[error("the file is not complete: {opened} of {segments} segments are open")]
    Incomplete {
        /// Segments that opened.
        opened: u32,
        /// Segments of the file.
        segments: u32,
    },
    /// There are bytes behind the last segment.
    #[error("the file goes on behind its last segment")]
    Trailing,
    /// The header is not one.
    #[error("this is not a sealed file")]
    Header(#[from] HeaderError),
    /// The length is not one.
    #[error("this is not the length of a sealed file")]
    Layout(#[from] LayoutError),
    /// The cryptographic library refused the key.
    #[error("the cryptographic library refused the key")]
    Key,
    /// The sealed file could not be read.
    #[error("reading segment {index}")]
    Read {
        /// The segment.
        index: u32,
        /// What the reader says.
        #[source]
        source: io::Error,
    },
    /// The plaintext could not be written.
    #[error("writing the plaintext of segment {index}")]
    Write {
        /// The segment.
        index: u32,
        /// What the writer says.
        #[source]
        source: io::Error,
    },
}
