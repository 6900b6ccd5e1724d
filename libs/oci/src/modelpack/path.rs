//! Paths of a model's files.
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::ModelError;

/// A relative path in normal form: no empty part, no `.`, no `..`, no backslash, no control character. Joined to a
/// directory it stays below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelPath(String);

impl ModelPath {
    /// The path as text; also the `path` of a sealed file's place.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this looks like weights that hold data only: GGUF or safetensors.
    pub(super) fn is_data_only_weight(&self) -> bool {
        [".gguf", ".safetensors"].iter().any(|suffix| self.0.ends_with(suffix))
    }

    /// The directories on the way to it.
    fn parents(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').filter_map(|(at, _)| self.0.get(..at))
    }
}

impl AsRef<Path> for ModelPath {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for ModelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ModelPath {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let part = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= MAX_PART;
        let clean = !text.chars().any(|c| c.is_control() || c == '\\');
        if text.len() <= MAX_PATH && clean && text.split('/').all(part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ModelError::Path {
                found: text.chars().take(128).collect(),
            })
        }
    }
}

/// Checks that the paths are files of one directory: none twice, none the directory of another.
pub(super) fn check_together<'p>(mut paths: impl Iterator<Item = &'p ModelPath> + Clone) -> Result<(), ModelError> {
    let mut files = BTreeSet::new();
    for path in paths.clone() {
        if !files.insert(path.as_str()) {
            return Err(ModelError::DuplicatePath { path: path.clone() });
        }
    }
    match paths.find(|path| path.parents().any(|parent| files.contains(parent))) {
        Some(path) => Err(ModelError::NestedPath { path: path.clone() }),
        None => Ok(()),
    }
}

const MAX_PATH: usize = 1024;
const MAX_PART: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_normal_relative_paths() {
        for path in ["model.gguf", "a/b/c.safetensors", "ünïcode", "..a", "a..", ".hidden"] {
            assert_eq!(path.parse::<ModelPath>().unwrap().as_str(), path);
        }
        let long = "a".repeat(256);
        for path in [
            "",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            "a\\b",
            "a\0b",
            "a\nb",
            &long,
        ] {
            assert!(
                matches!(path.parse::<ModelPath>(), Err(ModelError::Path { .. })),
                "{path:?}"
            );
        }
        assert!("a/".repeat(600).trim_end_matches('/').parse::<ModelPath>().is_err());
    }

    #[test]
    fn paths_must_fit_together() {
        let check = |paths: &[&str]| {
            let paths: Vec<ModelPath> = paths.iter().map(|path| path.parse().unwrap()).collect();
            check_together(paths.iter())
        };
        check(&["a", "b/a", "b/c", "ab"]).unwrap();
        assert!(matches!(check(&["a", "b", "a"]), Err(ModelError::DuplicatePath { path }) if path.as_str() == "a"));
        assert!(matches!(check(&["a/b/c", "a/b"]), Err(ModelError::NestedPath { path }) if path.as_str() == "a/b/c"));
        assert!(matches!(check(&["a", "a/b/c"]), Err(ModelError::NestedPath { .. })));
    }
}
