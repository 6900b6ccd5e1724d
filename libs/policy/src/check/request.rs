//! What the host asks for, as it came, and how much of it is looked at. All of it is untrusted. Read from JSON only by tools.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Denial, Subject};
use crate::volume::VolumeKind;

/// The agent API's CreateContainer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ContainerRequest {
    /// The policy's name for the container where the host knows one, else empty.
    pub name: String,
    /// Image candidates, `repo@sha256:…` or `sha256:…`: a hint.
    pub images: Vec<String>,
    /// Its first process.
    pub process: ProcessRequest,
    /// Mounts.
    pub mounts: Vec<RequestedMount>,
    /// Host name; empty = the pod's.
    pub hostname: String,
    /// Whether the root file system shall be read-only.
    pub readonly_rootfs: bool,
    /// Paths that shall be hidden.
    pub masked_paths: Vec<String>,
    /// Paths that shall be read-only.
    pub readonly_paths: Vec<String>,
    /// Kernel parameters.
    pub sysctl: BTreeMap<String, String>,
    /// Paths of extra devices.
    pub devices: Vec<String>,
    /// Paths of OCI hooks.
    pub hooks: Vec<String>,
    /// Whether the process namespace shall be the pod's.
    pub shared_pid: bool,
    /// Namespaces of the host that are wanted.
    pub host_namespaces: Vec<String>,
    /// Whether every power is wanted.
    pub privileged: bool,
}

/// A process, as it is asked for: a container's first, or the agent API's ExecProcess.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProcessRequest {
    /// Process arguments.
    pub args: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups. The primary one may be among them, as containerd does it.
    pub additional_gids: Vec<u32>,
    /// A user by name, for the image's files; empty = `uid` and `gid` hold.
    pub user_name: String,
    /// Capabilities of all five sets.
    pub capabilities: Vec<String>,
    /// Resource limits.
    pub rlimits: Vec<RequestedRlimit>,
    /// Whether a terminal is wanted.
    pub terminal: bool,
    /// Whether programs shall never gain privileges.
    pub no_new_privileges: bool,
}

/// A mount. Its source on the host is not here: the agent never uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RequestedMount {
    /// Path in the container.
    pub destination: String,
    /// `proc`, `tmpfs`, `bind`, …
    pub kind: String,
    /// The pod's name for the volume that is to be mounted; empty = none.
    pub volume: String,
    /// What that volume is; `None` when the pod has none of that name.
    pub volume_kind: Option<VolumeKind>,
    /// Whether it shall be read-only.
    pub read_only: bool,
}

/// A resource limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RequestedRlimit {
    /// `RLIMIT_NOFILE`, …
    pub kind: String,
    /// Soft limit; `u64::MAX` = unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` = unlimited.
    pub hard: u64,
}

impl ContainerRequest {
    /// Refuses lists that are longer than anybody needs, before any of them is walked.
    pub(super) fn check_bounds(&self) -> Result<(), Denial> {
        let subject = || Subject::Container(String::new());
        self.process.check_bounds(subject)?;
        for (field, found, limit) in [
            ("images", self.images.len(), MAX_IMAGES),
            ("mounts", self.mounts.len(), MAX_MOUNTS),
            ("masked paths", self.masked_paths.len(), MAX_PATHS),
            ("read-only paths", self.readonly_paths.len(), MAX_PATHS),
            ("sysctl", self.sysctl.len(), MAX_SYSCTL),
            ("devices", self.devices.len(), MAX_PATHS),
            ("hooks", self.hooks.len(), MAX_PATHS),
            ("host namespaces", self.host_namespaces.len(), MAX_PATHS),
        ] {
            bounded(subject, field, found, limit)?;
        }
        Ok(())
    }
}

impl ProcessRequest {
    /// Refuses lists that are longer than anybody needs, before any of them is walked.
    pub(super) fn check_bounds(&self, subject: impl Fn() -> Subject) -> Result<(), Denial> {
        for (field, found, limit) in [
            ("args", self.args.len(), MAX_STRINGS),
            ("variables", self.env.len(), MAX_STRINGS),
            ("additional groups", self.additional_gids.len(), MAX_GROUPS),
            ("capabilities", self.capabilities.len(), MAX_CAPABILITIES),
            ("limits", self.rlimits.len(), MAX_RLIMITS),
        ] {
            bounded(&subject, field, found, limit)?;
        }
        let bytes = self.args.iter().chain(&self.env).map(String::len).sum();
        bounded(subject, "bytes of args and variables", bytes, MAX_BYTES)
    }
}

pub(super) fn bounded(
    subject: impl Fn() -> Subject,
    field: &'static str,
    found: usize,
    limit: usize,
) -> Result<(), Denial> {
    if found <= limit {
        return Ok(());
    }
    Err(Denial::TooMany {
        subject: subject(),
        field,
        found,
        limit,
    })
}

/// Arguments, and variables: four times what a policy can name.
const MAX_STRINGS: usize = 4096;
/// What Linux takes as arguments and environment with its usual stack.
const MAX_BYTES: usize = 2 << 20;
const MAX_GROUPS: usize = 1024;
/// Five sets of all there are, and some that this program does not know.
const MAX_CAPABILITIES: usize = 512;
const MAX_RLIMITS: usize = 32;
const MAX_IMAGES: usize = 64;
const MAX_MOUNTS: usize = 256;
const MAX_PATHS: usize = 256;
pub(super) const MAX_SYSCTL: usize = 64;
