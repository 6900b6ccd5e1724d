//! QEMU's `key=value,key=value`, in which a doubled comma stands for one.

/// Keys with their values, in order, each key once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyVals(Vec<(String, String)>);

impl KeyVals {
    /// Reads a text; a first element without `=` is the value of `implied`. The error is the reason.
    pub(super) fn parse(text: &str, implied: &str) -> Result<Self, &'static str> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (index, element) in split(text).into_iter().enumerate() {
            let (key, value) = match element.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None if index == 0 => (implied.to_owned(), element),
                None => return Err("an element without ="),
            };
            if key.is_empty() {
                return Err("an empty key");
            }
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err("a key more than once");
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a key.
    pub(super) fn find(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(other, _)| other == key)
            .map(|(_, value)| value.as_str())
    }

    /// All keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }
}

/// Splits at single commas, and makes one of two.
fn split(text: &str) -> Vec<String> {
    let mut elements = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            elements.push(String::new());
        } else if let Some(element) = elements.last_mut() {
            element.push(character);
        }
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
        KeyVals::parse(text, "type").map(|values| values.0)
    }

    #[test]
    fn elements_and_commas() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(pairs("q35,a=b"), Ok(vec![pair("type", "q35"), pair("a", "b")]));
        assert_eq!(pairs("a=x,,y,,,,z,b=="), Ok(vec![pair("a", "x,y,,z"), pair("b", "=")]));
        assert_eq!(pairs("a=x,,,b=y"), Ok(vec![pair("a", "x,"), pair("b", "y")]));
        assert_eq!(pairs(""), Ok(vec![pair("type", "")]));
        assert_eq!(pairs("a=b,"), Err("an element without ="));
        assert_eq!(pairs("a=b,c"), Err("an element without ="));
        assert_eq!(pairs("q35,type=q35"), Err("a key more than once"));
        assert_eq!(pairs("=b"), Err("an empty key"));
    }
}
