//! Sealing: one segment at a time, each index once, under a salt and a prefix drawn for this file alone.
use std::io::{self, Write};

use zeroize::{Zeroize, Zeroizing};

use super::claims::Claims;
use super::key::StreamKey;
use super::{Header, Layout, LayoutError, SegmentSize, TAG};
use crate::secret::{DataKey, RandomError};

/// Seals the segments of one file of known length, in place and in any order, from any number of threads.
///
/// Draws its own salt and nonce prefix; every index seals at most once, so no nonce is used twice.
pub struct Sealer {
    key: StreamKey,
    header: Header,
    layout: Layout,
    claims: Claims,
}

impl Sealer {
    /// A sealer for one file.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system gives no random bytes, [`SealError::Key`] when the cryptographic library
    /// refuses the key.
    pub fn new(main_key: &DataKey, associated_data: &[u8], layout: Layout) -> Result<Self, SealError> {
        Self::with_header(main_key, associated_data, layout, Header::random()?)
    }

    /// With a header that is given: for known answers only.
    pub(super) fn with_header(
        main_key: &DataKey,
        associated_data: &[u8],
        layout: Layout,
        header: Header,
    ) -> Result<Self, SealError> {
        let key = StreamKey::derive(main_key, &header, associated_data).ok_or(SealError::Key)?;
        Ok(Self {
            key,
            header,
            layout,
            claims: Claims::new(layout.segments()),
        })
    }

    /// What stands in front of segment 0.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The layout it was made with.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Seals segment `index`: `body` is its plaintext and becomes its ciphertext, the tag that follows is returned.
    ///
    /// # Errors
    /// [`SealError::NoSuchSegment`], [`SealError::Length`] and [`SealError::Repeated`] for a caller's mistake; `body`
    /// is untouched then.
    pub fn seal_in_place(&self, index: u32, body: &mut [u8]) -> Result<[u8; TAG], SealError> {
        let segments = self.layout.segments();
        let segment = self
            .layout
            .segment(index)
            .ok_or(SealError::NoSuchSegment { index, segments })?;
        let (expected, found) = (segment.plaintext_len(), body.len());
        if found != expected {
            return Err(SealError::Length { index, expected, found });
        }
        if !self.claims.take(index) {
            return Err(SealError::Repeated { index });
        }
        let tag = self.key.seal(index, segment.last, body).ok_or(SealError::Key)?;
        self.claims.complete();
        Ok(tag)
    }
}

/// Seals a stream of unknown length: everything written to it, until [`SealWriter::finish`]. Keeps one segment in memory.
///
/// Dropped without `finish`, it leaves a file without its last segment, which does not open.
pub struct SealWriter<W: Write> {
    key: StreamKey,
    size: SegmentSize,
    out: W,
    buffer: Zeroizing<Vec<u8>>,
    /// Number of the segment in `buffer`.
    index: u32,
    plaintext_len: u64,
    /// A write failed: how much of it `out` has is unknown, so that nothing more is written.
    failed: bool,
}

impl<W: Write> SealWriter<W> {
    /// Writes the header to `out` and waits for plaintext.
    ///
    /// # Errors
    /// As [`Sealer::new`], and [`SealError::Write`] when `out` does not take the header.
    pub fn new(main_key: &DataKey, associated_data: &[u8], out: W) -> Result<Self, SealError> {
        Self::with_header(main_key, associated_data, SegmentSize::MIB1, Header::random()?, out)
    }

    /// With a header and a segment size that are given: for known answers only.
    pub(super) fn with_header(
        main_key: &DataKey,
        associated_data: &[u8],
        size: SegmentSize,
        header: Header,
        mut out: W,
    ) -> Result<Self, SealError> {
        let key = StreamKey::derive(main_key, &header, associated_data).ok_or(SealError::Key)?;
        out.write_all(&header.to_bytes())
            .map_err(|source| SealError::Write { index: 0, source })?;
        let buffer = Zeroizing::new(Vec::with_capacity(size.rest_plaintext()));
        Ok(Self {
            key,
            size,
            out,
            buffer,
            index: 0,
            plaintext_len: 0,
            failed: false,
        })
    }

    /// Seals what is left as the last segment and gives the writer back, with the layout of what it now holds.
    ///
    /// # Errors
    /// [`SealError::Write`], [`SealError::Layout`] when there was too much plaintext.
    pub fn finish(mut self) -> Result<(W, Layout), SealError> {
        let layout = Layout::of_plaintext(self.size, self.plaintext_len)?;
        let index = self.index;
        self.put(true)
            .and_then(|()| self.out.flush())
            .map_err(|source| SealError::Write { index, source })?;
        Ok((self.out, layout))
    }

    /// Seals the buffer as the segment that it is.
    fn put(&mut self, last: bool) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier write failed"));
        }
        self.failed = true;
        let tag = self
            .key
            .seal(self.index, last, &mut self.buffer)
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.out.write_all(&self.buffer)?;
        self.out.write_all(&tag)?;
        self.buffer.zeroize();
        self.failed = false;
        Ok(())
    }

    fn room(&self) -> usize {
        let full = if self.index == 0 {
            self.size.first_plaintext()
        } else {
            self.size.rest_plaintext()
        };
        full - self.buffer.len()
    }
}

impl<W: Write> Write for SealWriter<W> {
    fn write(&mut self, plaintext: &[u8]) -> io::Result<usize> {
        // A full buffer is sealed only when more follows: the last segment may be full, but never empty.
        if self.room() == 0 && !plaintext.is_empty() {
            let next = self
                .index
                .checked_add(1)
                .filter(|next| *next < u32::MAX)
                .ok_or(io::ErrorKind::FileTooLarge)?;
            self.put(false)?;
            self.index = next;
        }
        let (now, _) = plaintext.split_at(plaintext.len().min(self.room()));
        self.buffer.extend_from_slice(now);
        self.plaintext_len += now.len() as u64;
        Ok(now.len())
    }

    /// Flushes the writer below. What is in the segment under way stays here until it is full or the last.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Why something was not sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// No random bytes.
    #[error("drawing salt and nonce prefix")]
    Random(#[from] RandomError),
    /// The cryptographic library refused the key or the segment.
    #[error("the cryptographic library refused to seal")]
    Key,
    /// The plaintext is too long.
    #[error("the file cannot be sealed")]
    Layout(#[from] LayoutError),
    /// A buffer of the wrong size was given.
    #[error("segment {index} has {expected} bytes and was given {found}")]
    Length {
        /// The segment.
        index: u32,
        /// Bytes that its plaintext has.
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
    /// A segment was given twice; sealing it again would use a nonce twice.
    #[error("segment {index} was sealed before")]
    Repeated {
        /// The segment.
        index: u32,
    },
    /// The file grew or shrank while it was being sealed.
    #[error("the file changed its length while it was being sealed; it had {expected} bytes at first")]
    Changed {
        /// Its length when sealing began.
        expected: u64,
    },
    /// The plaintext could not be read.
    #[error("reading the plaintext of segment {index}")]
    Read {
        /// The segment.
        index: u32,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The sealed file could not be written.
    #[error("writing segment {index}")]
    Write {
        /// The segment.
        index: u32,
        /// What the writer says.
        #[source]
        source: io::Error,
    },
    /// Another thread met the error that is reported.
    #[error("sealing was given up after an error in another segment")]
    GivenUp,
}
