//! GGUF, versions 2 and 3: key-value pairs, then the list of tensors, then their data, aligned.
use std::io::{self, Read};

use crate::error::cut;
use crate::{Tally, WeightsError};

mod kinds;
#[cfg(test)]
mod tests;

/// What a header says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// `general.architecture`: `llama`, …
    pub architecture: Option<String>,
    /// `general.file_type`, as llama.cpp names it: `q4_k_m`, …; `None` for unquantised files.
    pub quantization: Option<&'static str>,
    /// `split.no`, from 0, and `split.count`, of a file that is one of several.
    pub split: Option<(u64, u64)>,
    /// Its tensors.
    pub tally: Tally,
}

/// Reads the header of a file of `file_len` bytes and checks that the file is long enough for its tensors. `from` should be
/// buffered.
///
/// # Errors
/// [`WeightsError`]. Bytes behind the last tensor are taken for padding.
pub fn read(from: impl Read, file_len: u64) -> Result<Header, WeightsError> {
    let mut input = Input {
        from,
        at: 0,
        limit: file_len,
    };
    if input.array::<4>()? != *b"GGUF" {
        return Err(WeightsError::Magic { format: "GGUF" });
    }
    let version = input.u32()?;
    if !(2..=3).contains(&version) {
        return Err(WeightsError::Version { found: version });
    }
    let tensors = input.count("the number of tensors", MAX_TENSORS)?;
    let pairs = input.count("the number of key-value pairs", MAX_PAIRS)?;
    let mut header = Header::default();
    let (mut alignment, mut split) = (32, (None, None));
    for _ in 0..pairs {
        let key = input.text("the length of a key", MAX_KEY)?;
        let value = input.value()?;
        match (key.as_str(), value) {
            ("general.architecture", Value::Text(text)) => header.architecture = Some(cut(&text)),
            ("general.file_type", Value::Number(kind)) => header.quantization = kinds::file_type(kind),
            ("general.alignment", Value::Number(bytes)) => alignment = bytes,
            ("split.no", Value::Number(number)) => split.0 = Some(number),
            ("split.count", Value::Number(count)) => split.1 = Some(count),
            _ => {}
        }
    }
    header.split = split.0.zip(split.1).filter(|(_, count)| *count > 1);
    if !alignment.is_power_of_two() || !(8..=MAX_ALIGNMENT).contains(&alignment) {
        return Err(WeightsError::Malformed { what: "an alignment" });
    }
    let mut end = 0;
    for _ in 0..tensors {
        end = end.max(tensor(&mut input, &mut header.tally)?);
    }
    let expected = input
        .at
        .checked_next_multiple_of(alignment)
        .and_then(|data| data.checked_add(end));
    match expected {
        // A file without tensors (a vocabulary) needs no data and no padding.
        Some(expected) if tensors > 0 && expected > file_len => Err(WeightsError::Length {
            expected,
            found: file_len,
        }),
        Some(_) => Ok(header),
        None => Err(WeightsError::Length {
            expected: u64::MAX,
            found: file_len,
        }),
    }
}

/// Reads one entry of the list; gives where its data ends, from the start of all data.
fn tensor(input: &mut Input<impl Read>, tally: &mut Tally) -> Result<u64, WeightsError> {
    let name = input.text("the length of a tensor's name", MAX_KEY)?;
    let bad = |problem| WeightsError::Tensor {
        name: cut(&name),
        problem,
    };
    let dimensions = input.u32()?;
    if dimensions > MAX_DIMENSIONS {
        return Err(bad("has too many dimensions"));
    }
    let mut elements: u64 = 1;
    for _ in 0..dimensions {
        elements = elements
            .checked_mul(input.u64()?)
            .ok_or_else(|| bad("has more elements than can be"))?;
    }
    let kind = kinds::tensor_type(input.u32()?);
    let offset = input.u64()?;
    // A type that is not known here is counted, and its length is not checked.
    let Some(kind) = kind else {
        tally.add("other", elements);
        return Ok(offset);
    };
    tally.add(kind.name, elements);
    let bytes = elements.div_ceil(kind.block).checked_mul(kind.bytes);
    bytes
        .and_then(|bytes| offset.checked_add(bytes))
        .ok_or_else(|| bad("lies behind every end of a file"))
}

enum Value {
    Number(u64),
    Text(String),
    Other,
}

/// Little-endian input that knows how far it is and where the file ends.
struct Input<R> {
    from: R,
    at: u64,
    limit: u64,
}

impl<R: Read> Input<R> {
    /// Claims the next bytes of the header.
    fn claim(&mut self, bytes: u64) -> Result<(), WeightsError> {
        let at = self
            .at
            .checked_add(bytes)
            .filter(|at| *at <= self.limit)
            .ok_or(WeightsError::HeaderCut)?;
        if at > MAX_HEADER {
            return Err(WeightsError::TooMuch {
                what: "the header's length",
                found: at,
                limit: MAX_HEADER,
            });
        }
        self.at = at;
        Ok(())
    }

    fn fill(&mut self, to: &mut [u8]) -> Result<(), WeightsError> {
        self.claim(to.len() as u64)?;
        self.from.read_exact(to).map_err(failed)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), WeightsError> {
        self.claim(bytes)?;
        let skipped = io::copy(&mut self.from.by_ref().take(bytes), &mut io::sink()).map_err(failed)?;
        if skipped == bytes {
            Ok(())
        } else {
            Err(WeightsError::HeaderCut)
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WeightsError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, WeightsError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WeightsError> {
        self.array().map(u64::from_le_bytes)
    }

    fn count(&mut self, what: &'static str, limit: u64) -> Result<u64, WeightsError> {
        match self.u64()? {
            found if found > limit => Err(WeightsError::TooMuch { what, found, limit }),
            found => Ok(found),
        }
    }

    fn text(&mut self, what: &'static str, limit: u64) -> Result<String, WeightsError> {
        let length = self.count(what, limit)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.fill(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn value(&mut self) -> Result<Value, WeightsError> {
        let kind = self.u32()?;
        match kind {
            TEXT => {
                let length = self.u64()?;
                if length > MAX_TEXT {
                    return self.skip(length).map(|()| Value::Other);
                }
                let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
                self.fill(&mut bytes)?;
                Ok(String::from_utf8(bytes).map_or(Value::Other, Value::Text))
            }
            ARRAY => {
                let kind = self.u32()?;
                let length = self.u64()?;
                match width(kind) {
                    Some(width) => {
                        let bytes = length.checked_mul(width).ok_or(WeightsError::HeaderCut)?;
                        self.skip(bytes)?;
                    }
                    // Each takes eight bytes at least, so that the end of the file ends this.
                    None if kind == TEXT => {
                        for _ in 0..length {
                            let bytes = self.u64()?;
                            self.skip(bytes)?;
                        }
                    }
                    None => {
                        return Err(WeightsError::Malformed {
                            what: "an array of a type",
                        });
                    }
                }
                Ok(Value::Other)
            }
            _ => {
                let mut bytes = [0; 8];
                let width = width(kind).ok_or(WeightsError::Malformed {
                    what: "a value of a type",
                })?;
                let (used, _) = bytes.split_at_mut(usize::try_from(width).unwrap_or(8));
                self.fill(used)?;
                let negative = used.last().is_some_and(|top| *top >= 0x80);
                // Floating-point numbers and negative ones are of no interest here.
                Ok(match kind {
                    0 | 2 | 4 | 10 => Value::Number(u64::from_le_bytes(bytes)),
                    1 | 3 | 5 | 11 if !negative => Value::Number(u64::from_le_bytes(bytes)),
                    _ => Value::Other,
                })
            }
        }
    }
}

/// Bytes of a value of fixed length.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn failed(source: io::Error) -> WeightsError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => WeightsError::HeaderCut,
        _ => WeightsError::Read { source },
    }
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;
/// Vocabularies and merges of the largest models have a tenth of it.
const MAX_HEADER: u64 = 256 << 20;
const MAX_TENSORS: u64 = 1 << 20;
const MAX_PAIRS: u64 = 1 << 16;
const MAX_KEY: u64 = 65_535;
/// Longer texts (chat templates) are skipped.
const MAX_TEXT: u64 = 1024;
const MAX_DIMENSIONS: u32 = 8;
const MAX_ALIGNMENT: u64 = 1 << 20;
