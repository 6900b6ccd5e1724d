//! `cella.toml` as it is written: the serialised form of [`crate::Policy`].
//!
//! Types here carry no meaning that was checked; [`crate::Policy::from_file`] checks it. Keys are kebab-case, unknown
//! keys are refused by name at every level, and fields without a default must be present.

use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PolicyFile {
    /// Always [`crate::POLICY_VERSION`].
    pub version: u64,
    /// The key broker.
    pub kbs: KbsFile,
    /// Registries by the name that references use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registry: Vec<RegistryFile>,
    /// Containers that may run, in no order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub container: Vec<ContainerFile>,
    /// Models that the agent pulls and opens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub model: Vec<ModelFile>,
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
}

/// `[[container]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ContainerFile {
    /// Unique in the policy.
    pub name: String,
    /// `registry/repository@sha256:…`.
    pub image: String,
    /// Keys that may decrypt this image's layers. Empty: plain layers only.
    #[serde(default)]
    pub image_keys: Vec<String>,
    /// Whether every layer must be encrypted. Default: true when `image-keys` is not empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_encrypted: Option<bool>,
    /// The process's arguments, exactly.
    pub args: Vec<String>,
    /// The process's environment, exactly; order is free.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory. Default `/`.
    #[serde(default = "root")]
    pub cwd: String,
    /// Upper bound and exact grant of capabilities. Default none.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Whether the host may ask for a terminal. Default false.
    #[serde(default)]
    pub terminal: bool,
    /// Whether the root file system is read-only. Default true.
    #[serde(default = "yes")]
    pub readonly_rootfs: bool,
    /// Host name, exactly; empty = any valid one. Default empty.
    #[serde(default)]
    pub hostname: String,
    /// `allow` or `deny`: whether stdin, stdout and stderr are connected to the host. Default `allow`.
    #[serde(default)]
    pub stdio: StdioFile,
    /// RLIMIT_MEMLOCK in bytes, or `"unlimited"`. Default 0.
    #[serde(default)]
    pub memlock_bytes: MemlockFile,
    /// `"any"` or a list of names. Default `"any"`. SIGKILL is always allowed.
    #[serde(default)]
    pub signals: SignalsFile,
    /// User and groups. Default 0.
    #[serde(default)]
    pub user: UserFile,
    /// Models that the agent mounts, read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount: Vec<MountFile>,
    /// Empty memory file systems that the agent mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<TmpfsFile>,
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

/// `stdio`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StdioFile {
    /// Pipes reach the host.
    #[default]
    Allow,
    /// Output is drained in the guest, input is empty.
    Deny,
}

/// `memlock-bytes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MemlockFile {
    /// A number of bytes.
    Bytes(u64),
    /// The word `unlimited`.
    Word(String),
}

/// `signals`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SignalsFile {
    /// The word `any`.
    Word(String),
    /// Names such as `SIGTERM`.
    List(Vec<String>),
}

/// `[[container.mount]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MountFile {
    /// Where the model's files appear.
    pub destination: String,
    /// A `[[model]]`'s name.
    pub model: String,
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

/// `[[model]]`.
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
}

impl Default for MemlockFile {
    fn default() -> Self {
        Self::Bytes(0)
    }
}

impl Default for SignalsFile {
    fn default() -> Self {
        Self::Word("any".to_owned())
    }
}

fn root() -> String {
    "/".to_owned()
}

const fn yes() -> bool {
    true
}
