//! What a sealed model's manifest says, checked as far as that goes without its key.

use std::collections::BTreeSet;

use cella_oci::modelpack::{
    self, BLAKE3_ANNOTATION, ModelError, NAME_ANNOTATION, Rules, SealedModel, VERSION_ANNOTATION,
};
use cella_oci::{Descriptor, Manifest};
use cella_seal::packet::{self, PacketError};
use cella_seal::stream::{Layout, LayoutError};
use cella_seal::tree::{self, Blake3Digest, Blake3DigestError};

/// A sealed model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// As bound into the sealing.
    pub(crate) name: String,
    /// As bound into the sealing.
    pub(crate) version: u64,
    /// Keys that open its files.
    pub(crate) keys: BTreeSet<String>,
    /// Its sealed files.
    pub(crate) files: Vec<FileFacts>,
    /// Files in the clear.
    pub(crate) plain: Vec<String>,
}

/// One sealed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileFacts {
    /// Number of its layer, from 0.
    pub(crate) index: usize,
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    pub(crate) digest: String,
    pub(crate) ciphertext: u64,
    pub(crate) plaintext: u64,
    /// Digest of the plaintext, where the manifest says one. Whoever sealed it computed it; nothing here has.
    pub(crate) blake3: Option<Blake3Digest>,
}

impl Facts {
    /// Reads a model's manifest by the rules of a guest.
    pub(crate) fn of(manifest: &Manifest) -> Result<Self, FactsError> {
        Self::by(manifest, Rules::new)
    }

    /// Reads a dataset's manifest by the rules of a guest.
    pub(crate) fn of_dataset(manifest: &Manifest) -> Result<Self, FactsError> {
        Self::by(manifest, Rules::dataset)
    }

    /// Reads a manifest of whatever kinds of files.
    pub(crate) fn lenient(manifest: &Manifest) -> Result<Self, FactsError> {
        Self::by(manifest, Rules::lenient)
    }

    fn by(manifest: &Manifest, rules: fn(&str, u64, u64) -> Rules) -> Result<Self, FactsError> {
        let (name, version) = place(manifest)?;
        let model = modelpack::sealed_model(manifest, &rules(name, version, MAX_BYTES))?;
        Self::gather(name, version, &model)
    }

    fn gather(name: &str, version: u64, model: &SealedModel) -> Result<Self, FactsError> {
        let mut keys = BTreeSet::new();
        let mut files = Vec::with_capacity(model.sealed.len());
        for layer in &model.sealed {
            let path = || layer.path.to_string();
            let kids = packet::layer_kids(&layer.descriptor.annotations);
            keys.extend(kids.map_err(|source| FactsError::Packet { path: path(), source })?);
            let layout = Layout::from_ciphertext_len(layer.descriptor.size);
            let layout = layout.map_err(|source| FactsError::Length { path: path(), source })?;
            files.push(FileFacts {
                index: layer.index,
                path: path(),
                kind: layer.kind.name(),
                digest: layer.descriptor.digest.to_string(),
                ciphertext: layer.descriptor.size,
                plaintext: layout.plaintext_len(),
                blake3: blake3(&layer.descriptor).map_err(|source| FactsError::Digest { path: path(), source })?,
            });
        }
        let plain = model.plain.iter().map(|layer| layer.path.to_string()).collect();
        Ok(Self {
            name: name.to_owned(),
            version,
            keys,
            files,
            plain,
        })
    }

    /// Plaintext bytes of all sealed files: what the guest must have memory for.
    pub(crate) fn bytes(&self) -> u64 {
        self.files
            .iter()
            .fold(0, |sum, file| sum.saturating_add(file.plaintext))
    }

    /// What a policy's `digest` pins, where the manifest says it of every sealed file.
    pub(crate) fn model_digest(&self) -> Option<Blake3Digest> {
        let files = self.files.iter().map(|file| Some((file.path.as_str(), file.blake3?)));
        files.collect::<Option<Vec<_>>>().map(tree::model_digest)
    }
}

/// BLAKE3 of a layer's plaintext, as the manifest says.
pub(super) fn blake3(layer: &Descriptor) -> Result<Option<Blake3Digest>, Blake3DigestError> {
    let text = layer.annotations.get(BLAKE3_ANNOTATION);
    text.map(|text| text.parse()).transpose()
}

/// Name and version that the manifest says were bound into the sealing.
pub(super) fn place(manifest: &Manifest) -> Result<(&str, u64), FactsError> {
    let annotation = |key: &'static str| manifest.annotations.get(key).ok_or(FactsError::NotSealed { key });
    let name = annotation(NAME_ANNOTATION)?;
    let version = annotation(VERSION_ANNOTATION)?;
    let number = version.parse().map_err(|_| FactsError::Version {
        found: version.chars().take(40).collect(),
    })?;
    Ok((name, number))
}

/// Why a manifest is no sealed model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FactsError {
    /// Not made by `cellactl model seal`.
    #[error("the artifact is not a sealed model: its manifest has no annotation {key}")]
    NotSealed { key: &'static str },
    /// No number.
    #[error("the model's version {found:?} is not a number")]
    Version { found: String },
    /// The manifest breaks a rule.
    #[error("the manifest is not that of a sealed model")]
    Model(#[from] ModelError),
    /// A file's key annotation breaks a rule.
    #[error("the key of {path} cannot be read")]
    Packet { path: String, source: PacketError },
    /// A file's digest is none.
    #[error("the annotation dev.cella.model.blake3 of {path}")]
    Digest { path: String, source: Blake3DigestError },
    /// A file's length is impossible.
    #[error("the length of {path} is not that of a sealed file")]
    Length { path: String, source: LayoutError },
}

/// More than any model: a petabyte. What a manifest says beyond it is a lie.
pub(super) const MAX_BYTES: u64 = 1 << 50;
