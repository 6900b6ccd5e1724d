//! Which image a layer was asked for, as containerd's labels tell.
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// An image by repository and manifest digest, `localhost:5000/demo/app@sha256:<64 hex digits>`: the host's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    /// The image that a layer's labels name.
    ///
    /// # Errors
    /// When a label is missing or is no reference and digest.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Result<Self, ImageLabelError> {
        let label = |name: &'static str| labels.get(name).ok_or(ImageLabelError::Missing { name });
        Self::new(label(IMAGE_REF)?, label(MANIFEST_DIGEST)?)
    }

    /// The image in the repository of `reference` that has the manifest `digest`.
    ///
    /// # Errors
    /// When one of them is none.
    pub fn new(reference: &str, digest: &str) -> Result<Self, ImageLabelError> {
        let repository = repository(reference);
        if !is_repository(repository) {
            return Err(ImageLabelError::Reference);
        }
        if !is_digest(digest) {
            return Err(ImageLabelError::Digest);
        }
        Ok(Self(format!("{repository}@{digest}")))
    }

    /// `<repository>@<digest>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ImageName {
    type Error = ImageLabelError;

    fn try_from(text: String) -> Result<Self, ImageLabelError> {
        let (repository, digest) = text.split_once('@').ok_or(ImageLabelError::Digest)?;
        match (is_repository(repository), is_digest(digest)) {
            (true, true) => Ok(Self(text)),
            (true, false) => Err(ImageLabelError::Digest),
            (false, _) => Err(ImageLabelError::Reference),
        }
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0
    }
}

/// Why labels name no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageLabelError {
    /// containerd did not send the label.
    #[error("the label {name} is missing")]
    Missing {
        /// Which.
        name: &'static str,
    },
    /// Not a reference of at most 512 characters that references have.
    #[error("not an image reference")]
    Reference,
    /// Not `sha256:` and 64 lower-case hex digits.
    #[error("not a sha256 digest")]
    Digest,
}

/// The reference without its tag and its digest.
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// Characters of registry and repository; no comma or blank, which would end a mount option.
fn is_repository(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':' | b'/' | b'[' | b']');
    !text.is_empty() && text.len() <= MAX_REPOSITORY && text.bytes().all(allowed)
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

const IMAGE_REF: &str = "containerd.io/snapshot/cri.image-ref";
const MANIFEST_DIGEST: &str = "containerd.io/snapshot/cri.manifest-digest";
// Eight of these and their digests stay below the page that mount(2) takes.
const MAX_REPOSITORY: usize = 384;

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn labels(reference: &str, digest: &str) -> BTreeMap<String, String> {
        [(IMAGE_REF, reference), (MANIFEST_DIGEST, digest)]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    }

    #[test]
    fn tag_and_digest_are_taken_off_the_reference() {
        for (reference, repository) in [
            ("docker.io/library/busybox:1.36", "docker.io/library/busybox"),
            ("localhost:5000/demo/app:1", "localhost:5000/demo/app"),
            ("localhost:5000/demo/app", "localhost:5000/demo/app"),
            ("[::1]:5000/app:x", "[::1]:5000/app"),
            (&format!("localhost:5000/app:1@{DIGEST}"), "localhost:5000/app"),
            (&format!("localhost/app@{DIGEST}"), "localhost/app"),
        ] {
            let name = ImageName::from_labels(&labels(reference, DIGEST)).unwrap();
            assert_eq!(name.as_str(), format!("{repository}@{DIGEST}"));
            assert_eq!(ImageName::try_from(name.to_string()).unwrap(), name);
        }
    }

    #[test]
    fn what_is_no_image_is_refused() {
        for reference in ["", ":1", "a,b", "a b", "a\nb", "a\0", "ä", &"a".repeat(385)] {
            assert_eq!(
                ImageName::from_labels(&labels(reference, DIGEST)),
                Err(ImageLabelError::Reference)
            );
        }
        for digest in [
            "",
            "sha256:",
            "sha256:E3",
            &DIGEST[7..],
            &DIGEST[..70],
            &DIGEST.to_uppercase(),
        ] {
            assert_eq!(
                ImageName::from_labels(&labels("a", digest)),
                Err(ImageLabelError::Digest)
            );
        }
        let mut one = labels("a", DIGEST);
        one.remove(MANIFEST_DIGEST);
        assert_eq!(
            ImageName::from_labels(&one),
            Err(ImageLabelError::Missing { name: MANIFEST_DIGEST })
        );
        assert_eq!(
            ImageName::from_labels(&BTreeMap::new()),
            Err(ImageLabelError::Missing { name: IMAGE_REF })
        );
    }
}
