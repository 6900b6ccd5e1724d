//! The validated policy of one container.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rule, Stdio};
use crate::capability::Capability;
use crate::names::{DigestRef, GuestPath, KeyId, Sha256Digest};
use crate::pattern::EnvPattern;
use crate::signal::Signal;
use crate::volume::VolumeKind;

/// What one container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPolicy {
    /// Unique in the policy.
    pub name: String,
    /// How the host's wish finds this entry.
    pub matching: Match,
    /// Its image.
    pub image: DigestRef,
    /// Keys that may decrypt its layers.
    pub image_keys: Vec<KeyId>,
    /// Every layer must be encrypted. Never true without a key.
    pub require_encrypted: bool,
    /// How many of it may be there at once, at least 1.
    pub instances: Rule<u32>,
    /// What must be true of it for the pod's ingress to be open.
    pub presence: Presence,
    /// Containers of the same policy that it may start after only; never in a circle.
    pub after: Vec<String>,
    /// Exact arguments, at least one.
    pub args: Rule<Vec<String>>,
    /// Exact environment, `NAME=value`, names unique.
    pub env: Vec<String>,
    /// Variables beyond `env` whose values the host chooses.
    pub env_allow: Vec<EnvPattern>,
    /// Working directory.
    pub cwd: Rule<GuestPath>,
    /// User and groups.
    pub user: UserPolicy,
    /// Exactly what the process gets.
    pub capabilities: Rule<BTreeSet<Capability>>,
    /// Whether the host may ask for every power within the guest.
    pub privileged: bool,
    /// Whether programs may gain privileges where the host does not forbid it.
    pub new_privileges: bool,
    /// Command lines that the host may run in it.
    pub exec: Rule<Vec<Vec<String>>>,
    /// Whether the host may ask for a terminal.
    pub terminal: bool,
    /// Whether the root file system is read-only.
    pub readonly_rootfs: Rule<bool>,
    /// The host name, or any valid one.
    pub hostname: Option<String>,
    /// What of its streams reaches the host.
    pub stdio: Stdio,
    /// RLIMIT_MEMLOCK.
    pub memlock: Memlock,
    /// Which resource limits the host may set.
    pub rlimits: Rlimits,
    /// Whose system call filters hold.
    pub seccomp: Seccomp,
    /// Who says which paths are masked or read-only.
    pub masked_paths: MaskedPaths,
    /// Which signals the host may send.
    pub signals: Signals,
    /// Volumes that the host may mount; destinations overlap nothing.
    pub volumes: Rule<Vec<VolumePolicy>>,
    /// Models and datasets that the agent mounts; destinations overlap nothing.
    pub mounts: Vec<ModelMount>,
    /// Memory file systems that the agent mounts; destinations overlap nothing.
    pub tmpfs: Vec<Tmpfs>,
    /// Where the policy's output is written, if this container writes it; overlaps nothing.
    pub output: Option<GuestPath>,
}

/// How the host's wish finds a container's entry. Whichever it is, the entry's image is what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// By its name; by its image only where the host gives no name.
    Name,
    /// By its name, and by its image under every name that the policy does not have.
    Image,
}

/// What must be true of a container for clients to be let in, and for those that come after it to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It runs.
    Running,
    /// It has ended with status 0 at least once: what Kubernetes calls an init container.
    Completed,
    /// Nothing: the host may leave it out.
    Optional,
}

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserPolicy {
    /// These numbers, exactly.
    Ids(User),
    /// As the image's configuration says, by the image's own files. What the host asks for has no effect.
    Image,
    /// As the host asks.
    Any,
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

/// RLIMIT_MEMLOCK of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memlock {
    /// At most this many bytes.
    Bytes(u64),
    /// No limit.
    Unlimited,
}

impl Memlock {
    /// Its value as the kernel has it: `u64::MAX` = unlimited.
    pub const fn limit(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Unlimited => u64::MAX,
        }
    }
}

/// Which resource limits the host may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rlimits {
    /// containerd's default RLIMIT_NOFILE and the policy's RLIMIT_MEMLOCK.
    Named,
    /// All of them.
    Any,
}

/// Whose system call filters hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seccomp {
    /// The agent's alone; a filter of the host is dropped.
    Agent,
    /// The agent's, and the host's on top of it.
    Host,
    /// The host's in place of the agent's list, with what reaches the host or replaces the kernel denied; or
    /// none where the host has none: a container may then open vsock, too.
    Any,
}

/// Who says which paths are masked or read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskedPaths {
    /// The agent: its own list, whatever is asked.
    Agent,
    /// The host: no list at all unmasks, and a list is added to the agent's.
    Any,
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

/// A model or dataset that the agent mounts into a container, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelMount {
    /// Where its files appear.
    pub destination: GuestPath,
    /// Which of the two.
    pub kind: SealedKind,
    /// Name of such a one in the same policy.
    pub model: String,
}

/// What a sealed artifact is for. Both have one form and one space of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedKind {
    /// Weights.
    Model,
    /// What is learnt from.
    Dataset,
}

impl SealedKind {
    /// The policy's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        }
    }
}

/// An empty memory file system in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where it is mounted.
    pub destination: GuestPath,
    /// Its size, MiB; at least 1.
    pub size_mib: u64,
}

/// A volume that the host may mount into a container. The host may also leave it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePolicy {
    /// Where it is mounted.
    pub destination: GuestPath,
    /// What it must be.
    pub kind: VolumeKind,
    /// Whether the container only reads it, even where the host asks for more.
    pub read_only: bool,
    /// Its files, exactly, by path; empty = any.
    pub files: BTreeMap<String, Sha256Digest>,
}
