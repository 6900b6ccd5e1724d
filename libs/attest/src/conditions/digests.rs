//! Lists of digests and identities in hexadecimal.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Most entries in one list.
pub(super) const MAX: usize = 256;

/// Why conditions are not met, or not conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConditionError {
    /// A value is not on its list. The text names the list, nothing of its contents.
    #[error("{list} not in the rule")]
    NotListed {
        /// Which list.
        list: &'static str,
    },
    /// The verifier's own judgement under the rule's demands, as a class.
    #[error("{0}")]
    Refused(&'static str),
}

/// A list of values of `N` bytes; in JSON at most 256 strings of `2 N` hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<const N: usize>(pub Vec<[u8; N]>);

impl<const N: usize> List<N> {
    pub(super) fn check(&self, list: &'static str, value: &[u8; N]) -> Result<(), ConditionError> {
        if self.0.contains(value) {
            Ok(())
        } else {
            Err(ConditionError::NotListed { list })
        }
    }
}

impl<const N: usize> Serialize for List<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(hex::encode))
    }
}

impl<'de, const N: usize> Deserialize<'de> for List<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        if texts.len() > MAX {
            return Err(D::Error::custom(format_args!("more than {MAX} entries")));
        }
        let decode = |text: &String| {
            let mut value = [0; N];
            hex::decode_to_slice(text, &mut value)
                .map_err(|_| D::Error::custom(format_args!("not {} hexadecimal digits", 2 * N)))?;
            Ok(value)
        };
        texts.iter().map(decode).collect::<Result<_, _>>().map(Self)
    }
}
