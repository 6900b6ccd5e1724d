//! Where a sealed file belongs: model name, path in the model, version.
//!
//! The three are the associated data of the sealing, so a file that was sealed for one place does not open at another
//! (threats T5 and T16). Every field stands behind its length: no two places give the same bytes. When a model is
//! opened they come from the measured policy, never from the manifest.

/// The longest name or path, in bytes.
pub const MAX_FIELD: usize = 4096;

/// The associated data of the file at `path` in version `version` of the model `name`:
/// `"cella-seal-v1" || u32 BE len || name || u32 BE len || path || u32 BE 8 || u64 BE version`.
///
/// `name` is the artifact's name as the policy has it, without registry host and tag.
///
/// # Errors
/// When name or path is empty or longer than [`MAX_FIELD`].
pub fn associated_data(name: &str, path: &str, version: u64) -> Result<Vec<u8>, PlaceError> {
    let mut out = Vec::with_capacity(DOMAIN.len() + 4 + name.len() + 4 + path.len() + 4 + 8);
    out.extend_from_slice(DOMAIN);
    push_field(&mut out, "name", name.as_bytes())?;
    push_field(&mut out, "path", path.as_bytes())?;
    push_field(&mut out, "version", &version.to_be_bytes())?;
    Ok(out)
}

/// Why a place cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// A field is empty.
    #[error("the {field} of a sealed file must not be empty")]
    Empty {
        /// `name` or `path`.
        field: &'static str,
    },
    /// A field is too long.
    #[error("the {field} of a sealed file has {length} bytes, more than {MAX_FIELD}")]
    TooLong {
        /// `name` or `path`.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
    },
}

fn push_field(out: &mut Vec<u8>, field: &'static str, value: &[u8]) -> Result<(), PlaceError> {
    let length = value.len();
    match u32::try_from(length) {
        Ok(0) => Err(PlaceError::Empty { field }),
        Ok(len) if length <= MAX_FIELD => {
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(value);
            Ok(())
        }
        _ => Err(PlaceError::TooLong { field, length }),
    }
}

const DOMAIN: &[u8] = b"cella-seal-v1";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn known_answer() {
        let data = associated_data("models/demo", "model.safetensors", 7).unwrap();
        assert_eq!(
            hex::encode(data),
            "63656c6c612d7365616c2d76310000000b6d6f64656c732f64656d6f000000116d6f64656c2e7361666574656e736f727300\
             0000080000000000000007"
        );
    }

    #[test]
    fn distinct_places_have_distinct_data() {
        let fields = ["a", "aa", "a\0", "\0a", "a\0\0\0\x01a", "\0\0\0\x01", "cella-seal-v1"];
        let mut seen = HashSet::new();
        for name in fields {
            for path in fields {
                for version in [0, 1, 8, 1 << 32, u64::MAX] {
                    assert!(
                        seen.insert(associated_data(name, path, version).unwrap()),
                        "{name:?} {path:?} {version}"
                    );
                }
            }
        }
    }

    #[test]
    fn refuses_empty_and_long_fields() {
        let long = "x".repeat(MAX_FIELD + 1);
        assert_eq!(associated_data("", "p", 1), Err(PlaceError::Empty { field: "name" }));
        assert_eq!(associated_data("n", "", 1), Err(PlaceError::Empty { field: "path" }));
        assert_eq!(
            associated_data(&long, "p", 1),
            Err(PlaceError::TooLong {
                field: "name",
                length: 4097
            })
        );
        assert!(associated_data("n", &long[1..], 1).is_ok());
    }
}
