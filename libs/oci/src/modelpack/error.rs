//! Why an artifact is no model that may be used.
use super::ModelPath;

/// Why an artifact is no model that may be used, or cannot be written as one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// One of the three types that ModelPack requires is another or missing.
    #[error("{field} of the manifest is {found:?}; a model has {wanted:?}")]
    NotAModel {
        /// The field.
        field: &'static str,
        /// What stands there, cut to 128 characters.
        found: String,
        /// What a model has.
        wanted: &'static str,
    },
    /// The artifact says that it is another model.
    #[error("the artifact is the model {found:?}, the policy names {wanted:?}")]
    Name {
        /// What the artifact says, cut to 128 characters.
        found: String,
        /// What the policy says.
        wanted: String,
    },
    /// The artifact says that it is another version.
    #[error("the artifact is version {found:?} of its model, the policy names version {wanted}")]
    Version {
        /// What the artifact says, cut to 128 characters.
        found: String,
        /// What the policy says.
        wanted: u64,
    },
    /// A layer of a type that ModelPack does not know.
    #[error("a layer is of type {found:?}, which ModelPack does not know")]
    LayerType {
        /// The type, cut to 128 characters.
        found: String,
    },
    /// A layer of a type that is not allowed here.
    #[error("layer {index} is of type {found}, which is not allowed here")]
    LayerNotAllowed {
        /// Its number, from 0.
        index: usize,
        /// The type.
        found: super::LayerType,
    },
    /// Weights that are not sealed.
    #[error("the weights {path} are not sealed")]
    NotSealed {
        /// Their path.
        path: ModelPath,
    },
    /// Weights in a format that may hold programs.
    #[error("the weights {path} are neither GGUF nor safetensors")]
    WeightFormat {
        /// Their path.
        path: ModelPath,
    },
    /// A layer without a path.
    #[error("layer {index} has no annotation org.cncf.model.filepath")]
    NoPath {
        /// Its number, from 0.
        index: usize,
    },
    /// A path that could leave its directory or is not clean.
    #[error("the path {found:?} is not a relative path in normal form")]
    Path {
        /// The path, cut to 128 characters.
        found: String,
    },
    /// Two layers with one path.
    #[error("the path {path} stands twice in the model")]
    DuplicatePath {
        /// The path.
        path: ModelPath,
    },
    /// A file that would have to be a directory too.
    #[error("a directory of the path {path} is itself a file of the model")]
    NestedPath {
        /// The longer path.
        path: ModelPath,
    },
    /// Nothing in it.
    #[error("the model has no layer")]
    Empty,
    /// Too many layers.
    #[error("the model has {found} layers, more than {limit}")]
    TooManyLayers {
        /// How many.
        found: usize,
        /// The most allowed.
        limit: usize,
    },
    /// Too many bytes, or more than can be counted.
    #[error("the layers of the model have {found} bytes together, more than {limit}")]
    TooLarge {
        /// Their sum; `u64::MAX` if it is more than that.
        found: u64,
        /// The most allowed.
        limit: u64,
    },
    /// `diffIds` and layers do not match.
    #[error("the manifest lists {listed} layers and the configuration names {named}")]
    LayerCount {
        /// Layers of the manifest.
        listed: usize,
        /// `diffIds` of the configuration.
        named: usize,
    },
    /// The configuration is too long.
    #[error("a model configuration of {length} bytes is longer than 1 MiB")]
    ConfigTooLong {
        /// Its length.
        length: usize,
    },
    /// The configuration is malformed.
    #[error("the model configuration is not the JSON that it should be")]
    Config {
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
}
