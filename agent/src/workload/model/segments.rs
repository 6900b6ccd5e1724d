//! Where the bytes of a sealed file go as they come off the wire: each segment's body straight to its final address, its
//! tag beside it. Pure: no I/O, no cryptography.

use std::{collections::VecDeque, ops::Range};

use cella_seal::stream::{HEADER, Segment, TAG};

/// Consecutive segments of one file, to be filled in order. `P` is the memory of one segment's plaintext.
#[derive(Debug)]
pub(crate) struct Placer<P> {
    queue: VecDeque<Sealed<P>>,
}

/// A segment: incomplete while it is in a [`Placer`], complete and not opened yet when it comes out.
#[derive(Debug)]
pub(crate) struct Sealed<P> {
    /// Which.
    pub(crate) segment: Segment,
    /// Ciphertext, where the plaintext belongs.
    pub(crate) body: P,
    /// Its tag, which is behind the body in the file.
    pub(crate) tag: [u8; TAG],
}

impl<P> Placer<P> {
    /// For consecutive segments, each with memory of its plaintext's length.
    pub(crate) fn new(segments: impl IntoIterator<Item = (Segment, P)>) -> Self {
        let sealed = |(segment, body)| Sealed {
            segment,
            body,
            tag: [0; TAG],
        };
        Self {
            queue: segments.into_iter().map(sealed).collect(),
        }
    }

    /// The bytes of the sealed file to fetch next: from the start of the first incomplete segment to the end of the last one.
    /// `None` when all is there. Bytes of a half-filled segment are forgotten: a new connection brings it whole.
    pub(crate) fn resume(&self) -> Option<Range<u64>> {
        let (first, last) = (&self.queue.front()?.segment, &self.queue.back()?.segment);
        Some(body_start(first)..last.ciphertext.end)
    }

    /// The first incomplete segment, whose body and tag come next.
    pub(crate) fn current(&mut self) -> Option<&mut Sealed<P>> {
        self.queue.front_mut()
    }

    /// Takes the first segment out: it is complete.
    pub(crate) fn complete(&mut self) -> Option<Sealed<P>> {
        self.queue.pop_front()
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

    /// Gives the placer what it wants; each connection breaks behind `broken` bytes.
    fn run(mut placer: Placer<Vec<u8>>, broken: usize) -> Vec<Sealed<Vec<u8>>> {
        let (file, mut done) = (file(), Vec::new());
        while let Some(range) = placer.resume() {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            let mut bytes = file[range].iter().take(broken);
            while let Some(Sealed { body, tag, .. }) = placer.current() {
                let places = body.iter_mut().chain(tag);
                if !places
                    .map(|to| bytes.next().map(|from| *to = *from))
                    .all(|put| put.is_some())
                {
                    break;
                }
                done.extend(placer.complete());
            }
        }
        done
    }

    #[test]
    fn every_segment_gets_its_own_bytes_wherever_connections_break() {
        for broken in [4096, 5000, 9000, 100_000] {
            let (file, done) = (file(), run(placer(0..3), broken));
            assert_eq!(done.len(), 3);
            for (at, sealed) in done.iter().enumerate() {
                let segment = layout().segment(u32::try_from(at).unwrap()).unwrap();
                let start = usize::try_from(body_start(&segment)).unwrap();
                let end = usize::try_from(segment.ciphertext.end).unwrap();
                assert_eq!(usize::try_from(sealed.segment.index).unwrap(), at);
                assert_eq!(sealed.body, file[start..end - TAG], "broken {broken}, segment {at}");
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
        let mut placer = Placer::new([(layout.segment(0).unwrap(), Vec::<u8>::new())]);
        assert_eq!(placer.resume(), Some(40..56));
        placer.current().unwrap().tag = [9; TAG];
        let sealed = placer.complete().unwrap();
        assert_eq!((sealed.body, sealed.tag), (Vec::new(), [9; TAG]));
        assert_eq!(placer.resume(), None);
    }
}
