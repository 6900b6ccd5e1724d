//! From a manifest to the files of a model: the checks on the layer list of a sealed model.
use super::{
    ARTIFACT_TYPE, CONFIG_TYPE, FILEPATH_ANNOTATION, Form, Kind, LayerType, ModelConfig, ModelError, ModelPath,
    NAME_ANNOTATION, VERSION_ANNOTATION, path,
};
use crate::manifest::{MAX_LAYERS, cut, media_type};
use crate::{Descriptor, Digest, Manifest};

/// What the policy says of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// The most bytes that all layers may have together, as stored.
    pub max_bytes: u64,
    /// Kinds of layers that may be there. Default: weights, their configuration, documentation.
    pub kinds: Vec<Kind>,
    /// Whether weights may be in formats other than GGUF and safetensors, which may hold programs. Default: no.
    pub any_weight_format: bool,
}

impl Rules {
    /// The default rules for a model.
    pub fn new(name: &str, version: u64, max_bytes: u64) -> Self {
        Self {
            name: name.to_owned(),
            version,
            max_bytes,
            kinds: vec![Kind::Weight, Kind::WeightConfig, Kind::Doc],
            any_weight_format: false,
        }
    }

    /// Every kind of layer and every format of weights: for whoever looks at a model on the desk and runs nothing of it.
    pub fn lenient(name: &str, version: u64, max_bytes: u64) -> Self {
        Self {
            kinds: Kind::ALL.to_vec(),
            any_weight_format: true,
            ..Self::new(name, version, max_bytes)
        }
    }

    /// The default rules for a dataset: no weights in it.
    pub fn dataset(name: &str, version: u64, max_bytes: u64) -> Self {
        Self {
            kinds: vec![Kind::Dataset, Kind::WeightConfig, Kind::Doc],
            ..Self::new(name, version, max_bytes)
        }
    }
}

/// A model whose layer list keeps the rules. Nothing of its content was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedModel {
    /// Its configuration.
    pub config: Descriptor,
    /// Sealed files: all weights, and what else the owner sealed.
    pub sealed: Vec<SealedLayer>,
    /// Files in the clear, authentic by their digest in the manifest alone.
    pub plain: Vec<PlainLayer>,
}

/// One sealed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedLayer {
    /// Number of the layer in the manifest, from 0.
    pub index: usize,
    /// Where the file belongs in the model's directory. Bound into the sealing.
    pub path: ModelPath,
    /// What it holds.
    pub kind: Kind,
    /// Digest and size of the ciphertext, and the annotations that carry the key.
    pub descriptor: Descriptor,
}

/// One file in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainLayer {
    /// Number of the layer in the manifest, from 0.
    pub index: usize,
    /// Where the file belongs in the model's directory.
    pub path: ModelPath,
    /// What it holds.
    pub kind: Kind,
    /// Digest and size.
    pub descriptor: Descriptor,
}

impl SealedModel {
    /// Digest of each layer's plaintext, in the order of the manifest.
    ///
    /// # Errors
    /// [`ModelError::LayerCount`] when the configuration names another number of layers.
    pub fn diff_ids<'c>(&self, config: &'c ModelConfig) -> Result<&'c [Digest], ModelError> {
        let (listed, named) = (self.sealed.len() + self.plain.len(), config.modelfs.diff_ids.len());
        if listed == named {
            Ok(&config.modelfs.diff_ids)
        } else {
            Err(ModelError::LayerCount { listed, named })
        }
    }
}

/// Checks the layer list of a sealed model.
///
/// # Errors
/// When the manifest is not a model's, says another name or version than the policy, or a layer breaks a rule: unknown or
/// forbidden type, archive instead of a file, weights in the clear or in a format that may hold programs, a path that is
/// missing, unclean or taken, too many layers or bytes.
pub fn sealed_model(manifest: &Manifest, rules: &Rules) -> Result<SealedModel, ModelError> {
    check_head(manifest, rules)?;
    check_size(&manifest.layers, rules.max_bytes)?;
    let mut model = SealedModel {
        config: manifest.config.clone(),
        sealed: Vec::new(),
        plain: Vec::new(),
    };
    for (index, descriptor) in manifest.layers.iter().enumerate() {
        let (layer_type, path) = check_layer(index, descriptor, rules)?;
        let (kind, descriptor) = (layer_type.kind, descriptor.clone());
        if layer_type.sealed {
            model.sealed.push(SealedLayer {
                index,
                path,
                kind,
                descriptor,
            });
        } else {
            model.plain.push(PlainLayer {
                index,
                path,
                kind,
                descriptor,
            });
        }
    }
    let (sealed, plain) = (
        model.sealed.iter().map(|layer| &layer.path),
        model.plain.iter().map(|layer| &layer.path),
    );
    path::check_together(sealed.chain(plain))?;
    Ok(model)
}

fn check_head(manifest: &Manifest, rules: &Rules) -> Result<(), ModelError> {
    let types = [
        ("mediaType", manifest.media_type.as_deref(), media_type::OCI_MANIFEST),
        ("artifactType", manifest.artifact_type.as_deref(), ARTIFACT_TYPE),
        (
            "config.mediaType",
            Some(manifest.config.media_type.as_str()),
            CONFIG_TYPE,
        ),
    ];
    for (field, found, wanted) in types {
        if found != Some(wanted) {
            return Err(ModelError::NotAModel {
                field,
                found: cut(found.unwrap_or_default()),
                wanted,
            });
        }
    }
    let annotation = |key: &str| manifest.annotations.get(key).map(String::as_str).unwrap_or_default();
    let (name, version) = (annotation(NAME_ANNOTATION), annotation(VERSION_ANNOTATION));
    if name != rules.name {
        return Err(ModelError::Name {
            found: cut(name),
            wanted: rules.name.clone(),
        });
    }
    if version != rules.version.to_string() {
        return Err(ModelError::Version {
            found: cut(version),
            wanted: rules.version,
        });
    }
    Ok(())
}

fn check_size(layers: &[Descriptor], limit: u64) -> Result<(), ModelError> {
    match layers.len() {
        0 => return Err(ModelError::Empty),
        found if found > MAX_LAYERS => {
            return Err(ModelError::TooManyLayers {
                found,
                limit: MAX_LAYERS,
            });
        }
        _ => {}
    }
    // A sum that cannot be counted is beyond every limit.
    match layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size)) {
        Some(found) if found <= limit => Ok(()),
        found => Err(ModelError::TooLarge {
            found: found.unwrap_or(u64::MAX),
            limit,
        }),
    }
}

fn check_layer(index: usize, layer: &Descriptor, rules: &Rules) -> Result<(LayerType, ModelPath), ModelError> {
    let found: LayerType = layer.media_type.parse()?;
    if found.form != Form::Raw || !rules.kinds.contains(&found.kind) {
        return Err(ModelError::LayerNotAllowed { index, found });
    }
    let path: ModelPath = layer
        .annotations
        .get(FILEPATH_ANNOTATION)
        .ok_or(ModelError::NoPath { index })?
        .parse()?;
    if found.kind == Kind::Weight && !found.sealed {
        return Err(ModelError::NotSealed { path });
    }
    if found.kind == Kind::Weight && !rules.any_weight_format && !path.is_data_only_weight() {
        return Err(ModelError::WeightFormat { path });
    }
    Ok((found, path))
}

#[cfg(test)]
mod tests;
