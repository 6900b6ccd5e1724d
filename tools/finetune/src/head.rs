//! The output head and its low-rank update: logits = W h + s·B (A h), of which A and B are learnt with Adam on softmax cross-entropy.

use crate::{
    gguf::Matrix,
    llama::{dot, softmax},
};

/// A position: what the head sees there, and the token that is to follow.
pub(crate) struct Position {
    pub(crate) hidden: Vec<f32>,
    pub(crate) next: usize,
}

/// The update.
pub(crate) struct Lora {
    a: Learnt,
    b: Learnt,
    rank: usize,
    scale: f32,
}

/// A matrix that learns: rows of `columns` numbers, with Adam's two moments.
struct Learnt {
    columns: usize,
    numbers: Vec<f32>,
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl Lora {
    /// A random A and a B of zeros: it changes nothing yet.
    pub(crate) fn new(head: &Matrix, rank: usize, seed: u64) -> Self {
        let mut noise = seed;
        let width = 1.0 / (head.columns.max(1) as f32).sqrt();
        let a = (0..rank * head.columns)
            .map(|_| uniform(&mut noise) * width * 1.732)
            .collect();
        Self {
            a: Learnt::new(head.columns, a),
            b: Learnt::new(rank, vec![0.0; head.rows * rank]),
            rank,
            scale: 2.0,
        }
    }

    /// One step over all positions; the mean loss before it. `base`: the head's own logits at each of them.
    pub(crate) fn step(&mut self, positions: &[Position], base: &[Vec<f32>], rate: f32, number: u32) -> f32 {
        let (mut grad_a, mut grad_b) = (vec![0.0; self.a.numbers.len()], vec![0.0; self.b.numbers.len()]);
        let mut loss = 0.0;
        let share = 1.0 / positions.len().max(1) as f32;
        for (position, base) in positions.iter().zip(base) {
            let low = self.a.times(&position.hidden);
            let mut wrong = softmax(&self.logits(base, &low));
            if let Some(right) = wrong.get_mut(position.next) {
                loss -= right.max(1e-37).ln() * share;
                *right -= 1.0;
            }
            let mut back = vec![0.0; self.rank];
            for (wrong, (row, grad)) in wrong.iter().zip(self.b.rows().zip(grad_b.chunks_mut(self.rank))) {
                let wrong = wrong * share * self.scale;
                for ((low, grad), (row, back)) in low.iter().zip(grad).zip(row.iter().zip(&mut back)) {
                    *grad += wrong * low;
                    *back += wrong * row;
                }
            }
            for (back, grad) in back.iter().zip(grad_a.chunks_mut(self.a.columns.max(1))) {
                grad.iter_mut()
                    .zip(&position.hidden)
                    .for_each(|(grad, hidden)| *grad += back * hidden);
            }
        }
        self.a.descend(&grad_a, rate, number);
        self.b.descend(&grad_b, rate, number);
        loss
    }

    /// The mean loss.
    pub(crate) fn loss(&self, positions: &[Position], base: &[Vec<f32>]) -> f32 {
        let losses = positions.iter().zip(base).map(|(position, base)| {
            let chances = softmax(&self.logits(base, &self.a.times(&position.hidden)));
            -chances.get(position.next).copied().unwrap_or_default().max(1e-37).ln()
        });
        let count = positions.len().max(1) as f32;
        losses.sum::<f32>() / count
    }

    /// The head with the update in it.
    pub(crate) fn merged(&self, head: &Matrix) -> Vec<f32> {
        let rows = head.numbers.chunks(head.columns.max(1)).zip(self.b.rows());
        rows.flat_map(|(row, b)| {
            let mut row = row.to_vec();
            for (b, a) in b.iter().zip(self.a.rows()) {
                row.iter_mut()
                    .zip(a)
                    .for_each(|(number, a)| *number += self.scale * b * a);
            }
            row
        })
        .collect()
    }

    fn logits(&self, base: &[f32], low: &[f32]) -> Vec<f32> {
        base.iter()
            .zip(self.b.rows())
            .map(|(base, row)| base + self.scale * dot(row, low))
            .collect()
    }
}

impl Learnt {
    fn new(columns: usize, numbers: Vec<f32>) -> Self {
        let zeros = vec![0.0; numbers.len()];
        Self {
            columns,
            mean: zeros.clone(),
            square: zeros,
            numbers,
        }
    }

    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.numbers.chunks(self.columns.max(1))
    }

    fn times(&self, column: &[f32]) -> Vec<f32> {
        self.rows().map(|row| dot(row, column)).collect()
    }

    /// Adam, with its usual constants. `number` counts from 1.
    fn descend(&mut self, grad: &[f32], rate: f32, number: u32) {
        let power = i32::try_from(number).unwrap_or(i32::MAX);
        let (one, two) = (1.0 - FIRST.powi(power), 1.0 - SECOND.powi(power));
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((value, (mean, square)), grad) in self.numbers.iter_mut().zip(moments).zip(grad) {
            *mean = FIRST * *mean + (1.0 - FIRST) * grad;
            *square = SECOND * *square + (1.0 - SECOND) * grad * grad;
            *value -= rate * (*mean / one) / ((*square / two).sqrt() + 1e-8);
        }
    }
}

/// Between −1 and 1: SplitMix64. Not for keys.
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let [a, b, ..] = (z ^ (z >> 31)).to_le_bytes();
    f32::from(i16::from_le_bytes([a, b])) / 32_768.0
}

const FIRST: f32 = 0.9;
const SECOND: f32 = 0.999;
