//! What says which model it is that a guest runs.

use std::fmt;
use std::str::FromStr;

use crate::names::NameError;

/// What says which model it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Provenance {
    /// Whoever has the key sealed it for this name, path and version.
    #[default]
    Sealed,
    /// The guest computes a digest of the plaintext before anybody sees it, and says so in its boot record; one that is given here must be
    /// the same.
    Digest(Option<ModelDigest>),
}

/// BLAKE3 of what `b3sum` prints for a model's sealed files, in the order of their paths; written `blake3:<64 hex digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelDigest(pub [u8; 32]);

impl fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", hex::encode(self.0))
    }
}

impl FromStr for ModelDigest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError::new("model digest", text, "must be blake3: and 64 lower-case hex digits");
        let digits = text.strip_prefix("blake3:").ok_or_else(error)?;
        let mut bytes = [0; 32];
        if digits.len() != 64 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(error());
        }
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| error())?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_refusals() {
        let text = format!("blake3:{}", "0a".repeat(32));
        assert_eq!(text.parse::<ModelDigest>().unwrap().to_string(), text);
        for bad in [
            "",
            "blake3:",
            &text[..70],
            &format!("{text}0"),
            &text.to_uppercase(),
            &text.replace("blake3", "sha256"),
        ] {
            assert!(bad.parse::<ModelDigest>().is_err(), "{bad}");
        }
    }
}
