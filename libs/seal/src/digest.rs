//! `sha256:<hex>` of a plaintext, as private options carry it.
use std::fmt;
use std::str::FromStr;

/// SHA-256 of a layer before it was encrypted; written `sha256:<64 hex digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlainDigest(pub [u8; 32]);

impl fmt::Display for PlainDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl FromStr for PlainDigest {
    type Err = PlainDigestError;

    fn from_str(text: &str) -> Result<Self, PlainDigestError> {
        let digits = text.strip_prefix("sha256:").ok_or(PlainDigestError)?;
        if digits.len() != 64 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(PlainDigestError);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| PlainDigestError)?;
        Ok(Self(bytes))
    }
}

/// Not `sha256:` and 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is written sha256: and 64 lower-case hex digits")]
pub struct PlainDigestError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_refusals() {
        let text = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(text.parse::<PlainDigest>().unwrap().to_string(), text);
        for bad in [
            "",
            "sha256:",
            &text[..70],
            &format!("{text}0"),
            &text.to_uppercase(),
            &text.replace("256", "512"),
        ] {
            assert_eq!(bad.parse::<PlainDigest>(), Err(PlainDigestError), "{bad}");
        }
    }
}
