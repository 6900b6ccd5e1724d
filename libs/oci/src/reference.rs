//! `registry/repository[:tag][@digest]`.
use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// Where an artifact is: registry, repository, and tag or digest or both. The registry is always named; there is no
/// default one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host and port, as the reference has them.
    pub registry: String,
    /// Path below it.
    pub repository: String,
    /// A name that may come to mean something else.
    pub tag: Option<String>,
    /// What it means for good.
    pub digest: Option<Digest>,
}

impl Reference {
    /// The artifact's name without registry, tag and digest: `models/demo`.
    pub fn name(&self) -> &str {
        &self.repository
    }

    /// The same repository, by digest alone.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            tag: None,
            ..self.clone()
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > MAX_REFERENCE {
            return Err(ReferenceError::TooLong { length: text.len() });
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| ReferenceError::Digest)?)),
            None => (text, None),
        };
        let (registry, rest) = rest.split_once('/').ok_or(ReferenceError::Registry)?;
        check_registry(registry)?;
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        check_repository(repository)?;
        tag.map_or(Ok(()), check_tag)?;
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// Whether `repository` is a repository name of the distribution specification, and so safe to put into a path.
///
/// # Errors
/// [`ReferenceError::Repository`] when it is not.
pub fn check_repository(repository: &str) -> Result<(), ReferenceError> {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let component = |part: &str| {
        let edges = part.bytes().next().is_some_and(alphanumeric) && part.bytes().last().is_some_and(alphanumeric);
        let separators: Vec<_> = part
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .collect();
        let separator = |s: &&str| matches!(*s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-');
        edges && separators.iter().all(separator)
    };
    if (1..=MAX_REPOSITORY).contains(&repository.len()) && repository.split('/').all(component) {
        Ok(())
    } else {
        Err(ReferenceError::Repository)
    }
}

/// Whether `tag` is a tag of the distribution specification.
pub(crate) fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let well_formed = tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if well_formed { Ok(()) } else { Err(ReferenceError::Tag) }
}

/// A host with a dot or a port, or `localhost`: anything else would be the first part of a repository.
fn check_registry(registry: &str) -> Result<(), ReferenceError> {
    let is_host = registry == "localhost" || registry.contains(['.', ':']);
    let clean = registry
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    let parses = format!("http://{registry}").parse::<cella_http::Origin>().is_ok();
    if is_host && clean && parses {
        Ok(())
    } else {
        Err(ReferenceError::Registry)
    }
}

/// Why a text is not a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Longer than any reference.
    #[error("a reference of {length} bytes is too long")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// No registry in front.
    #[error("a reference starts with its registry's host, as in registry.example/models/demo or localhost:5000/demo")]
    Registry,
    /// Not a repository name.
    #[error("a repository is made of lower-case letters, digits and single separators . _ - between slashes")]
    Repository,
    /// Not a tag.
    #[error("a tag is made of at most 128 letters, digits, _ . -")]
    Tag,
    /// Not a media type.
    #[error("a media type is made of visible ASCII characters")]
    MediaType,
    /// Not a digest.
    #[error("what follows @ must be sha256: and 64 lower-case hex digits")]
    Digest,
}

const MAX_REPOSITORY: usize = 255;
const MAX_REFERENCE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_prints_references() {
        let digest = Digest::of(b"");
        for text in [
            "localhost:5000/demo/llama-server".to_owned(),
            "localhost/demo:v1".to_owned(),
            format!("registry.example/models/demo@{digest}"),
            format!("10.0.2.2:5000/a/b__c/d--e.f:Tag_1.2-3@{digest}"),
            format!("[::1]:5000/a@{digest}"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        let parsed: Reference = format!("r.example:5000/models/demo:v1@{digest}").parse().unwrap();
        assert_eq!(
            (parsed.registry.as_str(), parsed.name()),
            ("r.example:5000", "models/demo")
        );
        assert_eq!((parsed.tag.as_deref(), parsed.digest), (Some("v1"), Some(digest)));
        assert_eq!(
            parsed.with_digest(digest).to_string(),
            format!("r.example:5000/models/demo@{digest}")
        );
    }

    #[test]
    fn refuses_everything_else() {
        use ReferenceError::{Digest, Registry, Repository, Tag};
        for (text, error) in [
            ("", Registry),
            ("busybox", Registry),
            ("library/busybox", Registry),
            ("user@r.example/a", Digest),
            ("r.example:0/a", Registry),
            ("r.example/", Repository),
            ("r.example/A", Repository),
            ("r.example/a//b", Repository),
            ("r.example/../b", Repository),
            ("r.example/a/..", Repository),
            ("r.example/a___b", Repository),
            ("r.example/a..b", Repository),
            ("r.example/-a", Repository),
            ("r.example/a?x=1", Repository),
            ("r.example/a%2e", Repository),
            ("r.example/a:", Tag),
            ("r.example/a:.x", Tag),
            ("r.example/a:b/c", Tag),
            ("r.example/a@sha256:00", Digest),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap_err(), error, "{text}");
        }
        let long = format!("r.example/{}", "a".repeat(256));
        assert_eq!(long.parse::<Reference>().unwrap_err(), Repository);
        assert_eq!(
            "a".repeat(2000).parse::<Reference>(),
            Err(ReferenceError::TooLong { length: 2000 })
        );
    }
}
