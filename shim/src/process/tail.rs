//! The last bytes of an endless stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps the last `capacity` bytes that were written; clones share them.
#[derive(Clone, Debug)]
pub struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    capacity: usize,
}

impl Tail {
    /// An empty tail.
    pub fn new(capacity: usize) -> Self {
        Self {
            bytes: Arc::default(),
            capacity,
        }
    }

    /// Appends `bytes`, forgetting the oldest.
    pub fn push(&self, bytes: &[u8]) {
        let keep = bytes.len().saturating_sub(self.capacity);
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend(bytes.iter().skip(keep));
        let excess = held.len().saturating_sub(self.capacity);
        held.drain(..excess);
    }

    /// The last `lines` lines, each printable and at most 240 bytes long.
    pub fn last_lines(&self, lines: usize) -> Vec<String> {
        let held: Vec<u8> = self
            .bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect();
        crate::untrusted::last_lines(&held, lines, 240)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept() {
        let tail = Tail::new(8);
        tail.push(b"first\nsecond\n");
        assert_eq!(tail.last_lines(9), ["second"]);
        tail.push(b"3\n");
        assert_eq!(tail.last_lines(9), ["econd", "3"]);
        tail.push(&[b'x'; 100]);
        assert_eq!(tail.last_lines(9), ["xxxxxxxx"]);
    }
}
