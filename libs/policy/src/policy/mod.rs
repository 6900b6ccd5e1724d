//! The validated policy. A [`Policy`] exists only if every rule of `cella.toml` holds; its parts are plain data.

mod calls;
mod container;
mod from_file;
mod network;
mod output;
mod rule;
mod stdio;
mod to_file;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::str::FromStr;

pub use calls::{Call, Stats};
pub use container::{
    ContainerPolicy, MaskedPaths, Match, Memlock, ModelMount, Presence, Rlimits, SealedKind, Seccomp, Signals, Tmpfs,
    User, UserPolicy, VolumePolicy,
};
pub use network::{Destination, NetworkPolicy, Port, Protocol};
pub use output::OutputPolicy;
pub use rule::Rule;
pub use stdio::{Output, Stdio};

use crate::error::{PolicyError, toml_reason};
use crate::file::PolicyFile;
use crate::initdata::MAX_DOCUMENT;
use crate::names::{DigestRef, Endpoint, KeyId, RegistryName};
use crate::pattern::SysctlPattern;
use crate::pem::CertificatePem;
use crate::provenance::Provenance;
use crate::thumbprint::KeyThumbprint;

/// What a guest may run, which models it may open, and whom it asks for keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    revision: Option<(String, u64)>,
    kbs: Option<Kbs>,
    pod: PodPolicy,
    network: NetworkPolicy,
    registries: Vec<Registry>,
    containers: Vec<ContainerPolicy>,
    models: Vec<ModelPolicy>,
    datasets: Vec<ModelPolicy>,
    output: Option<OutputPolicy>,
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

    /// Name and revision, if the policy has them: a broker may refuse revisions below a floor.
    pub fn revision(&self) -> Option<(&str, u64)> {
        self.revision
            .as_ref()
            .map(|(name, revision)| (name.as_str(), *revision))
    }

    /// The key broker. Present whenever [`Policy::key_ids`] is not empty; without it there is nobody to attest to.
    pub fn kbs(&self) -> Option<&Kbs> {
        self.kbs.as_ref()
    }

    /// What the pod as a whole may have.
    pub fn pod(&self) -> &PodPolicy {
        &self.pod
    }

    /// Whom its containers may speak to, and who may speak to them.
    pub fn network(&self) -> &NetworkPolicy {
        &self.network
    }

    /// Whether clients may come in whoever of the containers is there.
    pub fn requires_nobody(&self) -> bool {
        let mut containers = self.containers.iter();
        containers.all(|container| container.presence == Presence::Optional)
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

    /// A model by its name.
    pub fn model(&self, name: &str) -> Option<&ModelPolicy> {
        self.models.iter().find(|model| model.name == name)
    }

    /// All datasets.
    pub fn datasets(&self) -> &[ModelPolicy] {
        &self.datasets
    }

    /// All models, then all datasets. No two have the same name.
    pub fn sealed(&self) -> impl Iterator<Item = &ModelPolicy> + Clone {
        self.models.iter().chain(&self.datasets)
    }

    /// A model or dataset by its name. Present for every mount in this policy.
    pub fn sealed_as(&self, name: &str) -> Option<&ModelPolicy> {
        self.sealed().find(|sealed| sealed.name == name)
    }

    /// What is kept of what a container writes.
    pub fn output(&self) -> Option<&OutputPolicy> {
        self.output.as_ref()
    }

    /// Every key that this policy names, each once, in order: what one attestation fetches.
    pub fn key_ids(&self) -> BTreeSet<&KeyId> {
        let images = self.containers.iter().flat_map(|container| &container.image_keys);
        let sealed = self.sealed().flat_map(|sealed| &sealed.keys);
        let output = self.output.iter().map(|output| &output.key);
        images.chain(sealed).chain(output).collect()
    }

    /// Plaintext bytes of all models and datasets together.
    pub fn model_bytes(&self) -> u64 {
        self.sealed().fold(0, |sum, sealed| sum.saturating_add(sealed.bytes))
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
    /// The only keys that are believed to have signed its tokens; where there are none, the connection vouches for them.
    pub token_keys: BTreeSet<KeyThumbprint>,
}

/// What the pod as a whole may have, beyond its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPolicy {
    /// Kernel parameters that the host may set.
    pub sysctl: Vec<SysctlPattern>,
    /// TCP ports of the pod that the host may reach through the agent.
    pub forward_ports: Rule<BTreeSet<u16>>,
    /// Whether the host may ask for one process namespace for all containers.
    pub share_process_namespace: bool,
    /// Optional calls that the host may make.
    pub calls: BTreeSet<Call>,
    /// How exactly the host is told what containers use.
    pub stats: Stats,
}

impl PodPolicy {
    /// Whether the host may connect to `port` of the pod through the agent. Port 0 is none.
    pub fn forwards(&self, port: u16) -> bool {
        port != 0 && self.forward_ports.allows(|ports| ports.contains(&port))
    }

    /// Whether the host may set the kernel parameter `name`.
    pub fn allows_sysctl(&self, name: &str) -> bool {
        self.sysctl.iter().any(|pattern| pattern.allows(name))
    }
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
    /// Who is asked before it, in this order.
    pub mirrors: Vec<Mirror>,
}

/// Somebody who has the same content as a registry, under the same repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Where the guest finds it.
    pub endpoint: Endpoint,
    /// Present whenever `endpoint` is https.
    pub ca: Option<CertificatePem>,
}

/// A sealed model or dataset.
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
    /// What says which model it is.
    pub provenance: Provenance,
}
