//! The workload as its owner describes it: a policy in which the machine fills in what it can find out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cella_policy::file::{
    Choice, MaskedPathsFile, MatchFile, MountFile, NetworkFile, OutputFile, PodFile, PresenceFile, ProvenanceFile,
    RlimitsFile, SeccompFile, StdioFile, TmpfsFile, UserFile, VolumeFile, VolumesFile,
};
use serde::Deserialize;

/// The whole file. Unknown keys are refused by name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WorkloadFile {
    /// Together with `revision` or not at all.
    pub(super) name: Option<String>,
    pub(super) revision: Option<u64>,
    /// Mandatory when a key is named.
    pub(super) kbs: Option<KbsWork>,
    #[serde(default)]
    pub(super) pod: PodFile,
    #[serde(default)]
    pub(super) network: NetworkFile,
    #[serde(default)]
    pub(super) registry: Vec<RegistryWork>,
    #[serde(default)]
    pub(super) container: Vec<ContainerWork>,
    #[serde(default)]
    pub(super) model: Vec<ModelWork>,
    #[serde(default)]
    pub(super) dataset: Vec<ModelWork>,
    pub(super) output: Option<OutputFile>,
    /// Images that lie on this machine: reference, directory of an OCI layout.
    #[serde(skip)]
    pub(super) layouts: BTreeMap<String, PathBuf>,
}

/// `[kbs]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct KbsWork {
    /// As the guest reaches it.
    #[serde(default)]
    pub(super) url: String,
    /// PEM file.
    pub(super) ca: Option<PathBuf>,
    /// Thumbprints, as `cellactl kbs jwks` shows them.
    #[serde(default)]
    pub(super) token_keys: Vec<String>,
}

/// `[[registry]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RegistryWork {
    /// As it stands in references.
    pub(super) name: String,
    /// As the guest reaches it. Default `https://<name>`.
    pub(super) endpoint: Option<String>,
    /// PEM file, mandatory for https.
    pub(super) ca: Option<PathBuf>,
    /// As this machine reaches it, where that differs. Default: the name.
    pub(super) desk_url: Option<String>,
    /// Asked before it, in this order.
    #[serde(default)]
    pub(super) mirror: Vec<MirrorWork>,
}

/// `[[registry.mirror]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MirrorWork {
    /// As the guest reaches it.
    pub(super) endpoint: String,
    /// PEM file, mandatory for https.
    pub(super) ca: Option<PathBuf>,
}

/// `[[container]]`: the keys of a policy, and these.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ContainerWork {
    pub(super) name: String,
    /// By tag or by digest. Left out only where a pod's YAML says it.
    #[serde(default)]
    pub(super) image: String,
    /// Default: the keys that its layers name.
    pub(super) image_keys: Option<Vec<String>>,
    /// Default: true if any layer is encrypted; then all must be.
    pub(super) require_encrypted: Option<bool>,
    #[serde(default, rename = "match")]
    pub(super) matching: MatchFile,
    #[serde(default = "one")]
    pub(super) instances: Choice<u32>,
    #[serde(default)]
    pub(super) presence: PresenceFile,
    #[serde(default)]
    pub(super) after: Vec<String>,
    /// The whole command line, or any. Default: the image's entry point and arguments.
    pub(super) args: Option<Choice<Vec<String>>>,
    /// Further variables, or other values for the image's: `NAME=value`.
    #[serde(default)]
    pub(super) env: Vec<String>,
    /// Variables that look like secrets and are none.
    #[serde(default)]
    pub(super) allow_env: Vec<String>,
    /// Variables whose values the host chooses.
    #[serde(default)]
    pub(super) env_allow: Vec<String>,
    /// Default: the image's, or `/`.
    pub(super) cwd: Option<String>,
    /// Default: the image's: by number if it is one, else `"image"`.
    pub(super) user: Option<Choice<UserFile>>,
    #[serde(default)]
    pub(super) capabilities: Choice<Vec<String>>,
    #[serde(default)]
    pub(super) privileged: bool,
    #[serde(default)]
    pub(super) new_privileges: bool,
    #[serde(default)]
    pub(super) exec: Choice<Vec<Vec<String>>>,
    #[serde(default)]
    pub(super) terminal: bool,
    #[serde(default = "read_only")]
    pub(super) readonly_rootfs: Choice<bool>,
    #[serde(default)]
    pub(super) hostname: String,
    #[serde(default)]
    pub(super) stdio: Choice<StdioFile>,
    #[serde(default)]
    pub(super) memlock_bytes: Choice<u64>,
    #[serde(default)]
    pub(super) rlimits: RlimitsFile,
    #[serde(default)]
    pub(super) seccomp: SeccompFile,
    #[serde(default)]
    pub(super) masked_paths: MaskedPathsFile,
    /// Default: SIGTERM, SIGINT, and the image's stop signal.
    pub(super) signals: Option<Choice<Vec<String>>>,
    #[serde(default)]
    pub(super) volumes: VolumesFile,
    #[serde(default)]
    pub(super) mount: Vec<MountFile>,
    #[serde(default)]
    pub(super) tmpfs: Vec<TmpfsFile>,
    #[serde(default)]
    pub(super) volume: Vec<VolumeFile>,
    /// What a pod's YAML says in terms of an image that is not known yet.
    #[serde(skip)]
    pub(super) kubernetes: Option<KubernetesWork>,
}

/// A container of a pod, as far as its image decides what it means.
#[derive(Debug, Default)]
pub(super) struct KubernetesWork {
    /// Where in the YAML.
    pub(super) line: usize,
    /// In place of the image's entry point and arguments.
    pub(super) command: Option<Vec<String>>,
    /// In place of the image's arguments.
    pub(super) args: Option<Vec<String>>,
    /// In place of the image's.
    pub(super) stop_signal: Option<String>,
    /// `runAsUser`.
    pub(super) user: Option<u32>,
    /// `runAsGroup`.
    pub(super) group: Option<u32>,
    /// `supplementalGroups`, `fsGroup`.
    pub(super) groups: Vec<u32>,
    /// `runAsNonRoot`.
    pub(super) not_root: bool,
    /// Capabilities beyond the usual ones, and those that are taken away; `ALL` may be.
    pub(super) add: Vec<String>,
    pub(super) drop: Vec<String>,
}

impl ContainerWork {
    /// Everything at its default.
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            instances: one(),
            readonly_rootfs: read_only(),
            ..Self::default()
        }
    }
}

/// `[[model]]` and `[[dataset]]`: everything but the artifact is read from its manifest; what is given here must agree with it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ModelWork {
    /// By tag or by digest.
    pub(super) artifact: String,
    pub(super) name: Option<String>,
    pub(super) version: Option<u64>,
    pub(super) keys: Option<Vec<String>>,
    #[serde(default)]
    pub(super) provenance: ProvenanceFile,
    /// With `provenance = "digest"`.
    pub(super) digest: Option<String>,
}

impl WorkloadFile {
    /// Reads a workload; paths in it become relative to the directory of `file`.
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self, WorkloadError> {
        let failed = |source| WorkloadError {
            path: file.to_owned(),
            source: Box::new(source),
        };
        let mut workload: Self = toml::from_str(text).map_err(failed)?;
        let beside = crate::files::parent(file);
        let authorities = workload.registry.iter_mut().flat_map(|registry| {
            let mirrors = registry.mirror.iter_mut().map(|mirror| &mut mirror.ca);
            mirrors.chain(Some(&mut registry.ca))
        });
        let broker = workload.kbs.as_mut().map(|kbs| &mut kbs.ca);
        for path in authorities.chain(broker).flatten() {
            *path = beside.join(&*path);
        }
        Ok(workload)
    }
}

/// The file is no workload.
#[derive(Debug, thiserror::Error)]
#[error("{} is not a workload", path.display())]
pub(crate) struct WorkloadError {
    path: PathBuf,
    source: Box<toml::de::Error>,
}

const fn one() -> Choice<u32> {
    Choice::Value(1)
}

const fn read_only() -> Choice<bool> {
    Choice::Value(true)
}
