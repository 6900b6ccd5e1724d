//! The digest of a plaintext, computed beside the opening of its segments.

use std::{ops::Range, sync::OnceLock};

use cella_seal::{
    stream::{Layout, Segment},
    tree::{Blake3Digest, FileTree},
};

use super::region::{Piece, Settled, settled_bytes};

/// The digest of one file under construction.
pub(crate) struct Hashing {
    layout: Layout,
    tree: FileTree,
    /// Segments that are open.
    settled: Box<[OnceLock<Settled>]>,
}

impl Hashing {
    /// Of a file of this layout.
    pub(crate) fn new(layout: &Layout) -> Self {
        Self {
            layout: *layout,
            tree: FileTree::new(layout),
            settled: layout.iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// Takes a segment's plaintext and hashes what is complete with it. Blocks; each segment comes once.
    pub(crate) fn settle(&self, segment: &Segment, plaintext: Piece) {
        let index = usize::try_from(segment.index).unwrap_or(usize::MAX);
        if let Some(slot) = self.settled.get(index) {
            // The first and only one.
            let _ = slot.set(plaintext.settle());
        }
        for leaf in self.tree.opened(segment) {
            if let Some(bytes) = self.bytes(&leaf.range) {
                self.tree.hash(&leaf, bytes);
            }
        }
    }

    /// The digest; `None` while a segment is missing.
    pub(crate) fn finish(&self) -> Option<Blake3Digest> {
        self.tree.finish()
    }

    /// Bytes of the plaintext, if all of them are settled.
    fn bytes(&self, range: &Range<u64>) -> Option<&[u8]> {
        let segments = self.layout.segments_of(range);
        let segments = usize::try_from(segments.start).ok()?..usize::try_from(segments.end).ok()?;
        let settled: Option<Vec<_>> = self.settled.get(segments)?.iter().map(OnceLock::get).collect();
        let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
        settled_bytes(settled?, range)
    }
}
