//! The forward pass of a llama model up to its output head, in f32.

use anyhow::{Result, ensure};

use crate::gguf::{Gguf, Matrix};

/// The model without its head.
pub(crate) struct Llama {
    shape: Shape,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Matrix,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    width: usize,
    heads: usize,
    kv_heads: usize,
    head_width: usize,
    rope_width: usize,
    rope_base: f32,
    epsilon: f32,
}

struct Layer {
    attn_norm: Matrix,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    out: Matrix,
    ffn_norm: Matrix,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

impl Llama {
    pub(crate) fn of(model: &Gguf, vocabulary: usize) -> Result<Self> {
        let architecture = model.text("general.architecture")?;
        ensure!(
            architecture == "llama",
            "the model's architecture is {architecture}; llama is trained here"
        );
        let count = |key: &str| model.count(&format!("llama.{key}"));
        let (width, heads) = (count("embedding_length")?, count("attention.head_count")?);
        let kv_heads = count("attention.head_count_kv").unwrap_or(heads);
        ensure!(
            heads > 0 && kv_heads > 0 && width.is_multiple_of(heads) && heads.is_multiple_of(kv_heads),
            "{heads} heads of {kv_heads} do not make a width of {width}"
        );
        let head_width = width / heads;
        let shape = Shape {
            width,
            heads,
            kv_heads,
            head_width,
            rope_width: count("rope.dimension_count").unwrap_or(head_width).min(head_width) / 2 * 2,
            rope_base: single(model.number("llama.rope.freq_base").unwrap_or(10_000.0)),
            epsilon: single(model.number("llama.attention.layer_norm_rms_epsilon")?),
        };
        let (blocks, feed) = (count("block_count")?, count("feed_forward_length")?);
        ensure!(blocks <= 256, "{blocks} blocks are too many");
        let kv = kv_heads * head_width;
        let layer = |number: usize| -> Result<Layer> {
            let matrix =
                |part: &str, rows, columns| model.matrix(&format!("blk.{number}.{part}.weight"), rows, columns);
            Ok(Layer {
                attn_norm: matrix("attn_norm", 1, width)?,
                q: matrix("attn_q", width, width)?,
                k: matrix("attn_k", kv, width)?,
                v: matrix("attn_v", kv, width)?,
                out: matrix("attn_output", width, width)?,
                ffn_norm: matrix("ffn_norm", 1, width)?,
                gate: matrix("ffn_gate", feed, width)?,
                up: matrix("ffn_up", feed, width)?,
                down: matrix("ffn_down", width, feed)?,
            })
        };
        Ok(Self {
            shape,
            embedding: model.matrix("token_embd.weight", vocabulary, width)?,
            layers: (0..blocks).map(layer).collect::<Result<_>>()?,
            norm: model.matrix("output_norm.weight", 1, width)?,
        })
    }

    pub(crate) fn width(&self) -> usize {
        self.shape.width
    }

    /// What the output head sees at each position: one row of [`Llama::width`] numbers a token.
    pub(crate) fn hidden(&self, tokens: &[usize]) -> Vec<Vec<f32>> {
        let mut rows: Vec<Vec<f32>> = tokens.iter().map(|token| self.embedding.row(*token).to_vec()).collect();
        for layer in &self.layers {
            self.attend(layer, &mut rows);
            for row in &mut rows {
                let x = self.normed(row, &layer.ffn_norm);
                let gated: Vec<f32> = layer
                    .gate
                    .times(&x)
                    .into_iter()
                    .zip(layer.up.times(&x))
                    .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                    .collect();
                add(row, &layer.down.times(&gated));
            }
        }
        rows.iter().map(|row| self.normed(row, &self.norm)).collect()
    }

    fn attend(&self, layer: &Layer, rows: &mut [Vec<f32>]) {
        let Shape {
            heads,
            kv_heads,
            head_width,
            ..
        } = self.shape;
        let (mut keys, mut values): (Vec<Vec<f32>>, Vec<Vec<f32>>) = (Vec::new(), Vec::new());
        for (position, row) in rows.iter_mut().enumerate() {
            let x = self.normed(row, &layer.attn_norm);
            let (mut q, mut k) = (layer.q.times(&x), layer.k.times(&x));
            self.rotate(&mut q, position);
            self.rotate(&mut k, position);
            keys.push(k);
            values.push(layer.v.times(&x));
            let mut seen = vec![0.0; heads * head_width];
            for (head, (query, out)) in q.chunks(head_width).zip(seen.chunks_mut(head_width)).enumerate() {
                let of = |all: &[f32]| {
                    let start = head * kv_heads / heads * head_width;
                    all.get(start..start + head_width).unwrap_or_default().to_vec()
                };
                let scale = 1.0 / (head_width as f32).sqrt();
                let scores: Vec<f32> = keys.iter().map(|key| dot(query, &of(key)) * scale).collect();
                for (weight, value) in softmax(&scores).into_iter().zip(&values) {
                    out.iter_mut()
                        .zip(of(value))
                        .for_each(|(out, value)| *out += weight * value);
                }
            }
            add(row, &layer.out.times(&seen));
        }
    }

    /// Rotary positions, pairs of neighbours.
    fn rotate(&self, vector: &mut [f32], position: usize) {
        let Shape {
            head_width,
            rope_width,
            rope_base,
            ..
        } = self.shape;
        for head in vector.chunks_mut(head_width) {
            for (pair, two) in head.as_chunks_mut::<2>().0.iter_mut().take(rope_width / 2).enumerate() {
                let angle = position as f32 * rope_base.powf(-2.0 * pair as f32 / rope_width as f32);
                let ([a, b], (sin, cos)) = (*two, angle.sin_cos());
                *two = [a * cos - b * sin, a * sin + b * cos];
            }
        }
    }

    fn normed(&self, row: &[f32], weight: &Matrix) -> Vec<f32> {
        let mean = dot(row, row) / row.len().max(1) as f32;
        let scale = 1.0 / (mean + self.shape.epsilon).sqrt();
        row.iter()
            .zip(&weight.numbers)
            .map(|(x, weight)| x * scale * weight)
            .collect()
    }
}

impl Matrix {
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        let start = row * self.columns;
        self.numbers.get(start..start + self.columns).unwrap_or_default()
    }

    /// The matrix times a column.
    pub(crate) fn times(&self, column: &[f32]) -> Vec<f32> {
        self.numbers
            .chunks(self.columns.max(1))
            .map(|row| dot(row, column))
            .collect()
    }
}

pub(crate) fn dot(one: &[f32], two: &[f32]) -> f32 {
    one.iter().zip(two).map(|(one, two)| one * two).sum()
}

pub(crate) fn softmax(scores: &[f32]) -> Vec<f32> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let raised: Vec<f32> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f32 = raised.iter().sum();
    raised.into_iter().map(|one| one / sum).collect()
}

fn add(row: &mut [f32], more: &[f32]) {
    row.iter_mut().zip(more).for_each(|(row, more)| *row += more);
}

#[allow(clippy::cast_possible_truncation, reason = "a model's own f32")]
fn single(number: f64) -> f32 {
    number as f32
}
