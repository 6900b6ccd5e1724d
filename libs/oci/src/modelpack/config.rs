//! A model's configuration. It lies in the clear, `diffIds` included: a plaintext digest tells which public model this is.
use serde::{Deserialize, Serialize};

use super::{MAX_CONFIG, ModelError};
use crate::Digest;
use crate::manifest::null_is_empty;

/// The configuration document. Members that ModelPack does not know are refused, except within `capabilities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// What the model is.
    pub descriptor: ModelDescriptor,
    /// How it is built.
    pub config: ModelParameters,
    /// Its files.
    pub modelfs: ModelFs,
}

/// What the model is. Everything may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ModelDescriptor {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// Persons.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub authors: Vec<String>,
    /// Organisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// As in `llama3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// As in `llama3-8b-instruct`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Version of the model, in words: not the version that the sealing binds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Description for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where to read more.
    #[serde(rename = "docURL", skip_serializing_if = "Option::is_none")]
    pub doc_url: Option<String>,
    /// Where it was made.
    #[serde(rename = "sourceURL", skip_serializing_if = "Option::is_none")]
    pub source_url: Option<String>,
    /// Read only: v0.0.7 does not know it.
    #[serde(
        rename = "datasetsURL",
        default,
        deserialize_with = "null_is_empty",
        skip_serializing
    )]
    pub datasets_url: Vec<String>,
    /// Revision in its source repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// SPDX expressions.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
}

/// How the model is built. Everything may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ModelParameters {
    /// `transformer`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// `gguf`, `safetensors`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// `8b`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub param_size: Option<String>,
    /// `float16`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// `q4_0`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
    /// What it can do, as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The files of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ModelFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: ModelFsKind,
    /// Digest of each layer's plaintext, in the order of the layers.
    pub diff_ids: Vec<Digest>,
}

/// What a model's files are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelFsKind {
    /// Layers.
    Layers,
}

impl ModelConfig {
    /// Reads a configuration whose digest was checked.
    ///
    /// # Errors
    /// When it is too long or malformed, or has members that ModelPack does not know.
    pub fn parse(bytes: &[u8]) -> Result<Self, ModelError> {
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(ModelError::ConfigTooLong { length: bytes.len() });
        }
        serde_json::from_slice(bytes).map_err(|source| ModelError::Config { source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_strictly_but_for_capabilities() {
        let diff_id = Digest::of(b"");
        let json = |descriptor: &str, config: &str| {
            format!(
                r#"{{"descriptor":{descriptor},"config":{config},"modelfs":{{"type":"layers","diffIds":["{diff_id}"]}}}}"#
            )
        };
        let parse = |descriptor: &str, config: &str| ModelConfig::parse(json(descriptor, config).as_bytes());
        let read = parse(
            r#"{"name":"demo","docURL":"x","datasetsURL":["y"],"authors":null}"#,
            r#"{"format":"gguf","paramSize":"8b","capabilities":{"reward":true,"inputTypes":["text"]}}"#,
        )
        .unwrap();
        assert_eq!(read.modelfs.diff_ids, [diff_id]);
        assert_eq!(read.config.param_size.as_deref(), Some("8b"));
        assert!(!serde_json::to_string(&read).unwrap().contains("datasetsURL"));
        for (descriptor, config) in [
            (r#"{"secret":1}"#, "{}"),
            ("{}", r#"{"extra":1}"#),
            ("[]", "{}"),
            ("{}", "null"),
        ] {
            assert!(
                matches!(parse(descriptor, config), Err(ModelError::Config { .. })),
                "{descriptor} {config}"
            );
        }
        assert!(matches!(ModelConfig::parse(b"{}"), Err(ModelError::Config { .. })));
        assert!(matches!(
            ModelConfig::parse(&vec![b' '; (1 << 20) + 1]),
            Err(ModelError::ConfigTooLong { .. })
        ));
    }
}
