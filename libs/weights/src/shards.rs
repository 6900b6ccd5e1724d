//! Names of files that are one of several: `model-00001-of-00003.gguf`.
use std::collections::{BTreeMap, BTreeSet};

/// `<prefix>-<number>-of-<count>.<extension>`, both numbers of five digits, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardName {
    /// What stands in front of `-00001-of-`.
    pub prefix: String,
    /// Its number, from 1.
    pub number: u32,
    /// How many there are.
    pub count: u32,
    /// `gguf` or `safetensors`.
    pub extension: String,
}

impl ShardName {
    /// Reads a file's name. `None` for a file that stands alone.
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        let (front, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = front.rsplit_once('-')?;
        let five = |text: &str| match text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<u32>().ok(),
            false => None,
        };
        let (number, count) = (five(number)?, five(count)?);
        (1..=count).contains(&number).then(|| Self {
            prefix: prefix.to_owned(),
            number,
            count,
            extension: extension.to_owned(),
        })
    }

    /// The name of another of them.
    pub fn sibling(&self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.{}", self.prefix, self.count, self.extension)
    }
}

/// Checks that whatever of `names`, files of one folder, is one of several has all its siblings there.
///
/// # Errors
/// [`ShardError`], with the first that is missing.
pub fn check_shards<'n>(names: impl Iterator<Item = &'n str>) -> Result<(), ShardError> {
    let mut sets: BTreeMap<(String, u32, String), BTreeSet<u32>> = BTreeMap::new();
    for shard in names.filter_map(ShardName::parse) {
        let key = (shard.prefix, shard.count, shard.extension);
        sets.entry(key).or_default().insert(shard.number);
    }
    for ((prefix, count, extension), numbers) in sets {
        if let Some(number) = (1..=count).find(|number| !numbers.contains(number)) {
            let shard = ShardName {
                prefix,
                number,
                count,
                extension,
            };
            return Err(ShardError {
                missing: shard.sibling(number),
                found: numbers.len(),
                count,
            });
        }
    }
    Ok(())
}

/// One of several files is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{missing} is not there: {found} of {count} parts are")]
pub struct ShardError {
    /// The first that is missing.
    pub missing: String,
    /// How many are there.
    pub found: usize,
    /// How many there should be.
    pub count: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_exactly() {
        let shard = ShardName::parse("a-b-00002-of-00003.gguf").unwrap();
        assert_eq!((shard.prefix.as_str(), shard.number, shard.count), ("a-b", 2, 3));
        assert_eq!(shard.sibling(3), "a-b-00003-of-00003.gguf");
        for name in [
            "model.gguf",
            "a-00000-of-00003.gguf",
            "a-00004-of-00003.gguf",
            "a-1-of-3.gguf",
            "a-000001-of-000003.gguf",
            "a-00001-of-00003",
            "00001-of-00003.gguf",
            "a-0000x-of-00003.gguf",
        ] {
            assert_eq!(ShardName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let check = |names: &[&str]| check_shards(names.iter().copied());
        check(&["a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "b.gguf"]).unwrap();
        let error = check(&["a-00003-of-00003.gguf", "a-00001-of-00003.gguf"]).unwrap_err();
        assert_eq!(
            (error.missing.as_str(), error.found, error.count),
            ("a-00002-of-00003.gguf", 2, 3)
        );
        // Another count is another set; and a count of 99999 costs nothing.
        assert!(check(&["a-00001-of-00002.gguf", "a-00002-of-99999.gguf"]).is_err());
    }
}
