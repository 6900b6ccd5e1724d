//! `key = "any"` or `key = VALUE`, as it stands in a file.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

/// A word such as `any` in place of a value. Which words there are is the validated type's business.
///
/// Errors of the value keep their own words: an unknown key in a table is named, a wrong type says which one it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<T> {
    /// A word.
    Word(String),
    /// A value: never a text.
    Value(T),
}

impl<T> Choice<T> {
    /// The word, by which every value is allowed.
    pub fn any() -> Self {
        Self::Word(ANY.to_owned())
    }
}

impl<T: Default> Default for Choice<T> {
    fn default() -> Self {
        Self::Value(T::default())
    }
}

impl<T: Serialize> Serialize for Choice<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Word(word) => serializer.serialize_str(word),
            Self::Value(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Choice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ChoiceVisitor(PhantomData))
    }
}

struct ChoiceVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ChoiceVisitor<T> {
    type Value = Choice<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word or a value")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Self::Value, E> {
        Ok(Choice::Word(word.to_owned()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Choice::Value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Choice::Value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Choice::Value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(list)).map(Choice::Value)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(table)).map(Choice::Value)
    }
}

/// The word that allows everything.
pub(crate) const ANY: &str = "any";

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File<T> {
        key: Choice<T>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Table {
        number: u32,
    }

    fn read<T: for<'de> Deserialize<'de>>(value: &str) -> Result<Choice<T>, String> {
        let text = format!("key = {value}");
        let file: Result<File<T>, _> = toml::from_str(&text);
        file.map(|file| file.key).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn words_and_values_are_told_apart() {
        assert_eq!(read::<u32>("\"any\""), Ok(Choice::any()));
        assert_eq!(read::<u32>("7"), Ok(Choice::Value(7)));
        assert_eq!(read::<bool>("true"), Ok(Choice::Value(true)));
        assert_eq!(read::<Vec<String>>("[\"a\"]"), Ok(Choice::Value(vec!["a".to_owned()])));
        assert_eq!(read::<Table>("{ number = 1 }"), Ok(Choice::Value(Table { number: 1 })));
    }

    #[test]
    fn errors_keep_the_words_of_the_value() {
        assert!(
            read::<Table>("{ number = 1, more = 2 }")
                .unwrap_err()
                .contains("`more`")
        );
        assert!(read::<u32>("-1").unwrap_err().contains("-1"));
        assert!(read::<Vec<String>>("5").unwrap_err().contains("sequence"));
        assert!(read::<bool>("1.5").unwrap_err().contains("1.5"));
    }

    #[test]
    fn both_are_written_as_they_are_read() {
        for (choice, text) in [(Choice::any(), "key = \"any\"\n"), (Choice::Value(7_u32), "key = 7\n")] {
            assert_eq!(toml::to_string(&File { key: choice }).unwrap(), text);
        }
    }
}
