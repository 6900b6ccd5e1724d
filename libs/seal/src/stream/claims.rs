//! Which segments are taken: each index is used once, whichever thread asks.
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// One bit a segment, and how many of them are done.
pub(super) struct Claims {
    taken: Box<[AtomicU64]>,
    done: AtomicU32,
}

impl Claims {
    /// All free. Costs one byte for 8 segments, 12.5 KiB for 100 GiB of model.
    pub(super) fn new(segments: u32) -> Self {
        let words = segments.div_ceil(u64::BITS);
        Self {
            taken: (0..words).map(|_| AtomicU64::new(0)).collect(),
            done: AtomicU32::new(0),
        }
    }

    /// Takes `index`; `false` if it was taken before or does not exist.
    #[must_use]
    pub(super) fn take(&self, index: u32) -> bool {
        let bit = 1 << (index % u64::BITS);
        let word = usize::try_from(index / u64::BITS)
            .ok()
            .and_then(|word| self.taken.get(word));
        word.is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit == 0)
    }

    /// Notes that one taken segment came out right. Publishes the caller's writes to whoever reads [`Claims::done`].
    pub(super) fn complete(&self) {
        self.done.fetch_add(1, Ordering::Release);
    }

    /// How many came out right.
    pub(super) fn done(&self) -> u32 {
        self.done.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_is_taken_once_by_any_thread() {
        let claims = Claims::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).filter(|i| claims.take(*i)).for_each(|_| claims.complete()));
            }
        });
        assert_eq!(claims.done(), 1000);
        assert!(!claims.take(5));
        assert!(!claims.take(100_000));
    }
}
