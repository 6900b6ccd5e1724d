//! Content digests.
use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A SHA-256 digest, written `sha256:<64 lower-case hex digits>`. No other algorithm is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut verifier = Verifier::new();
        verifier.update(bytes);
        verifier.digest()
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits, without `sha256:`.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Checks that `bytes` have this digest.
    ///
    /// # Errors
    /// When they have another.
    pub fn check(&self, bytes: &[u8]) -> Result<(), DigestMismatch> {
        let mut verifier = Verifier::new();
        verifier.update(bytes);
        verifier.finish(self)
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = text.strip_prefix("sha256:").ok_or(DigestError)?;
        if digits.len() != 64 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(DigestError);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| DigestError)?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Not a SHA-256 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is written sha256: and 64 lower-case hex digits")]
pub struct DigestError;

/// SHA-256 over content as it streams past.
#[derive(Clone)]
#[must_use = "content that was not finished was not checked"]
pub struct Verifier {
    context: Context,
    length: u64,
}

impl Verifier {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self {
            context: Context::new(&SHA256),
            length: 0,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.length = self.length.saturating_add(bytes.len() as u64);
    }

    /// Bytes seen so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Compares what was seen with what was wanted.
    ///
    /// # Errors
    /// When they differ.
    pub fn finish(self, expected: &Digest) -> Result<(), DigestMismatch> {
        let length = self.length;
        let found = self.digest();
        if found == *expected {
            Ok(())
        } else {
            Err(DigestMismatch {
                expected: *expected,
                found,
                length,
            })
        }
    }

    /// The digest of what was seen.
    pub fn digest(self) -> Digest {
        let mut bytes = [0; 32];
        bytes
            .iter_mut()
            .zip(self.context.finish().as_ref())
            .for_each(|(to, from)| *to = *from);
        Digest(bytes)
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

/// Content that is not what its digest says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("content of {length} bytes has digest {found}, wanted is {expected}")]
pub struct DigestMismatch {
    /// The digest that was wanted.
    pub expected: Digest,
    /// The digest of what came.
    pub found: Digest,
    /// How many bytes came.
    pub length: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_refusals() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Digest::of(b"")));
        let bad = [
            "",
            "sha256:",
            "sha512:00",
            &empty[..70],
            &empty.to_uppercase(),
            &empty.replace(':', "-"),
        ];
        for text in bad {
            assert_eq!(text.parse::<Digest>(), Err(DigestError), "{text}");
        }
    }

    #[test]
    fn a_verifier_names_both_digests() {
        let mut verifier = Verifier::new();
        verifier.update(b"ab");
        verifier.update(b"c");
        assert_eq!(verifier.clone().finish(&Digest::of(b"abc")), Ok(()));
        let error = verifier.finish(&Digest::of(b"abd")).unwrap_err();
        assert_eq!(
            error,
            DigestMismatch {
                expected: Digest::of(b"abd"),
                found: Digest::of(b"abc"),
                length: 3
            }
        );
    }
}
