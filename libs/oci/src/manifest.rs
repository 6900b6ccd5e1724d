//! Manifests, indexes and descriptors, of OCI and of Docker's schema 2.
//!
//! The bytes were checked against a digest before they come here, so they are their author's; that author is still not
//! trusted. Length, nesting (by serde_json) and number of layers are bounded. Members that OCI does not define are ignored, as
//! it requires.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Bytes that a manifest or an index may have.
pub const MAX_MANIFEST: usize = 4 << 20;
/// Layers that a manifest may list, and manifests that an index may.
pub const MAX_LAYERS: usize = 4096;

/// Media types of manifests.
pub mod media_type {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
}

/// One piece of content: what it is, its digest and its length. `urls` and `data` are not read: content comes from the
/// registry alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type.
    pub media_type: String,
    /// Digest of the bytes as stored: of an encrypted layer, of the ciphertext.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// Notes.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// In an index: for which machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// The machine that an image is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`, …
    pub os: String,
    /// `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A list of layers and the configuration that explains them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Type of the manifest itself. OCI allows it to be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What kind of artifact it is, if it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Notes.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest whose digest was checked.
    ///
    /// # Errors
    /// When it is too long, malformed, of another version or type, or has too many layers.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = parse_bounded(bytes)?;
        let types = [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST];
        check_head(manifest.schema_version, manifest.media_type.as_deref(), &types)?;
        check_count(manifest.layers.len())?;
        Ok(manifest)
    }

    /// The bytes to push. Their digest is the manifest's.
    ///
    /// # Errors
    /// [`ManifestError::Json`] when it cannot be written, which no manifest brings about.
    pub fn to_json(&self) -> Result<Vec<u8>, ManifestError> {
        serde_json::to_vec(self).map_err(|source| ManifestError::Json { source })
    }
}

/// A list of manifests, one for each kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Type of the index itself. OCI allows it to be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// Reads an index whose digest was checked.
    ///
    /// # Errors
    /// As [`Manifest::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let index: Self = parse_bounded(bytes)?;
        check_head(
            index.schema_version,
            index.media_type.as_deref(),
            &[media_type::OCI_INDEX, media_type::DOCKER_INDEX],
        )?;
        check_count(index.manifests.len())?;
        Ok(index)
    }

    /// The first manifest for this machine.
    ///
    /// # Errors
    /// [`ManifestError::Platform`] when there is none.
    pub fn select(&self, os: &str, architecture: &str) -> Result<&Descriptor, ManifestError> {
        let fits = |platform: &Platform| platform.os == os && platform.architecture == architecture;
        self.manifests
            .iter()
            .find(|manifest| manifest.platform.as_ref().is_some_and(fits))
            .ok_or_else(|| ManifestError::Platform {
                wanted: format!("{os}/{architecture}"),
                manifests: self.manifests.len(),
            })
    }
}

/// Why bytes are no manifest or index that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Longer than [`MAX_MANIFEST`].
    #[error("a manifest of {length} bytes is longer than {MAX_MANIFEST}")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// Not the JSON that it should be.
    #[error("the manifest is not the JSON that it should be")]
    Json {
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Not schema version 2.
    #[error("the manifest has schema version {found}; only 2 is supported")]
    SchemaVersion {
        /// The version.
        found: u32,
    },
    /// Another kind of document.
    #[error("the document is of type {found:?}; {wanted:?} is wanted here")]
    MediaType {
        /// Its type, cut to 128 characters.
        found: String,
        /// The type that was wanted.
        wanted: &'static str,
    },
    /// Too many layers or manifests.
    #[error("the manifest lists {found} entries, more than {MAX_LAYERS}")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// An index without this machine.
    #[error("none of the {manifests} manifests of the index is for {wanted}")]
    Platform {
        /// `os/architecture`.
        wanted: String,
        /// How many there are.
        manifests: usize,
    },
}

/// At most 128 characters of a text from outside.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Go writes an empty map as `null`.
pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn parse_bounded<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ManifestError> {
    if bytes.len() > MAX_MANIFEST {
        return Err(ManifestError::TooLong { length: bytes.len() });
    }
    serde_json::from_slice(bytes).map_err(|source| ManifestError::Json { source })
}

fn check_head(version: u32, found: Option<&str>, types: &[&'static str; 2]) -> Result<(), ManifestError> {
    let [wanted, _] = types;
    match found {
        _ if version != 2 => Err(ManifestError::SchemaVersion { found: version }),
        Some(found) if !types.contains(&found) => Err(ManifestError::MediaType {
            found: cut(found),
            wanted,
        }),
        _ => Ok(()),
    }
}

fn check_count(found: usize) -> Result<(), ManifestError> {
    if found > MAX_LAYERS {
        Err(ManifestError::TooMany { found })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
