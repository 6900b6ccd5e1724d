//! CNCF ModelPack v0.0.7 artifacts, and Cella's sealed form of them.
//!
//! A sealed model is a ModelPack manifest in which each secret layer's media type ends with `+encrypted` and its
//! annotations carry the key, as ocicrypt's do (`cella_seal::packet`). Reading is strict about what is placed (media types,
//! paths, sizes) and about what the policy says (name and version are compared, never taken from here); writing uses only
//! members that v0.0.7 and the later schema both accept.

mod config;
mod error;
mod media;
mod path;
mod read;
mod write;

pub use config::{ModelConfig, ModelDescriptor, ModelFs, ModelFsKind, ModelParameters};
pub use error::ModelError;
pub use media::{Form, Kind, LayerType};
pub use path::ModelPath;
pub use read::{PlainLayer, Rules, SealedLayer, SealedModel, sealed_model};
pub use write::{NewLayer, NewModel, write_model};

/// `artifactType` of a model's manifest.
pub const ARTIFACT_TYPE: &str = "application/vnd.cncf.model.manifest.v1+json";
/// Media type of its configuration.
pub const CONFIG_TYPE: &str = "application/vnd.cncf.model.config.v1+json";
/// Layer annotation: path of the file in the model's directory.
pub const FILEPATH_ANNOTATION: &str = "org.cncf.model.filepath";
/// Manifest annotation of Cella's own: the model's name, as it is bound into the sealing.
pub const NAME_ANNOTATION: &str = "dev.cella.model.name";
/// Manifest annotation of Cella's own: the model's version, as it is bound into the sealing.
pub const VERSION_ANNOTATION: &str = "dev.cella.model.version";
/// Layer annotation of Cella's own: BLAKE3 of the plaintext, for whoever writes a policy. Nothing relies on it.
pub const BLAKE3_ANNOTATION: &str = "dev.cella.model.blake3";
/// Bytes that a model's configuration may have.
pub const MAX_CONFIG: u64 = 1 << 20;
