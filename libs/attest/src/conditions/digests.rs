//! Lists of digests and identities in hexadecimal.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Most entries in one list.
const MAX: usize = 256;

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

/// A list, or the word `any`: what is not looked at must be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListOrAny<const N: usize> {
    Any,
    List(List<N>),
}

impl<const N: usize> ListOrAny<N> {
    pub(super) fn check(&self, list: &'static str, value: &[u8; N]) -> Result<(), ConditionError> {
        match self {
            Self::Any => Ok(()),
            Self::List(values) => values.check(list, value),
        }
    }
}

impl<const N: usize> Serialize for ListOrAny<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::List(list) => list.serialize(serializer),
        }
    }
}

impl<'de, const N: usize> Deserialize<'de> for ListOrAny<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Word(String),
            List(Vec<String>),
        }
        match Form::deserialize(deserializer)? {
            Form::Word(word) if word == "any" => Ok(Self::Any),
            Form::Word(_) => Err(D::Error::custom("neither a list nor the word any")),
            Form::List(texts) => {
                let values = serde::de::value::SeqDeserializer::new(texts.into_iter());
                List::deserialize(values).map(Self::List)
            }
        }
    }
}
