//! The validated policy. A [`Policy`] exists only if every rule of `cella.toml` holds; its parts are plain data.

mod from_file;
mod to_file;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::capability::Capability;
use crate::error::{PolicyError, toml_reason};
use crate::file::PolicyFile;
use crate::initdata::MAX_DOCUMENT;
use crate::names::{DigestRef, Endpoint, GuestPath, KeyId, RegistryName};
use crate::pem::CertificatePem;
use crate::signal::Signal;

/// What a guest may run, which models it may open, and whom it asks for keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    kbs: Kbs,
    registries: Vec<Registry>,
    containers: Vec<ContainerPolicy>,
    models: Vec<ModelPolicy>,
}

impl Policy {
    /// Reads `cella.toml`. In the guest: only after the document's digest has matched the evidence.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_DOCUMENT {
            return Err(PolicyError::TooLarge {
                found: text.len(),
                limit: MAX_DOCUMENT,
            });
        }
        let file: PolicyFile = toml::from_str(text).map_err(|error| {
            let (line, reason) = toml_reason(text, &error);
            PolicyError::Syntax { line, reason }
        })?;
        Self::from_file(file)
    }

    /// Checks a file that was read or built elsewhere.
    pub fn from_file(file: PolicyFile) -> Result<Self, PolicyError> {
        from_file::policy(file)
    }

    /// The serialised form, every default written out.
    pub fn to_file(&self) -> PolicyFile {
        to_file::policy(self)
    }

    /// `cella.toml`: [`Policy::parse`] gives the same policy back.
    pub fn to_toml(&self) -> String {
        to_file::toml(self)
    }

    /// The key broker.
    pub fn kbs(&self) -> &Kbs {
        &self.kbs
    }

    /// All registries.
    pub fn registries(&self) -> &[Registry] {
        &self.registries
    }

    /// The registry that a reference of this policy names. Present for every reference in it.
    pub fn registry(&self, name: &RegistryName) -> Option<&Registry> {
        self.registries.iter().find(|registry| registry.name == *name)
    }

    /// All containers.
    pub fn containers(&self) -> &[ContainerPolicy] {
        &self.containers
    }

    /// A container by its name.
    pub fn container(&self, name: &str) -> Option<&ContainerPolicy> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// All models.
    pub fn models(&self) -> &[ModelPolicy] {
        &self.models
    }

    /// A model by its name. Present for every mount in this policy.
    pub fn model(&self, name: &str) -> Option<&ModelPolicy> {
        self.models.iter().find(|model| model.name == name)
    }

    /// Every key that this policy names, each once, in order: what one attestation fetches.
    pub fn key_ids(&self) -> BTreeSet<&KeyId> {
        let images = self.containers.iter().flat_map(|container| &container.image_keys);
        let models = self.models.iter().flat_map(|model| &model.keys);
        images.chain(models).collect()
    }

    /// Plaintext bytes of all models together.
    pub fn model_bytes(&self) -> u64 {
        self.models.iter().fold(0, |sum, model| sum.saturating_add(model.bytes))
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::parse(text)
    }
}

/// The key broker: always https, always with its own authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kbs {
    /// Where it listens.
    pub url: Endpoint,
    /// The only authority that is trusted for it.
    pub ca: CertificatePem,
}

/// A registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// As it stands in references.
    pub name: RegistryName,
    /// Where the guest finds it.
    pub endpoint: Endpoint,
    /// Present whenever `endpoint` is https.
    pub ca: Option<CertificatePem>,
}

/// What one container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPolicy {
    /// Unique in the policy.
    pub name: String,
    /// Its image.
    pub image: DigestRef,
    /// Keys that may decrypt its layers.
    pub image_keys: Vec<KeyId>,
    /// Every layer must be encrypted. Never true without a key.
    pub require_encrypted: bool,
    /// Exact arguments, at least one.
    pub args: Vec<String>,
    /// Exact environment, `NAME=value`, names unique.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: GuestPath,
    /// User and groups.
    pub user: User,
    /// Exactly what the process gets.
    pub capabilities: BTreeSet<Capability>,
    /// Whether the host may ask for a terminal.
    pub terminal: bool,
    /// Whether the root file system is read-only.
    pub readonly_rootfs: bool,
    /// The host name, or any valid one.
    pub hostname: Option<String>,
    /// Whether pipes reach the host.
    pub stdio: Stdio,
    /// RLIMIT_MEMLOCK.
    pub memlock: Memlock,
    /// Which signals the host may send.
    pub signals: Signals,
    /// Models that the agent mounts; destinations overlap nothing.
    pub mounts: Vec<ModelMount>,
    /// Memory file systems that the agent mounts; destinations overlap nothing.
    pub tmpfs: Vec<Tmpfs>,
}

/// User and groups of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups, without `gid`.
    pub additional_gids: BTreeSet<u32>,
}

/// Whether stdin, stdout and stderr are connected to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// As the host asks.
    Allow,
    /// Never: output is drained in the guest, input is empty. The host's wish for pipes is no offence.
    Deny,
}

/// RLIMIT_MEMLOCK of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memlock {
    /// At most this many bytes.
    Bytes(u64),
    /// No limit.
    Unlimited,
}

/// Signals that the host may send to a container's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signals {
    /// All of them.
    Any,
    /// These, and SIGKILL.
    Only(BTreeSet<Signal>),
}

impl Signals {
    /// Whether the host may send signal `number`. SIGKILL always: the host can end the machine anyway.
    pub fn allows(&self, number: u32) -> bool {
        match (self, Signal::from_number(number)) {
            (Self::Any, _) => (1..=64).contains(&number),
            (Self::Only(_), Some(Signal::KILL)) => true,
            (Self::Only(list), Some(signal)) => list.contains(&signal),
            (Self::Only(_), None) => false,
        }
    }
}

/// A model that the agent mounts into a container, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelMount {
    /// Where its files appear.
    pub destination: GuestPath,
    /// Name of a model in the same policy.
    pub model: String,
}

/// An empty memory file system in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where it is mounted.
    pub destination: GuestPath,
    /// Its size, MiB; at least 1.
    pub size_mib: u64,
}

/// A sealed model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPolicy {
    /// The artifact's name, as bound into the sealing.
    pub name: String,
    /// Its version, as bound into the sealing.
    pub version: u64,
    /// Its manifest.
    pub artifact: DigestRef,
    /// Keys that may open it, at least one.
    pub keys: Vec<KeyId>,
    /// Plaintext bytes of all its files together.
    pub bytes: u64,
}
