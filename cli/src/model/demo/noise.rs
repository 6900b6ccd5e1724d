//! Deterministic noise: SplitMix64. For ballast, never for keys.

use super::tensor::Block;

/// A stream of numbers that a seed determines.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 evenly distributed bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `len` times 1 or −1.
    pub(super) fn signs(&mut self, len: usize) -> Vec<f32> {
        let mut signs = Vec::with_capacity(len);
        while signs.len() < len {
            let bits = self.bits();
            let take = (len - signs.len()).min(64);
            signs.extend((0..take).map(|bit| if bits >> bit & 1 == 1 { 1.0 } else { -1.0 }));
        }
        signs
    }

    /// 32 weights.
    pub(super) fn block(&mut self) -> Block {
        let mut block = [0.0; 32];
        for four in block.as_chunks_mut::<4>().0 {
            *four = self.weights();
        }
        block
    }

    /// Four weights, evenly distributed with standard deviation 1e-4.
    fn weights(&mut self) -> [f32; 4] {
        let [a, b, c, d, e, f, g, h] = self.bits().to_le_bytes();
        [[a, b], [c, d], [e, f], [g, h]].map(|pair| f32::from(i16::from_le_bytes(pair)) * SCALE)
    }
}

/// √3 · 1e-4 / 2¹⁵.
const SCALE: f32 = 5.285_825e-9;
