//! Where the bytes of a sealed file go as they come off the wire: each segment's body straight to its final address, its
//! tag beside it. Pure: no I/O, no cryptography.

use std::{collections::VecDeque, ops::DerefMut, ops::Range};

use bytes::{Buf, Bytes};
use cella_seal::stream::{HEADER, Segment, TAG};

/// Fills consecutive segments of one file, in order. `P` is the memory of one segment's plaintext.
#[derive(Debug)]
pub(crate) struct Placer<P> {
    queue: VecDeque<(Segment, P)>,
    /// Bytes of the first segment in the queue that are there: body, then tag.
    filled: usize,
    tag: [u8; TAG],
}

/// A complete segment that was not opened yet.
#[derive(Debug)]
pub(crate) struct Sealed<P> {
    /// Which.
    pub(crate) segment: Segment,
    /// Ciphertext, where the plaintext belongs.
    pub(crate) body: P,
    /// Its tag.
    pub(crate) tag: [u8; TAG],
}

impl<P: DerefMut<Target = [u8]>> Placer<P> {
    /// For consecutive segments, each with memory of its plaintext's length.
    pub(crate) fn new(segments: impl IntoIterator<Item = (Segment, P)>) -> Self {
        Self {
            queue: segments.into_iter().collect(),
            filled: 0,
            tag: [0; TAG],
        }
    }

    /// The bytes of the sealed file to fetch next: from the start of the first incomplete segment to the end of the last one.
    /// `None` when all is there. Bytes of a half-filled segment are forgotten: a new connection brings it whole.
    pub(crate) fn resume(&mut self) -> Option<Range<u64>> {
        self.filled = 0;
        let (first, last) = (&self.queue.front()?.0, &self.queue.back()?.0);
        Some(body_start(first)..last.ciphertext.end)
    }

    /// The first incomplete segment.
    pub(crate) fn current(&self) -> Option<u32> {
        self.queue.front().map(|(segment, _)| segment.index)
    }

    /// Takes bytes up to the end of the segment at hand; gives the segment when it is complete.
    pub(crate) fn place(&mut self, bytes: &mut Bytes) -> Option<Sealed<P>> {
        let (_, body) = self.queue.front_mut()?;
        let length = body.len();
        while bytes.has_remaining() && self.filled < length + TAG {
            let rest = match self.filled.checked_sub(length) {
                None => body.get_mut(self.filled..),
                Some(tag) => self.tag.get_mut(tag..),
            };
            let rest = rest.unwrap_or_default();
            let count = rest.len().min(bytes.remaining());
            let Some(rest) = rest.get_mut(..count).filter(|rest| !rest.is_empty()) else {
                break;
            };
            bytes.copy_to_slice(rest);
            self.filled += count;
        }
        if self.filled < length + TAG {
            return None;
        }
        self.filled = 0;
        let (segment, body) = self.queue.pop_front()?;
        Some(Sealed {
            segment,
            body,
            tag: self.tag,
        })
    }
}

/// Where a segment's body starts in the file: the header counts into the first one.
fn body_start(segment: &Segment) -> u64 {
    if segment.index == 0 {
        segment.ciphertext.start + HEADER as u64
    } else {
        segment.ciphertext.start
    }
}

#[cfg(test)]
mod tests {
    use cella_seal::stream::{Layout, SegmentSize};

    use super::*;

    /// Segments of 4 KiB, so that a file of some kilobytes has several.
    fn layout() -> Layout {
        Layout::of_plaintext(SegmentSize::KIB4, 10_000).unwrap()
    }

    fn file() -> Vec<u8> {
        (0..layout().ciphertext_len())
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect()
    }

    fn placer(segments: Range<u32>) -> Placer<Vec<u8>> {
        let segment = |index| layout().segment(index).unwrap();
        Placer::new(segments.map(segment).map(|segment| {
            let memory = vec![0; segment.plaintext_len()];
            (segment, memory)
        }))
    }

    /// Feeds what the placer wants in steps of `step`, and breaks the connection after each `broken` bytes.
    fn run(mut placer: Placer<Vec<u8>>, step: usize, broken: usize) -> Vec<Sealed<Vec<u8>>> {
        let (file, mut done) = (file(), Vec::new());
        while let Some(range) = placer.resume() {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            for chunk in file[range].chunks(step).take(broken.div_ceil(step)) {
                let mut chunk = Bytes::copy_from_slice(chunk);
                while !chunk.is_empty() {
                    done.extend(placer.place(&mut chunk));
                }
            }
        }
        done
    }

    #[test]
    fn every_segment_gets_its_own_bytes_whatever_the_chunks() {
        for (step, broken) in [
            (1, 100_000),
            (7, 100_000),
            (4096, 100_000),
            (100_000, 100_000),
            (100, 5000),
        ] {
            let (file, done) = (file(), run(placer(0..3), step, broken));
            assert_eq!(done.len(), 3);
            for (at, sealed) in done.iter().enumerate() {
                let segment = layout().segment(u32::try_from(at).unwrap()).unwrap();
                let start = usize::try_from(body_start(&segment)).unwrap();
                let end = usize::try_from(segment.ciphertext.end).unwrap();
                assert_eq!(usize::try_from(sealed.segment.index).unwrap(), at);
                assert_eq!(sealed.body, file[start..end - TAG], "step {step}, segment {at}");
                assert_eq!(sealed.tag, file[end - TAG..end]);
            }
        }
    }

    #[test]
    fn the_first_segment_is_wanted_without_its_header() {
        assert_eq!(placer(0..3).resume(), Some(40..layout().ciphertext_len()));
        assert_eq!(placer(1..2).resume(), Some(4096..8192));
        assert_eq!(placer(0..0).resume(), None);
    }

    #[test]
    fn an_empty_plaintext_is_a_tag() {
        let layout = Layout::from_plaintext_len(0).unwrap();
        let mut placer = Placer::new([(layout.segment(0).unwrap(), Vec::new())]);
        assert_eq!(placer.resume(), Some(40..56));
        let mut bytes = Bytes::from_static(&[9; 16]);
        assert_eq!(placer.place(&mut bytes).unwrap().tag, [9; 16]);
        assert_eq!(placer.resume(), None);
    }
}
