//! Container images: their layers and their configuration.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::manifest::{cut, media_type, null_is_empty};
use crate::{Descriptor, Digest, Manifest};

/// Bytes that an image configuration may have.
pub const MAX_CONFIG: u64 = 1 << 20;
/// What the media type of an encrypted layer ends with.
pub const ENCRYPTED_SUFFIX: &str = "+encrypted";

/// How the tar archive of a layer is compressed, before it is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayer {
    /// What the manifest says of it.
    pub descriptor: Descriptor,
    /// Digest of the tar archive: neither compressed nor encrypted.
    pub diff_id: Digest,
    /// How the archive is compressed.
    pub compression: Compression,
    /// Whether it is encrypted, and carries ocicrypt's annotations.
    pub encrypted: bool,
}

/// The layers of an image, lowest first, each with its `diff_id` from the configuration.
///
/// # Errors
/// When the manifest is not an image's, a media type is unknown, or the configuration counts another number of layers.
pub fn layers(manifest: &Manifest, config: &ImageConfig) -> Result<Vec<ImageLayer>, ImageError> {
    let config_type = manifest.config.media_type.as_str();
    if ![media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&config_type) {
        return Err(ImageError::NotAnImage {
            config: cut(config_type),
        });
    }
    let (listed, named) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if listed != named {
        return Err(ImageError::LayerCount { listed, named });
    }
    let pairs = manifest.layers.iter().zip(&config.rootfs.diff_ids);
    pairs
        .map(|(descriptor, diff_id)| {
            let (compression, encrypted) = layer_type(&descriptor.media_type)?;
            Ok(ImageLayer {
                descriptor: descriptor.clone(),
                diff_id: *diff_id,
                compression,
                encrypted,
            })
        })
        .collect()
}

/// Compression and encryption that a layer's media type stands for.
///
/// # Errors
/// [`ImageError::LayerType`] for a type that is not known, and for an encrypted one that no tool makes: never taken for plain.
pub fn layer_type(media_type: &str) -> Result<(Compression, bool), ImageError> {
    let (plain, encrypted) = match media_type.strip_suffix(ENCRYPTED_SUFFIX) {
        Some(plain) => (plain, true),
        None => (media_type, false),
    };
    let compression = LAYER_TYPES
        .iter()
        .find(|(name, _)| *name == plain)
        .map(|(_, compression)| *compression);
    match compression {
        Some(compression) if !encrypted || plain.starts_with(OCI) => Ok((compression, encrypted)),
        _ => Err(ImageError::LayerType { found: cut(media_type) }),
    }
}

/// The media type of an OCI layer.
pub fn layer_media_type(compression: Compression, encrypted: bool) -> String {
    let compression = match compression {
        Compression::None => "",
        Compression::Gzip => "+gzip",
        Compression::Zstd => "+zstd",
    };
    let encrypted = if encrypted { ENCRYPTED_SUFFIX } else { "" };
    format!("{OCI}layer.v1.tar{compression}{encrypted}")
}

/// An image's configuration. It lies in the clear even when the layers are encrypted, and says nothing that a policy
/// does not confirm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `amd64`, …
    pub architecture: String,
    /// `linux`, …
    pub os: String,
    /// How a container of it runs by default.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub config: RunConfig,
    /// Its layers.
    pub rootfs: RootFs,
}

/// How a container runs by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// User, and group after a colon, by name or number.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// First part of the command line.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Second part of the command line.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Working directory.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Folders that shall be volumes, as tables without content.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Nothing>,
    /// The signal by which it is asked to end; empty = SIGTERM.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Notes.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A table without content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: RootFsKind,
    /// Digests of the tar archives, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// What a root file system is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootFsKind {
    /// Archives, one on the other.
    Layers,
}

impl ImageConfig {
    /// Reads a configuration whose digest was checked.
    ///
    /// # Errors
    /// When it is too long or malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(ImageError::TooLong { length: bytes.len() });
        }
        serde_json::from_slice(bytes).map_err(|source| ImageError::Config { source })
    }
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The manifest is that of something else.
    #[error("the manifest is not an image's: its configuration is of type {config:?}")]
    NotAnImage {
        /// Type of the configuration, cut to 128 characters.
        config: String,
    },
    /// A layer of an unknown type.
    #[error("a layer is of type {found:?}, which is not supported")]
    LayerType {
        /// The type, cut to 128 characters.
        found: String,
    },
    /// Manifest and configuration contradict each other.
    #[error("the manifest lists {listed} layers and the configuration names {named}")]
    LayerCount {
        /// Layers of the manifest.
        listed: usize,
        /// `diff_ids` of the configuration.
        named: usize,
    },
    /// The configuration is too long.
    #[error("an image configuration of {length} bytes is longer than {MAX_CONFIG}")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// The configuration is malformed.
    #[error("the image configuration is not the JSON that it should be")]
    Config {
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
}

const OCI: &str = "application/vnd.oci.image.";
const LAYER_TYPES: [(&str, Compression); 10] = [
    ("application/vnd.oci.image.layer.v1.tar", Compression::None),
    ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
    ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        Compression::None,
    ),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        Compression::Gzip,
    ),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        Compression::Zstd,
    ),
    ("application/vnd.docker.image.rootfs.diff.tar", Compression::None),
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
    ("application/vnd.docker.image.rootfs.diff.tar.zstd", Compression::Zstd),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        Compression::Gzip,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_layer_types() {
        for (compression, name) in [
            (Compression::None, ""),
            (Compression::Gzip, "+gzip"),
            (Compression::Zstd, "+zstd"),
        ] {
            for encrypted in [false, true] {
                let media_type = layer_media_type(compression, encrypted);
                assert!(media_type.contains(name));
                assert_eq!(layer_type(&media_type).unwrap(), (compression, encrypted));
            }
        }
        let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        assert_eq!(layer_type(docker).unwrap(), (Compression::Gzip, false));
        let nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+encrypted";
        assert_eq!(layer_type(nondistributable).unwrap(), (Compression::None, true));
    }

    #[test]
    fn unknown_layer_types_are_refused_by_name() {
        for found in [
            "",
            "+encrypted",
            "application/vnd.oci.image.layer.v1.tar+bzip2",
            "application/vnd.oci.image.layer.v1.tar+encrypted+gzip",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted+encrypted",
            "application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted",
            "application/vnd.oci.image.layer.v1.tar+gzip ",
        ] {
            let error = layer_type(found).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("a layer is of type {found:?}, which is not supported")
            );
        }
    }

    #[test]
    fn configurations_of_go_programs_are_read() {
        let diff_id = Digest::of(b"");
        let json = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2026-01-01T00:00:00Z","history":[],
                "config":{{"Env":["A=b"],"Cmd":null,"Entrypoint":["/x"],"Labels":null,"ExposedPorts":{{"1/tcp":{{}}}}}},
                "rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
        );
        let config = ImageConfig::parse(json.as_bytes()).unwrap();
        assert_eq!(
            (config.config.env.as_slice(), config.config.cmd.len()),
            (["A=b".to_owned()].as_slice(), 0)
        );
        let descriptor = |media_type: &str| Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(b"x"),
            size: 1,
            annotations: BTreeMap::new(),
            platform: None,
        };
        let mut manifest = Manifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: descriptor(media_type::OCI_CONFIG),
            layers: vec![descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")],
            annotations: BTreeMap::new(),
        };
        let found = layers(&manifest, &config).unwrap();
        assert_eq!((found[0].diff_id, found[0].encrypted), (diff_id, true));
        manifest
            .layers
            .push(descriptor("application/vnd.oci.image.layer.v1.tar"));
        assert!(matches!(
            layers(&manifest, &config),
            Err(ImageError::LayerCount { listed: 2, named: 1 })
        ));
        manifest.config.media_type = "application/x".to_owned();
        assert!(matches!(layers(&manifest, &config), Err(ImageError::NotAnImage { .. })));
    }

    #[test]
    fn malformed_configurations_are_refused() {
        assert!(matches!(ImageConfig::parse(b"{}"), Err(ImageError::Config { .. })));
        assert!(matches!(
            ImageConfig::parse(&vec![b' '; (1 << 20) + 1]),
            Err(ImageError::TooLong { .. })
        ));
        let other = br#"{"architecture":"a","os":"l","rootfs":{"type":"other","diff_ids":[]}}"#;
        assert!(matches!(ImageConfig::parse(other), Err(ImageError::Config { .. })));
    }
}
