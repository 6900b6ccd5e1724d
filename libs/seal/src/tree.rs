//! The BLAKE3 digest of a plaintext whose segments are opened in any order, on any number of threads.
//!
//! ```text
//!  segments   |  0  |  1  |  2  |  3 |      plaintext of 1 MiB less tag (and header)
//!  leaves     |   0   |   1   |  2   |      1 MiB each: subtrees of the BLAKE3 tree
//! ```
//! A leaf is hashed by whoever opens the last of its segments, while they are still in the cache; the leaves' values are joined at the
//! end. The result is what `b3sum` prints for the file.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use blake3::{Hash, Hasher};

use crate::stream::{Layout, Segment};

/// A BLAKE3 digest, written `blake3:<64 hex digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Blake3Digest(pub [u8; 32]);

impl fmt::Display for Blake3Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", hex::encode(self.0))
    }
}

impl FromStr for Blake3Digest {
    type Err = Blake3DigestError;

    fn from_str(text: &str) -> Result<Self, Blake3DigestError> {
        let digits = text.strip_prefix("blake3:").ok_or(Blake3DigestError)?;
        if digits.len() != 64 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Blake3DigestError);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| Blake3DigestError)?;
        Ok(Self(bytes))
    }
}

/// Not `blake3:` and 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is written blake3: and 64 lower-case hex digits")]
pub struct Blake3DigestError;

/// The digest of a plaintext that comes from front to back.
#[derive(Debug, Clone, Default)]
pub struct InOrder(Hasher);

impl InOrder {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that came.
    pub fn digest(&self) -> Blake3Digest {
        Blake3Digest(*self.0.finalize().as_bytes())
    }
}

/// The digest of a model: of the lines `<64 hex digits>  <path>`, one for each file, in byte order of the paths; what `b3sum` prints
/// for the files, in that order, through `b3sum` again.
pub fn model_digest<'p>(files: impl IntoIterator<Item = (&'p str, Blake3Digest)>) -> Blake3Digest {
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_unstable_by_key(|(path, _)| *path);
    let mut hasher = Hasher::new();
    for (path, digest) in files {
        hasher.update(format!("{}  {path}\n", hex::encode(digest.0)).as_bytes());
    }
    Blake3Digest(*hasher.finalize().as_bytes())
}

/// The tree of one file under construction.
pub struct FileTree {
    len: u64,
    leaves: Box<[Slot]>,
}

/// One leaf: bytes of the plaintext that are all known, to be hashed by whoever holds this.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a leaf that is not hashed leaves the file without a digest"]
pub struct Leaf {
    index: usize,
    /// Bytes of the plaintext.
    pub range: Range<u64>,
}

#[derive(Default)]
struct Slot {
    /// Segments of this leaf that are not open yet.
    missing: AtomicU32,
    value: OnceLock<ChainingValue>,
}

impl FileTree {
    /// A tree for a plaintext of this layout. Takes 40 bytes for each MiB.
    pub fn new(layout: &Layout) -> Self {
        let len = layout.plaintext_len();
        let leaves = usize::try_from(len.div_ceil(LEAF).max(1)).unwrap_or(usize::MAX);
        let mut tree = Self {
            len,
            leaves: (0..leaves).map(|_| Slot::default()).collect(),
        };
        for segment in layout.iter() {
            for slot in tree.leaves.get_mut(leaves_of(&segment)).unwrap_or_default() {
                *slot.missing.get_mut() += 1;
            }
        }
        tree
    }

    /// Notes that `segment` is open, which happens once for each. Gives the leaves whose bytes are all known with it: each leaf is
    /// given once, to one caller.
    pub fn opened(&self, segment: &Segment) -> impl Iterator<Item = Leaf> {
        leaves_of(segment).filter_map(|index| {
            let slot = self.leaves.get(index)?;
            // Who sees the others' counts sees their plaintext too.
            let last = slot.missing.fetch_sub(1, Ordering::AcqRel) == 1;
            let start = u64::try_from(index).ok()? * LEAF;
            let range = start..(start + LEAF).min(self.len);
            last.then_some(Leaf { index, range })
        })
    }

    /// Hashes a leaf; `bytes` are those of its range.
    pub fn hash(&self, leaf: &Leaf, bytes: &[u8]) {
        let value = if self.leaves.len() == 1 {
            *blake3::hash(bytes).as_bytes()
        } else {
            let mut hasher = Hasher::new();
            hasher
                .set_input_offset(leaf.range.start)
                .update(bytes)
                .finalize_non_root()
        };
        if let Some(slot) = self.leaves.get(leaf.index) {
            // A second value would be the same.
            let _ = slot.value.set(value);
        }
    }

    /// The file's digest; `None` while a leaf is missing.
    pub fn finish(&self) -> Option<Blake3Digest> {
        let hash = match &*self.leaves {
            [only] => Hash::from_bytes(*only.value.get()?),
            _ => {
                let middle = left_subtree_len(self.len);
                let (left, right) = (self.subtree(0..middle)?, self.subtree(middle..self.len)?);
                merge_subtrees_root(&left, &right, Mode::Hash)
            }
        };
        Some(Blake3Digest(*hash.as_bytes()))
    }

    /// The value of a part of the plaintext that is a subtree. Recursion is as deep as the tree is high: 34 levels for 16 TiB.
    fn subtree(&self, range: Range<u64>) -> Option<ChainingValue> {
        let len = range.end - range.start;
        if len <= LEAF {
            let index = usize::try_from(range.start / LEAF).ok()?;
            return self.leaves.get(index)?.value.get().copied();
        }
        // A leaf is a power of two of chunks, so a left subtree is whole leaves.
        let middle = range.start + left_subtree_len(len);
        let (left, right) = (self.subtree(range.start..middle)?, self.subtree(middle..range.end)?);
        Some(merge_subtrees_non_root(&left, &right, Mode::Hash))
    }
}

impl fmt::Debug for FileTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTree")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Leaves that have bytes of `segment`. An empty plaintext has one leaf, without a byte.
fn leaves_of(segment: &Segment) -> Range<usize> {
    let Range { start, end } = segment.plaintext;
    let index = |leaf: u64| usize::try_from(leaf).unwrap_or(usize::MAX);
    index(start / LEAF)..index(end.div_ceil(LEAF).max(start / LEAF + 1))
}

/// Bytes of a leaf; the last one may be shorter.
const LEAF: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{FIRST_PLAINTEXT, REST_PLAINTEXT};

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    /// Opens the segments in the order of `order` and gives the digest.
    fn digest(plain: &[u8], order: impl Fn(&mut Vec<Segment>)) -> Option<Blake3Digest> {
        let layout = Layout::from_plaintext_len(plain.len().try_into().unwrap()).unwrap();
        let tree = FileTree::new(&layout);
        let mut segments: Vec<_> = layout.iter().collect();
        order(&mut segments);
        let mut leaves = 0;
        for segment in &segments {
            for leaf in tree.opened(segment) {
                let range = usize::try_from(leaf.range.start).unwrap()..usize::try_from(leaf.range.end).unwrap();
                tree.hash(&leaf, &plain[range]);
                leaves += 1;
            }
        }
        assert!(leaves <= tree.leaves.len());
        tree.finish()
    }

    #[test]
    fn any_order_gives_what_b3sum_gives() {
        let mib = 1 << 20;
        for len in [
            0,
            1,
            1024,
            FIRST_PLAINTEXT,
            FIRST_PLAINTEXT + 1,
            mib - 1,
            mib,
            mib + 1,
            FIRST_PLAINTEXT + REST_PLAINTEXT,
            2 * mib,
            3 * mib + 1024,
            5 * mib + 777,
            8 * mib,
            9 * mib - 40,
        ] {
            let plain = content(len);
            let expected = Blake3Digest(*blake3::hash(&plain).as_bytes());
            assert_eq!(digest(&plain, |_| {}), Some(expected), "{len}");
            assert_eq!(
                digest(&plain, |order| order.reverse()),
                Some(expected),
                "{len} backwards"
            );
            assert_eq!(
                digest(&plain, |order| order.rotate_right(1)),
                Some(expected),
                "{len}, last first"
            );
        }
    }

    #[test]
    fn text_round_trip_and_refusals() {
        let text = format!("blake3:{}", "0a".repeat(32));
        assert_eq!(text.parse::<Blake3Digest>().unwrap().to_string(), text);
        for bad in [
            "",
            "blake3:",
            &text[..70],
            &format!("{text}0"),
            &text.to_uppercase(),
            &text.replace("blake3", "sha256"),
        ] {
            assert_eq!(bad.parse::<Blake3Digest>(), Err(Blake3DigestError), "{bad}");
        }
    }

    #[test]
    fn without_a_segment_there_is_no_digest() {
        for len in [1, 3 << 20] {
            assert_eq!(
                digest(&content(len), |order| {
                    order.pop();
                }),
                None,
                "{len}"
            );
        }
    }

    #[test]
    fn threads_share_the_work_and_each_leaf_is_given_once() {
        let plain = content((20 << 20) + 5);
        let layout = Layout::from_plaintext_len(plain.len().try_into().unwrap()).unwrap();
        let (tree, segments): (_, Vec<_>) = (FileTree::new(&layout), layout.iter().collect());
        std::thread::scope(|scope| {
            for part in segments.chunks(5) {
                scope.spawn(|| {
                    for leaf in part.iter().flat_map(|segment| tree.opened(segment)) {
                        let range =
                            usize::try_from(leaf.range.start).unwrap()..usize::try_from(leaf.range.end).unwrap();
                        tree.hash(&leaf, &plain[range]);
                    }
                });
            }
        });
        assert_eq!(tree.finish(), Some(Blake3Digest(*blake3::hash(&plain).as_bytes())));
    }

    #[test]
    fn a_models_digest_is_b3sum_of_b3sum() {
        let file = |text: &[u8]| Blake3Digest(*blake3::hash(text).as_bytes());
        let digest = model_digest([("b/c", file(b"two")), ("a", file(b"one"))]);
        let lines = format!("{}  a\n{}  b/c\n", blake3::hash(b"one"), blake3::hash(b"two"));
        assert_eq!(digest, file(lines.as_bytes()));
        assert!(digest.to_string().starts_with("blake3:"));
    }
}
