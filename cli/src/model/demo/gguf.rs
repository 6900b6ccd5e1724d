//! GGUF version 3, little-endian: key-values, tensor descriptions, tensors, each aligned to 32 bytes.

use std::io::{self, Write};

use super::storage::Storage;
use super::tensor::Tensor;

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

/// Writes the whole file and returns its length.
pub(super) fn write(
    out: &mut impl Write,
    header: &Header,
    tensors: &[Tensor<'_>],
    matrices: Storage,
) -> io::Result<u64> {
    let mut head = Vec::new();
    head.extend_from_slice(b"GGUF");
    put_u32(&mut head, VERSION);
    put_len(&mut head, tensors.len());
    put_u64(&mut head, header.count);
    head.extend_from_slice(&header.bytes);
    let mut offset = 0;
    for tensor in tensors {
        put_text(&mut head, &tensor.name);
        put_u32(&mut head, if tensor.rows.is_some() { 2 } else { 1 });
        // Innermost first.
        put_u64(&mut head, tensor.columns.into());
        if let Some(rows) = tensor.rows {
            put_u64(&mut head, rows.into());
        }
        put_u32(&mut head, tensor.storage(matrices).tensor_type());
        put_u64(&mut head, offset);
        offset += tensor.bytes(matrices).next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT_LEN), 0);
    out.write_all(&head)?;
    for tensor in tensors {
        tensor.write(out, matrices)?;
        let padding = tensor.bytes(matrices).next_multiple_of(ALIGNMENT) - tensor.bytes(matrices);
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
