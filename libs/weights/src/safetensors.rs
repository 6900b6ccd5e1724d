//! safetensors: a length, a JSON object that names the tensors, their data without gaps; and the index of several such files.
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use crate::error::cut;
use crate::{Tally, WeightsError};

#[cfg(test)]
mod tests;

/// What a header says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Names of its tensors.
    pub names: Vec<String>,
    /// Their types.
    pub tally: Tally,
}

/// Reads the header of a file of `file_len` bytes, and checks that its tensors follow one another without gap or overlap to
/// the file's very end.
///
/// # Errors
/// [`WeightsError`].
pub fn read(mut from: impl Read, file_len: u64) -> Result<Header, WeightsError> {
    let format = "safetensors";
    let mut length = [0; 8];
    from.read_exact(&mut length).map_err(failed)?;
    let length = u64::from_le_bytes(length);
    // The format's own library has the same bound. Any other file's first bytes are beyond it.
    if !(2..=MAX_SAFETENSORS_HEADER).contains(&length) {
        return Err(WeightsError::Magic { format });
    }
    let data = length + 8;
    if data > file_len {
        return Err(WeightsError::HeaderCut);
    }
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.first() {
        Some(b'{') if bytes.len() as u64 == length => {}
        Some(b'{') | None => return Err(WeightsError::HeaderCut),
        Some(_) => return Err(WeightsError::Magic { format }),
    }
    let entries: Entries = serde_json::from_slice(&bytes).map_err(|source| WeightsError::Json { source })?;
    let mut header = Header::default();
    let mut spans = Vec::with_capacity(entries.0.len());
    for (name, entry) in entries.0 {
        let bad = |problem| WeightsError::Tensor {
            name: cut(&name),
            problem,
        };
        let elements = entry
            .shape
            .iter()
            .try_fold(1_u64, |product, side| product.checked_mul(*side));
        let elements = elements.ok_or_else(|| bad("has more elements than can be"))?;
        let [start, end] = entry.data_offsets;
        let found = end.checked_sub(start).ok_or_else(|| bad("ends before it starts"))?;
        let kind = match kind(&entry.dtype) {
            Some((kind, bits)) => {
                let expected = u128::from(elements) * u128::from(bits);
                if expected != u128::from(found) * 8 {
                    return Err(bad("has another length than its shape and type say"));
                }
                kind
            }
            None => "other",
        };
        header.tally.add(kind, elements);
        spans.push((start, end));
        header.names.push(name);
    }
    spans.sort_unstable();
    let mut reached = 0;
    for (start, end) in spans {
        if start != reached {
            return Err(WeightsError::Malformed {
                what: "tensors with gaps or overlaps",
            });
        }
        reached = end;
    }
    match data.checked_add(reached) {
        Some(expected) if expected == file_len => Ok(header),
        expected => Err(WeightsError::Length {
            expected: expected.unwrap_or(u64::MAX),
            found: file_len,
        }),
    }
}

/// `*.safetensors.index.json`: which tensor is in which file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Index {
    /// File by tensor.
    pub weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// When it is too long, malformed, empty, or names a file that is no plain name.
    pub fn parse(bytes: &[u8]) -> Result<Self, WeightsError> {
        let found = bytes.len() as u64;
        if found > MAX_SAFETENSORS_HEADER {
            return Err(WeightsError::TooMuch {
                what: "the index's length",
                found,
                limit: MAX_SAFETENSORS_HEADER,
            });
        }
        let index: Self = serde_json::from_slice(bytes).map_err(|source| WeightsError::Json { source })?;
        if index.weight_map.is_empty() {
            return Err(WeightsError::Malformed {
                what: "no tensor, an index",
            });
        }
        let plain = |file: &String| !file.contains(['/', '\\', '\0']) && !file.starts_with('.');
        if !index.weight_map.values().all(plain) {
            return Err(WeightsError::Malformed { what: "a file's name" });
        }
        Ok(index)
    }
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// All members but `__metadata__`, none twice.
struct Entries(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else if let Some(_twice) = entries.insert(name, map.next_value()?) {
                        return Err(serde::de::Error::custom("a tensor stands there twice"));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Name and bits of a type.
fn kind(dtype: &str) -> Option<(&'static str, u32)> {
    Some(match dtype {
        "F64" => ("fp64", 64),
        "F32" => ("fp32", 32),
        "F16" => ("fp16", 16),
        "BF16" => ("bf16", 16),
        "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => ("fp8", 8),
        "F4" => ("fp4", 4),
        "I64" => ("int64", 64),
        "I32" => ("int32", 32),
        "I16" => ("int16", 16),
        "I8" => ("int8", 8),
        "U64" => ("uint64", 64),
        "U32" => ("uint32", 32),
        "U16" => ("uint16", 16),
        "U8" => ("uint8", 8),
        "BOOL" => ("bool", 8),
        _ => return None,
    })
}

fn failed(source: io::Error) -> WeightsError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => WeightsError::HeaderCut,
        _ => WeightsError::Read { source },
    }
}

/// The longest header that the format's own library reads.
pub const MAX_SAFETENSORS_HEADER: u64 = 100_000_000;
