//! From the files of a model to a manifest and a configuration, for `cellactl`.
use std::collections::BTreeMap;

use super::{
    ARTIFACT_TYPE, CONFIG_TYPE, FILEPATH_ANNOTATION, Form, Kind, LayerType, ModelConfig, ModelDescriptor, ModelError,
    ModelFs, ModelFsKind, ModelParameters, ModelPath, NAME_ANNOTATION, VERSION_ANNOTATION, path,
};
use crate::manifest::media_type;
use crate::{Descriptor, Digest, Manifest};

/// One file that was pushed as a layer.
#[derive(Debug, Clone)]
pub struct NewLayer {
    /// Where it belongs in the model's directory.
    pub path: ModelPath,
    /// What it holds.
    pub kind: Kind,
    /// Digest of the layer as pushed.
    pub digest: Digest,
    /// Its bytes as pushed.
    pub size: u64,
    /// Digest of the plaintext.
    pub diff_id: Digest,
    /// The annotations that carry the key of a sealed layer; `None` for one in the clear.
    pub key_annotations: Option<BTreeMap<String, String>>,
}

/// A model to be written.
#[derive(Debug, Clone)]
pub struct NewModel {
    /// Its name, as it is bound into the sealing.
    pub name: String,
    /// Its version, as it is bound into the sealing.
    pub version: u64,
    /// What it is.
    pub descriptor: ModelDescriptor,
    /// How it is built.
    pub parameters: ModelParameters,
    /// Its files.
    pub layers: Vec<NewLayer>,
}

/// The configuration's bytes, to be pushed as a blob, and the manifest that names it.
///
/// # Errors
/// When there are no files, or their paths do not fit together.
pub fn write_model(model: NewModel) -> Result<(Vec<u8>, Manifest), ModelError> {
    if model.layers.is_empty() {
        return Err(ModelError::Empty);
    }
    path::check_together(model.layers.iter().map(|layer| &layer.path))?;
    let diff_ids = model.layers.iter().map(|layer| layer.diff_id).collect();
    let config = ModelConfig {
        descriptor: model.descriptor,
        config: model.parameters,
        modelfs: ModelFs {
            kind: ModelFsKind::Layers,
            diff_ids,
        },
    };
    let config = serde_json::to_vec(&config).map_err(|source| ModelError::Config { source })?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: Some(ARTIFACT_TYPE.to_owned()),
        config: Descriptor {
            media_type: CONFIG_TYPE.to_owned(),
            digest: Digest::of(&config),
            size: config.len() as u64,
            annotations: BTreeMap::new(),
            platform: None,
        },
        layers: model.layers.into_iter().map(descriptor).collect(),
        annotations: BTreeMap::from([
            (NAME_ANNOTATION.to_owned(), model.name),
            (VERSION_ANNOTATION.to_owned(), model.version.to_string()),
        ]),
    };
    Ok((config, manifest))
}

fn descriptor(layer: NewLayer) -> Descriptor {
    let layer_type = LayerType {
        kind: layer.kind,
        form: Form::Raw,
        sealed: layer.key_annotations.is_some(),
    };
    let mut annotations = layer.key_annotations.unwrap_or_default();
    annotations.insert(FILEPATH_ANNOTATION.to_owned(), layer.path.as_str().to_owned());
    Descriptor {
        media_type: layer_type.to_string(),
        digest: layer.digest,
        size: layer.size,
        annotations,
        platform: None,
    }
}
