//! GGUF as far as a llama model in f32 or f16 needs it. The file comes from a mount of the guest, complete and authentic, and is
//! bounded all the same: a model is data of whoever made it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// A model file in memory.
pub(crate) struct Gguf {
    bytes: Vec<u8>,
    values: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Place>,
}

/// A key's value; kinds that nobody asks for are passed over.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(f64),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<f64>),
}

/// Where a tensor's numbers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Innermost first: columns, rows.
    dimensions: Vec<usize>,
    kind: Kind,
    start: usize,
    end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
}

/// A matrix, row after row; a vector is one row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) numbers: Vec<f32>,
}

impl Gguf {
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self> {
        let mut input = Input { rest: &bytes };
        ensure!(input.take(4)? == b"GGUF", "the model does not begin like GGUF");
        let version = input.u32()?;
        ensure!(
            (2..=3).contains(&version),
            "GGUF of version {version}; 2 and 3 are read"
        );
        let (count, keys) = (input.count()?, input.count()?);
        let mut values = BTreeMap::new();
        for _ in 0..keys {
            let key = input.text()?;
            let kind = input.u32()?;
            values.insert(key, input.value(kind)?);
        }
        let mut described = Vec::new();
        for _ in 0..count {
            let name = input.text()?;
            let dimensions = input.u32()?;
            ensure!(
                (1..=4).contains(&dimensions),
                "tensor {name} has {dimensions} dimensions"
            );
            let dimensions = (0..dimensions).map(|_| input.count()).collect::<Result<Vec<_>>>()?;
            let (kind, offset) = (input.u32()?, input.count()?);
            described.push((name, dimensions, kind, offset));
        }
        let alignment = match values.get("general.alignment") {
            Some(Value::Number(number)) => whole(*number)?.max(1),
            _ => 32,
        };
        let data = (bytes.len() - input.rest.len()).next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for (name, dimensions, kind, offset) in described {
            let place = Place::of(&dimensions, kind, data, offset).with_context(|| format!("tensor {name}"))?;
            ensure!(
                place.end <= bytes.len(),
                "tensor {name} goes on behind the end of the file"
            );
            tensors.insert(name, place);
        }
        Ok(Self { bytes, values, tensors })
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64> {
        match self.values.get(key) {
            Some(Value::Number(number)) => Ok(*number),
            _ => bail!("the model has no number {key}"),
        }
    }

    pub(crate) fn count(&self, key: &str) -> Result<usize> {
        whole(self.number(key)?)
    }

    pub(crate) fn text(&self, key: &str) -> Result<&str> {
        match self.values.get(key) {
            Some(Value::Text(text)) => Ok(text),
            _ => bail!("the model has no text {key}"),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<&[String]> {
        match self.values.get(key) {
            Some(Value::Texts(texts)) => Ok(texts),
            _ => bail!("the model has no texts {key}"),
        }
    }

    pub(crate) fn numbers(&self, key: &str) -> Result<&[f64]> {
        match self.values.get(key) {
            Some(Value::Numbers(numbers)) => Ok(numbers),
            _ => bail!("the model has no numbers {key}"),
        }
    }

    /// A tensor of `rows` rows and `columns` columns, in f32.
    pub(crate) fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        let place = self.place(name)?;
        let found = (
            place.dimensions.get(1).copied().unwrap_or(1),
            place.dimensions.first().copied().unwrap_or(1),
        );
        ensure!(
            found == (rows, columns) && place.dimensions.len() <= 2,
            "tensor {name} is {} x {}, not {rows} x {columns}",
            found.0,
            found.1
        );
        let bytes = self.bytes.get(place.start..place.end).unwrap_or_default();
        let numbers = match place.kind {
            Kind::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|four| f32::from_le_bytes(*four))
                .collect(),
            Kind::F16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|two| widened(u16::from_le_bytes(*two)))
                .collect(),
        };
        Ok(Matrix { rows, columns, numbers })
    }

    /// The file with one tensor's numbers replaced, in the type that it has there.
    pub(crate) fn with(mut self, name: &str, numbers: &[f32]) -> Result<Vec<u8>> {
        let place = self.place(name)?.clone();
        let bytes: Vec<u8> = match place.kind {
            Kind::F32 => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Kind::F16 => numbers
                .iter()
                .flat_map(|number| narrowed(*number).to_le_bytes())
                .collect(),
        };
        let old = self.bytes.get_mut(place.start..place.end).unwrap_or_default();
        ensure!(old.len() == bytes.len(), "tensor {name} would change its size");
        old.copy_from_slice(&bytes);
        Ok(self.bytes)
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.tensors
            .get(name)
            .with_context(|| format!("the model has no tensor {name}"))
    }
}

impl Place {
    fn of(dimensions: &[usize], kind: u32, data: usize, offset: usize) -> Result<Self> {
        let (kind, width) = match kind {
            0 => (Kind::F32, 4),
            1 => (Kind::F16, 2),
            other => bail!("is of type {other}: f32 and f16 are read"),
        };
        let bytes = dimensions
            .iter()
            .try_fold(width, |bytes: usize, side| bytes.checked_mul(*side))
            .context("has more numbers than can be")?;
        let start = data.checked_add(offset).context("begins nowhere")?;
        Ok(Self {
            dimensions: dimensions.to_vec(),
            kind,
            start,
            end: start.checked_add(bytes).context("ends nowhere")?,
        })
    }
}

/// What is left of the header.
struct Input<'b> {
    rest: &'b [u8],
}

impl<'b> Input<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8]> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .context("the model's header is cut short")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A length or a number of things, which is at most as large as what is left could hold, or an offset in the file.
    fn count(&mut self) -> Result<usize> {
        let count = usize::try_from(u64::from_le_bytes(self.array()?))?;
        ensure!(count <= MAX_COUNT, "{count} is too large");
        Ok(count)
    }

    fn text(&mut self) -> Result<String> {
        let length = self.count()?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn value(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            STRING => Value::Text(self.text()?),
            ARRAY => {
                let (element, count) = (self.u32()?, self.count()?);
                if element == STRING {
                    Value::Texts((0..count).map(|_| self.text()).collect::<Result<_>>()?)
                } else {
                    Value::Numbers((0..count).map(|_| self.number(element)).collect::<Result<_>>()?)
                }
            }
            kind => Value::Number(self.number(kind)?),
        })
    }

    fn number(&mut self, kind: u32) -> Result<f64> {
        Ok(match kind {
            0 | 7 => f64::from(u8::from_le_bytes(self.array()?)),
            1 => f64::from(i8::from_le_bytes(self.array()?)),
            2 => f64::from(u16::from_le_bytes(self.array()?)),
            3 => f64::from(i16::from_le_bytes(self.array()?)),
            4 => f64::from(self.u32()?),
            5 => f64::from(i32::from_le_bytes(self.array()?)),
            6 => f64::from(f32::from_le_bytes(self.array()?)),
            10 => u64::from_le_bytes(self.array()?) as f64,
            11 => i64::from_le_bytes(self.array()?) as f64,
            12 => f64::from_le_bytes(self.array()?),
            other => bail!("a value of type {other} is not read"),
        })
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked before")]
fn whole(number: f64) -> Result<usize> {
    ensure!(
        (0.0..=1e9).contains(&number) && number.fract() == 0.0,
        "{number} is no count"
    );
    Ok(number as usize)
}

/// IEEE 754 half precision to single.
fn widened(half: u16) -> f32 {
    let (sign, exponent, fraction) = (
        u32::from(half >> 15),
        u32::from(half >> 10 & 31),
        u32::from(half & 1023),
    );
    let bits = match (exponent, fraction) {
        (0, _) => {
            let small = fraction as f32 / 16_777_216.0;
            return if sign == 1 { -small } else { small };
        }
        (31, _) => 0xff << 23 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign << 31 | bits)
}

/// Single precision to half, to the nearest; what is too large becomes infinite.
fn narrowed(number: f32) -> u16 {
    let bits = number.to_bits();
    let sign = u16::from(bits >> 31 == 1) << 15;
    let magnitude = number.abs();
    if magnitude.is_nan() {
        return sign | 0x7e00;
    }
    // Halves are in the order of their bits.
    let (mut low, mut high) = (0_u16, 0x7c00);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if widened(middle) <= magnitude {
            low = middle;
        } else {
            high = middle;
        }
    }
    // Infinity is as far from the largest number as the next number would be.
    let above = if high == 0x7c00 { 65_536.0 } else { widened(high) };
    let is_nearer = above - magnitude < magnitude - widened(low);
    sign | if is_nearer { high } else { low }
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;
/// 4 GiB of anything: more than a job of this size takes.
const MAX_COUNT: usize = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_what_they_were() {
        for half in (0..=u16::MAX).filter(|half| half >> 10 & 31 != 31) {
            assert_eq!(narrowed(widened(half)) & 0x7fff, half & 0x7fff, "{half:x}");
        }
        assert_eq!(
            (widened(0x3c00), widened(0xc000), widened(0x7c00)),
            (1.0, -2.0, f32::INFINITY)
        );
        assert_eq!((narrowed(0.1), narrowed(1e9), narrowed(-1e9)), (0x2e66, 0x7c00, 0xfc00));
    }

    #[test]
    fn no_model_and_a_model_cut_short_are_errors() {
        for bytes in [
            &b""[..],
            b"GGUF",
            b"GGML\x03\0\0\0",
            b"GGUF\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ] {
            assert!(Gguf::parse(bytes.to_vec()).is_err());
        }
        let mut huge = b"GGUF\x03\0\0\0".to_vec();
        huge.extend(u64::MAX.to_le_bytes());
        huge.extend(0_u64.to_le_bytes());
        assert!(Gguf::parse(huge).is_err());
    }
}
