//! `[output]` as it is written.

use serde::{Deserialize, Serialize};

/// `[output]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OutputFile {
    /// The container whose files are kept. It runs once at a time and as a user named by number.
    pub container: String,
    /// Where it finds the folder.
    pub destination: String,
    /// The new artifact's name, bound into the sealing.
    pub name: String,
    /// Its version, bound into the sealing. At least 1, and above that of a model or dataset of the same name here.
    pub version: u64,
    /// `registry/repository` that it is pushed to.
    pub repository: String,
    /// Key that it is sealed with.
    pub key: String,
    /// The most bytes that the folder may hold.
    pub max_bytes: u64,
}
