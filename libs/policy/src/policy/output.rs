//! What a job leaves behind: one folder, sealed in the guest and pushed as a new version of an artifact.

use crate::names::{GuestPath, KeyId, RegistryName};

/// The output of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPolicy {
    /// Whose it is: a container of the same policy with one instance and a user by number.
    pub container: String,
    /// Where the folder is in it; overlaps nothing.
    pub destination: GuestPath,
    /// The artifact's name, as bound into the sealing.
    pub name: String,
    /// Its version, as bound into the sealing.
    pub version: u64,
    /// The registry that it is pushed to; one of the same policy.
    pub registry: RegistryName,
    /// The repository there.
    pub repository: String,
    /// Key that it is sealed with.
    pub key: KeyId,
    /// The most bytes that its files may have together.
    pub max_bytes: u64,
}

impl OutputPolicy {
    /// The tag under which it is pushed: `v` and its version.
    pub fn tag(&self) -> String {
        format!("v{}", self.version)
    }

    /// The tag under which the record of the run that made it is pushed beside it.
    pub fn record_tag(&self) -> String {
        format!("v{}.run", self.version)
    }
}

impl std::fmt::Display for OutputPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} version {}", self.name, self.version)
    }
}
