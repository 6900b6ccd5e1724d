//! The part of an OCI runtime specification (1.2) that the shim reads.
//!
//! Values are kept as the text that containerd wrote: a capability or limit that this program does not know reaches the
//! agent unchanged and is refused there. Absent and `null` mean the same, as in Go. Fields that are not here are not
//! carried into the guest; the shim's `container_spec` lists them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// `config.json`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Spec {
    #[serde(deserialize_with = "nullable")]
    pub process: Process,
    #[serde(deserialize_with = "nullable")]
    pub root: Root,
    #[serde(deserialize_with = "nullable")]
    pub hostname: String,
    #[serde(deserialize_with = "nullable")]
    pub mounts: Vec<Mount>,
    #[serde(deserialize_with = "nullable")]
    pub hooks: BTreeMap<String, Option<Vec<Hook>>>,
    #[serde(deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub linux: Linux,
}

/// `process`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Process {
    #[serde(deserialize_with = "nullable")]
    pub terminal: bool,
    #[serde(deserialize_with = "nullable")]
    pub user: User,
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub cwd: String,
    #[serde(deserialize_with = "nullable")]
    pub capabilities: Capabilities,
    #[serde(deserialize_with = "nullable")]
    pub rlimits: Vec<Rlimit>,
    #[serde(deserialize_with = "nullable")]
    pub no_new_privileges: bool,
    #[serde(deserialize_with = "nullable")]
    pub console_size: ConsoleSize,
}

/// `process.consoleSize`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct ConsoleSize {
    pub height: u32,
    pub width: u32,
}

/// `process.user`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    #[serde(deserialize_with = "nullable")]
    pub additional_gids: Vec<u32>,
}

/// `process.capabilities`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Capabilities {
    #[serde(deserialize_with = "nullable")]
    pub bounding: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub effective: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub inheritable: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub permitted: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub ambient: Vec<String>,
}

/// One of `process.rlimits`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

/// `root`; its path is the host's and stays there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Root {
    #[serde(deserialize_with = "nullable")]
    pub readonly: bool,
}

/// One of `mounts`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Mount {
    pub destination: String,
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    #[serde(deserialize_with = "nullable")]
    pub source: String,
    #[serde(deserialize_with = "nullable")]
    pub options: Vec<String>,
}

/// One hook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Hook {
    pub path: String,
}

/// `linux`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Linux {
    #[serde(deserialize_with = "nullable")]
    pub sysctl: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub resources: Resources,
    #[serde(deserialize_with = "nullable")]
    pub namespaces: Vec<Namespace>,
    #[serde(deserialize_with = "nullable")]
    pub devices: Vec<Device>,
    #[serde(deserialize_with = "nullable")]
    pub masked_paths: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub readonly_paths: Vec<String>,
    /// Carried as it is.
    pub seccomp: Option<serde_json::Value>,
}

/// One of `linux.namespaces`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "nullable")]
    pub path: String,
}

/// One of `linux.devices`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Device {
    pub path: String,
}

/// `linux.resources`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Resources {
    #[serde(deserialize_with = "nullable")]
    pub memory: Memory,
    #[serde(deserialize_with = "nullable")]
    pub cpu: Cpu,
    #[serde(deserialize_with = "nullable")]
    pub pids: Pids,
    #[serde(deserialize_with = "nullable")]
    pub unified: BTreeMap<String, String>,
}

/// `linux.resources.memory`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Memory {
    #[serde(deserialize_with = "nullable")]
    pub limit: i64,
    #[serde(deserialize_with = "nullable")]
    pub swap: i64,
}

/// `linux.resources.cpu`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Cpu {
    #[serde(deserialize_with = "nullable")]
    pub shares: u64,
    #[serde(deserialize_with = "nullable")]
    pub quota: i64,
    #[serde(deserialize_with = "nullable")]
    pub period: u64,
    #[serde(deserialize_with = "nullable")]
    pub cpus: String,
    #[serde(deserialize_with = "nullable")]
    pub mems: String,
}

/// `linux.resources.pids`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of the OCI specification, by their names there")]
pub struct Pids {
    #[serde(deserialize_with = "nullable")]
    pub limit: i64,
}

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
