//! Lists of measurements: digests that are written down, and digests that a publisher signed under a name.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::digests::{ConditionError, MAX};
use crate::reference::{Measured, ReferenceName};

/// What precedes a name in a list.
const PREFIX: &str = "reference:";

/// Where the values are that a publisher signed.
pub trait Lookup {
    /// The values under a name, if they can be believed now.
    ///
    /// # Errors
    /// Why not: a class, without facts.
    fn values(&self, name: &ReferenceName, of: Measured) -> Result<Vec<[u8; 48]>, &'static str>;
}

/// No reference values at all: a list that names some is then not met by them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoReferences;

impl Lookup for NoReferences {
    fn values(&self, _: &ReferenceName, _: Measured) -> Result<Vec<[u8; 48]>, &'static str> {
        Err("reference values unknown")
    }
}

/// A list of measurements; in JSON at most 256 strings, each of 96 hexadecimal digits or `reference:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MeasurementList {
    /// Digests.
    pub values: Vec<[u8; 48]>,
    /// Names whose values are meant as they are at the time of the check.
    pub references: Vec<ReferenceName>,
}

impl MeasurementList {
    /// Reads the entries of a list.
    ///
    /// # Errors
    /// The position of the first one that is neither.
    pub fn parse(texts: &[impl AsRef<str>]) -> Result<Self, usize> {
        let mut list = Self::default();
        for (index, text) in texts.iter().enumerate() {
            let text = text.as_ref();
            if let Some(name) = text.strip_prefix(PREFIX) {
                list.references.push(name.parse().map_err(|_| index)?);
            } else {
                let mut value = [0; 48];
                hex::decode_to_slice(text, &mut value).map_err(|_| index)?;
                list.values.push(value);
            }
        }
        Ok(list)
    }

    /// The entries, as text.
    pub fn texts(&self) -> Vec<String> {
        let references = self.references.iter().map(|name| format!("{PREFIX}{name}"));
        self.values.iter().map(hex::encode).chain(references).collect()
    }

    /// Whether a value is on the list, or among the values that one of its names has now.
    ///
    /// # Errors
    /// [`ConditionError::Refused`] where it is not, and a name's values cannot be believed; else [`ConditionError::NotListed`].
    pub fn check(
        &self,
        list: &'static str,
        value: &[u8; 48],
        of: Measured,
        references: &dyn Lookup,
    ) -> Result<(), ConditionError> {
        if self.values.contains(value) {
            return Ok(());
        }
        let mut error = ConditionError::NotListed { list };
        for name in &self.references {
            match references.values(name, of) {
                Ok(values) if values.contains(value) => return Ok(()),
                Ok(_) => {}
                Err(class) => error = ConditionError::Refused(class),
            }
        }
        Err(error)
    }
}

impl Serialize for MeasurementList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.texts())
    }
}

impl<'de> Deserialize<'de> for MeasurementList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        if texts.len() > MAX {
            return Err(D::Error::custom(format_args!("more than {MAX} entries")));
        }
        Self::parse(&texts).map_err(|index| {
            D::Error::custom(format_args!(
                "entry {index} is neither 96 hexadecimal digits nor reference:<name>"
            ))
        })
    }
}

/// A list, or the word `any`: what is not looked at must be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListOrAny {
    Any,
    List(MeasurementList),
}

impl ListOrAny {
    pub(super) fn check(
        &self,
        list: &'static str,
        value: &[u8; 48],
        of: Measured,
        references: &dyn Lookup,
    ) -> Result<(), ConditionError> {
        match self {
            Self::Any => Ok(()),
            Self::List(values) => values.check(list, value, of, references),
        }
    }
}

impl Serialize for ListOrAny {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::List(list) => list.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ListOrAny {
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
                MeasurementList::deserialize(values).map(Self::List)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Known;

    impl Lookup for Known {
        fn values(&self, name: &ReferenceName, of: Measured) -> Result<Vec<[u8; 48]>, &'static str> {
            match (name.as_str(), of) {
                ("guest", Measured::Mrtd) => Ok(vec![[7; 48]]),
                ("guest", _) => Ok(Vec::new()),
                _ => Err("reference values unknown"),
            }
        }
    }

    fn list(texts: &[&str]) -> MeasurementList {
        MeasurementList::parse(texts).unwrap()
    }

    #[test]
    fn digests_and_names() {
        let one = "01".repeat(48);
        let both = list(&[&one, "reference:guest"]);
        let check = |value, of| both.check("MRTD", &value, of, &Known);
        let not_listed = Err(ConditionError::NotListed { list: "MRTD" });
        assert_eq!(check([1; 48], Measured::Mrtd), Ok(()));
        assert_eq!(check([7; 48], Measured::Mrtd), Ok(()));
        assert_eq!(check([7; 48], Measured::Rtmr1), not_listed);
        assert_eq!(check([2; 48], Measured::Mrtd), not_listed);
    }

    #[test]
    fn t28_values_that_cannot_be_believed_are_told_from_those_that_do_not_match() {
        let both = list(&["reference:gone", "reference:guest"]);
        let refused = Err(ConditionError::Refused("reference values unknown"));
        assert_eq!(both.check("MRTD", &[1; 48], Measured::Mrtd, &Known), refused);
        assert_eq!(both.check("MRTD", &[1; 48], Measured::Mrtd, &NoReferences), refused);
        // One that can be believed is enough.
        assert_eq!(both.check("MRTD", &[7; 48], Measured::Mrtd, &Known), Ok(()));
    }

    #[test]
    fn the_form_is_strict_and_round_trips() {
        let one = "01".repeat(48);
        let both = list(&["reference:guest", &one]);
        let json = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<MeasurementList>(&json).unwrap(), both);
        for bad in ["", "reference:", "reference:a b", "Reference:guest", &one[1..], "guest"] {
            assert_eq!(MeasurementList::parse(&[&one, bad]), Err(1), "{bad}");
        }
    }
}
