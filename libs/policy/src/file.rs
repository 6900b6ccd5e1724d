//! `cella.toml` as it is written: the serialised form of [`crate::Policy`].
//!
//! Types here carry no meaning that was checked; [`crate::Policy::from_file`] checks it. Keys are kebab-case, unknown
//! keys are refused by name at every level, and fields without a default must be present.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::choice::Choice;

mod output;

pub use output::OutputFile;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PolicyFile {
    /// Always [`crate::POLICY_VERSION`].
    pub version: u64,
    /// The policy's name, by which a broker knows its floor. Together with `revision` or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Monotonic counter of the policies of this name. At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The key broker. Mandatory when any key is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kbs: Option<KbsFile>,
    /// What the pod as a whole may have.
    #[serde(default)]
    pub pod: PodFile,
    /// Whom its containers may speak to, and who may speak to them.
    #[serde(default)]
    pub network: NetworkFile,
    /// Registries by the name that references use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registry: Vec<RegistryFile>,
    /// Containers that may run, in no order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub container: Vec<ContainerFile>,
    /// Models that the agent pulls and opens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub model: Vec<ModelFile>,
    /// Datasets: like models in everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dataset: Vec<ModelFile>,
    /// What is kept of what a container writes. Default nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputFile>,
}

/// `[kbs]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KbsFile {
    /// `https://host:port`.
    pub url: String,
    /// PEM of the only authority that is trusted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Thumbprints of the keys that may sign its tokens. Default none: the connection vouches for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_keys: Vec<String>,
}

/// `[pod]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PodFile {
    /// Kernel parameters that the host may set: `net.ipv4.tcp_syncookies`, `net.*`. Default none.
    #[serde(default)]
    pub sysctl: Vec<String>,
    /// `"any"` or TCP ports that the host may connect to through the agent. Default none.
    #[serde(default)]
    pub forward_ports: Choice<Vec<u16>>,
    /// Whether containers may share one process namespace. Default false.
    #[serde(default)]
    pub share_process_namespace: bool,
    /// `pause`, `update`, `processes`: optional calls of the agent that the host may make. Default none.
    #[serde(default)]
    pub calls: Vec<String>,
    /// `deny`, `coarse` or `exact`: whether the host is told what containers use. Default `deny`.
    #[serde(default)]
    pub stats: StatsFile,
}

/// `[network]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkFile {
    /// `"any"` or whom containers may speak to beyond the pod. Default nobody.
    #[serde(default)]
    pub egress: Choice<Vec<EgressFile>>,
    /// `"any"` or ports such as `8080/tcp` that clients may use. Default none.
    #[serde(default)]
    pub ingress: Choice<Vec<String>>,
}

/// One of `network.egress`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EgressFile {
    /// An IP address, or `address/prefix`. Never a name.
    pub to: String,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// `"any"` or a list; not with `icmp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Choice<Vec<u16>>>,
}

/// `stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StatsFile {
    /// Not told.
    #[default]
    Deny,
    /// Roughly, once a minute.
    Coarse,
    /// All of it.
    Exact,
}

/// `[[registry]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RegistryFile {
    /// `host[:port]` as it stands in references.
    pub name: String,
    /// Where the guest finds it. Default `https://<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// PEM, mandatory for https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Who else has the same content, in the order in which they are asked. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirror: Vec<MirrorFile>,
}

/// `[[registry.mirror]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MirrorFile {
    /// Where the guest finds it.
    pub endpoint: String,
    /// PEM, mandatory for https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// `[[container]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ContainerFile {
    /// Unique in the policy.
    pub name: String,
    /// `name` or `image`: how the host's wish finds this entry. Default `name`.
    #[serde(default, rename = "match")]
    pub matching: MatchFile,
    /// `registry/repository@sha256:…`.
    pub image: String,
    /// Keys that may decrypt this image's layers. Empty: plain layers only.
    #[serde(default)]
    pub image_keys: Vec<String>,
    /// Whether every layer must be encrypted. Default: true when `image-keys` is not empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_encrypted: Option<bool>,
    /// How many of it may be there at once, or `"any"`. Default 1.
    #[serde(default = "one")]
    pub instances: Choice<u32>,
    /// `running`, `completed` or `optional`: what must be true of it for the ingress to be open. Default `running`.
    #[serde(default)]
    pub presence: PresenceFile,
    /// Containers that it may start after only. Default none.
    #[serde(default)]
    pub after: Vec<String>,
    /// The process's arguments, exactly, or `"any"`.
    pub args: Choice<Vec<String>>,
    /// The process's environment, exactly; order is free.
    #[serde(default)]
    pub env: Vec<String>,
    /// Further variables whose values the host chooses: `NAME`, `PREFIX_*`, `*`. Default none.
    #[serde(default)]
    pub env_allow: Vec<String>,
    /// Working directory, or `"any"`. Default `/`.
    #[serde(default = "root")]
    pub cwd: String,
    /// User and groups, or `"image"`, or `"any"`. Default 0.
    #[serde(default)]
    pub user: Choice<UserFile>,
    /// Upper bound and exact grant of capabilities, or `"any"`. Default none.
    #[serde(default)]
    pub capabilities: Choice<Vec<String>>,
    /// Whether the host may ask for every power within the guest. Default false.
    #[serde(default)]
    pub privileged: bool,
    /// Whether programs may gain privileges (set-user-id) where the host does not forbid it. Default false.
    #[serde(default)]
    pub new_privileges: bool,
    /// Command lines that the host may run in it, or `"any"`. Default none.
    #[serde(default)]
    pub exec: Choice<Vec<Vec<String>>>,
    /// Whether the host may ask for a terminal. Default false.
    #[serde(default)]
    pub terminal: bool,
    /// Whether the root file system is read-only, or `"any"`: as the host asks. Default true.
    #[serde(default = "read_only")]
    pub readonly_rootfs: Choice<bool>,
    /// Host name, exactly; empty = any valid one. Default empty.
    #[serde(default)]
    pub hostname: String,
    /// `deny`, `redact` or `allow` for all streams, or a table of one word for each: what of them reaches the host. Default `deny`.
    #[serde(default)]
    pub stdio: Choice<StdioFile>,
    /// RLIMIT_MEMLOCK in bytes, or `"unlimited"`. Default 0.
    #[serde(default)]
    pub memlock_bytes: Choice<u64>,
    /// `named` or `any`: which resource limits the host may set. Default `named`.
    #[serde(default)]
    pub rlimits: RlimitsFile,
    /// `agent`, `host` or `any`: whether the host's system call filter is put on top of the agent's, or in its place. Default `agent`.
    #[serde(default)]
    pub seccomp: SeccompFile,
    /// `agent` or `any`: who says which paths are masked or read-only. Default `agent`.
    #[serde(default)]
    pub masked_paths: MaskedPathsFile,
    /// `"any"` or a list of names. Default SIGTERM and SIGINT. SIGKILL is always allowed.
    #[serde(default = "stopping")]
    pub signals: Choice<Vec<String>>,
    /// `named` or `any`: which volumes the host may mount. Default `named`: those of `volume`.
    #[serde(default)]
    pub volumes: VolumesFile,
    /// Models and datasets that the agent mounts, read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount: Vec<MountFile>,
    /// Empty memory file systems that the agent mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<TmpfsFile>,
    /// Volumes that the host may mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume: Vec<VolumeFile>,
}

/// `match`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchFile {
    /// By name; by image only where the host gives no name.
    #[default]
    Name,
    /// Also by image under a name that the policy does not have.
    Image,
}

/// `presence`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PresenceFile {
    /// It must run.
    #[default]
    Running,
    /// It must have ended with status 0.
    Completed,
    /// It may be left out.
    Optional,
}

/// `rlimits`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RlimitsFile {
    /// Those of the policy and containerd's default.
    #[default]
    Named,
    /// All of them.
    Any,
}

/// `volumes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumesFile {
    /// Those of `[[container.volume]]`.
    #[default]
    Named,
    /// Every one that the agent can make.
    Any,
}

/// `seccomp`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeccompFile {
    /// The agent's filter alone.
    #[default]
    Agent,
    /// The agent's filter and the host's.
    Host,
    /// The host's in place of the agent's list, or none.
    Any,
}

/// `masked-paths`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskedPathsFile {
    /// The agent's own, always.
    #[default]
    Agent,
    /// As the host asks.
    Any,
}

/// `user = { uid, gid, additional-gids }`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UserFile {
    /// User id.
    #[serde(default)]
    pub uid: u32,
    /// Group id.
    #[serde(default)]
    pub gid: u32,
    /// Further groups.
    #[serde(default)]
    pub additional_gids: Vec<u32>,
}

/// `stdio = { stdin, stdout, stderr }`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StdioFile {
    /// `deny` or `allow`.
    #[serde(default)]
    pub stdin: StreamFile,
    /// What is printed.
    #[serde(default)]
    pub stdout: StreamFile,
    /// What is printed about errors.
    #[serde(default)]
    pub stderr: StreamFile,
}

/// What of a stream reaches the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamFile {
    /// Nothing: output is drained in the guest, input is empty.
    #[default]
    Deny,
    /// How much, roughly and now and then.
    Redact,
    /// Every byte.
    Allow,
}

/// `[[container.mount]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MountFile {
    /// Where the files appear.
    pub destination: String,
    /// A `[[model]]`'s name. Either this or `dataset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A `[[dataset]]`'s name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
}

/// `[[container.tmpfs]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TmpfsFile {
    /// Where it is mounted.
    pub destination: String,
    /// Its size, MiB.
    pub size_mib: u64,
}

/// `[[container.volume]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VolumeFile {
    /// Where it is mounted.
    pub destination: String,
    /// `empty-dir`, `config-map`, `secret`, `projected`, `downward-api`, `hosts`, `hostname`, `resolv-conf` or
    /// `termination-log`.
    pub kind: String,
    /// Whether the container only reads it. Default: true, but for `empty-dir` and `termination-log`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Its files, exactly: path and `sha256:…`. Empty: any. The path of a volume that is one file is empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// `[[model]]` and `[[dataset]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelFile {
    /// The artifact's name, bound into the sealing.
    pub name: String,
    /// Monotonic counter, bound into the sealing. At least 1.
    pub version: u64,
    /// `registry/repository@sha256:…`.
    pub artifact: String,
    /// Keys that may open its layers.
    pub keys: Vec<String>,
    /// Sum of the plaintext lengths of its files.
    pub bytes: u64,
    /// `sealed` or `digest`: what says which model it is. Default `sealed`.
    #[serde(default)]
    pub provenance: ProvenanceFile,
    /// `blake3:…` of the plaintext, for `provenance = "digest"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// `provenance`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProvenanceFile {
    /// The owner's key.
    #[default]
    Sealed,
    /// A digest of the plaintext too.
    Digest,
}

fn root() -> String {
    "/".to_owned()
}

/// The signals by which programs are asked to end.
fn stopping() -> Choice<Vec<String>> {
    Choice::Value(STOPPING.map(str::to_owned).to_vec())
}

/// What `signals` is where a policy does not say it.
pub const STOPPING: [&str; 2] = ["SIGTERM", "SIGINT"];

const fn one() -> Choice<u32> {
    Choice::Value(1)
}

const fn read_only() -> Choice<bool> {
    Choice::Value(true)
}
