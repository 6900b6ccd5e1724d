//! GGUF version 3, little-endian: key-values, tensor descriptions, tensors, each aligned to 32 bytes.

use std::io::{self, Write};

use super::noise::Noise;

/// The key-values, in order.
pub(super) struct Header {
    count: u64,
    bytes: Vec<u8>,
}

impl Header {
    pub(super) fn new() -> Self {
        Self {
            count: 0,
            bytes: Vec::new(),
        }
    }

    pub(super) fn put(&mut self, key: &str, value: Value) {
        self.count += 1;
        put_text(&mut self.bytes, key);
        value.encode(&mut self.bytes);
    }
}

/// A value. The numbers are GGUF's type codes.
pub(super) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::U32(value) => {
                put_u32(out, U32);
                put_u32(out, *value);
            }
            Self::F32(value) => {
                put_u32(out, F32);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::Bool(value) => {
                put_u32(out, BOOL);
                out.push(u8::from(*value));
            }
            Self::Text(value) => {
                put_u32(out, STRING);
                put_text(out, value);
            }
            Self::Texts(values) => {
                put_array(out, STRING, values.len());
                values.iter().for_each(|value| put_text(out, value));
            }
            Self::F32s(values) => {
                put_array(out, F32, values.len());
                values
                    .iter()
                    .for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
            }
            Self::I32s(values) => {
                put_array(out, I32, values.len());
                values
                    .iter()
                    .for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
            }
        }
    }
}

/// An F32 tensor: its name, its shape and where its numbers come from.
pub(super) struct Tensor<'a> {
    name: String,
    /// Innermost first, as GGUF counts.
    dimensions: Vec<u32>,
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
            dimensions: vec![columns, rows],
            content: Content::Numbers(numbers),
        }
    }

    pub(super) fn ones(name: impl Into<String>, len: u32) -> Self {
        Self {
            name: name.into(),
            dimensions: vec![len],
            content: Content::Ones,
        }
    }

    pub(super) fn noise(name: impl Into<String>, rows: u32, columns: u32, seed: u64) -> Self {
        Self {
            name: name.into(),
            dimensions: vec![columns, rows],
            content: Content::Noise { seed },
        }
    }

    fn numbers(&self) -> u64 {
        self.dimensions.iter().map(|dimension| u64::from(*dimension)).product()
    }

    fn bytes(&self) -> u64 {
        self.numbers() * 4
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.content {
            Content::Numbers(numbers) => numbers
                .iter()
                .try_for_each(|number| out.write_all(&number.to_le_bytes())),
            Content::Ones => (0..self.numbers()).try_for_each(|_| out.write_all(&1_f32.to_le_bytes())),
            Content::Noise { seed } => {
                let mut noise = Noise::new(*seed);
                // Widths are multiples of 32, so the count is one of 4.
                (0..self.numbers() / 4).try_for_each(|_| {
                    noise
                        .weights()
                        .iter()
                        .try_for_each(|weight| out.write_all(&weight.to_le_bytes()))
                })
            }
        }
    }
}

/// Writes the whole file and returns its length.
pub(super) fn write(out: &mut impl Write, header: &Header, tensors: &[Tensor<'_>]) -> io::Result<u64> {
    let mut head = Vec::new();
    head.extend_from_slice(b"GGUF");
    put_u32(&mut head, VERSION);
    put_len(&mut head, tensors.len());
    put_u64(&mut head, header.count);
    head.extend_from_slice(&header.bytes);
    let mut offset = 0;
    for tensor in tensors {
        put_text(&mut head, &tensor.name);
        put_u32(&mut head, u32::try_from(tensor.dimensions.len()).unwrap_or_default());
        tensor
            .dimensions
            .iter()
            .for_each(|dimension| put_u64(&mut head, u64::from(*dimension)));
        put_u32(&mut head, TENSOR_F32);
        put_u64(&mut head, offset);
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT_LEN), 0);
    out.write_all(&head)?;
    for tensor in tensors {
        tensor.write(out)?;
        let padding = tensor.bytes().next_multiple_of(ALIGNMENT) - tensor.bytes();
        (0..padding).try_for_each(|_| out.write_all(&[0]))?;
    }
    Ok(head.len() as u64 + offset)
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    put_u64(out, len as u64);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_array(out: &mut Vec<u8>, element: u32, len: usize) {
    put_u32(out, ARRAY);
    put_u32(out, element);
    put_len(out, len);
}

const VERSION: u32 = 3;
const ALIGNMENT: u64 = 32;
const ALIGNMENT_LEN: usize = 32;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const TENSOR_F32: u32 = 0;
