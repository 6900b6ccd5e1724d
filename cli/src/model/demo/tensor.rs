//! Tensors: a name, a shape, and where the numbers come from. Nothing of a size that grows with the model is held but the chain's own matrices.

use std::io::{self, Write};

use super::noise::Noise;
use super::storage::Storage;

/// So many numbers are encoded at once. Widths are multiples of it.
pub(super) type Block = [f32; 32];

/// A matrix or a vector.
pub(super) struct Tensor<'a> {
    pub(super) name: String,
    /// None: a vector of `columns` numbers.
    pub(super) rows: Option<u32>,
    pub(super) columns: u32,
    content: Content<'a>,
}

enum Content<'a> {
    Numbers(&'a [f32]),
    Ones,
    Noise { seed: u64 },
}

impl<'a> Tensor<'a> {
    pub(super) fn matrix(name: impl Into<String>, rows: u32, columns: u32, numbers: &'a [f32]) -> Self {
        Self {
            name: name.into(),
            rows: Some(rows),
            columns,
            content: Content::Numbers(numbers),
        }
    }

    pub(super) fn ones(name: impl Into<String>, len: u32) -> Self {
        Self {
            name: name.into(),
            rows: None,
            columns: len,
            content: Content::Ones,
        }
    }

    pub(super) fn noise(name: impl Into<String>, rows: u32, columns: u32, seed: u64) -> Self {
        Self {
            name: name.into(),
            rows: Some(rows),
            columns,
            content: Content::Noise { seed },
        }
    }

    /// How it is stored where matrices are stored as `matrices`.
    pub(super) fn storage(&self, matrices: Storage) -> Storage {
        if self.rows.is_some() { matrices } else { Storage::F32 }
    }

    pub(super) fn bytes(&self, matrices: Storage) -> u64 {
        self.blocks() * self.storage(matrices).block_bytes()
    }

    fn blocks(&self) -> u64 {
        u64::from(self.rows.unwrap_or(1)) * u64::from(self.columns) / 32
    }

    pub(super) fn write(&self, out: &mut impl Write, matrices: Storage) -> io::Result<()> {
        let storage = self.storage(matrices);
        let mut bytes = Vec::new();
        let mut put = |block: &Block| {
            bytes.clear();
            storage.encode(block, &mut bytes);
            out.write_all(&bytes)
        };
        match &self.content {
            Content::Numbers(numbers) => numbers.as_chunks::<32>().0.iter().try_for_each(put),
            Content::Ones => (0..self.blocks()).try_for_each(|_| put(&[1.0; 32])),
            Content::Noise { seed } => {
                let mut noise = Noise::new(*seed);
                (0..self.blocks()).try_for_each(|_| put(&noise.block()))
            }
        }
    }
}
