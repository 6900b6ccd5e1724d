//! What is admitted, as data. The agent runs this and never looks at the request again.

use std::collections::{BTreeMap, BTreeSet};

use super::request::RequestedRlimit;
use crate::capability::Capability;
use crate::names::Sha256Digest;
use crate::policy::{ContainerPolicy, User};
use crate::volume::VolumeKind;

/// A container that may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission<'p> {
    /// The entry of the policy. Its image, models, memory file systems, stdio and signals hold.
    pub policy: &'p ContainerPolicy,
    /// Whether the host's candidates hold the entry's image. Where they do not, the entry's image runs all the same: worth
    /// a warning, because an operator may expect another one.
    pub image_offered: bool,
    /// Its first process.
    pub process: AdmittedProcess,
    /// Whether the root file system is read-only.
    pub readonly_rootfs: bool,
    /// Host name; empty = the pod's.
    pub hostname: String,
    /// Volumes to mount, in the host's order; no destination twice, none at or over what the policy mounts.
    pub volumes: Vec<AdmittedVolume>,
    /// Every power within the guest.
    pub privileged: bool,
    /// In the pod's process namespace.
    pub shared_pid: bool,
    /// Whether the agent's own list of paths is masked and read-only. False only where the container is privileged, or the
    /// policy leaves it to the host and the host has no list.
    pub masked: bool,
    /// Paths to hide beyond the agent's list: only where the policy leaves it to the host. Absolute, without `..`.
    pub masked_paths: Vec<String>,
    /// Paths to make read-only beyond the agent's list, likewise.
    pub readonly_paths: Vec<String>,
    /// Whether the host's system call filter holds, if it has one.
    pub host_seccomp: bool,
    /// Whether the agent's own list holds. False only where the policy leaves it to the host; what reaches the host or replaces
    /// the kernel is denied even then, if the host has a filter.
    pub agent_seccomp: bool,
    /// Paths of extra devices: only for a privileged container. Below `/dev`.
    pub devices: Vec<String>,
}

/// A process that may be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedProcess {
    /// Program and arguments, at least one.
    pub args: Vec<String>,
    /// `NAME=value`, no name twice.
    pub env: Vec<String>,
    /// Working directory: absolute, without `..`.
    pub cwd: String,
    /// Whom it runs as.
    pub user: AdmittedUser,
    /// Exactly what it gets.
    pub capabilities: BTreeSet<Capability>,
    /// All limits that are set, each kind once; RLIMIT_NOFILE and RLIMIT_MEMLOCK are always among them.
    pub rlimits: Vec<RequestedRlimit>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether programs can never gain privileges.
    pub no_new_privileges: bool,
}

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmittedUser {
    /// These numbers, exactly.
    Ids(User),
    /// As the image's configuration says; names are looked up in the image's passwd and group files.
    Image,
    /// As the host asks.
    Host {
        /// User id; without meaning where `name` is not empty.
        uid: u32,
        /// Group id; without meaning where `name` is not empty.
        gid: u32,
        /// Further groups, to which those of the image's files are added.
        additional_gids: Vec<u32>,
        /// A name for the image's passwd file, `user` or `user:group`; empty = the numbers hold.
        name: String,
    },
}

/// A volume that may be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedVolume {
    /// Where: absolute, normalised.
    pub destination: String,
    /// The pod's name for it.
    pub volume: String,
    /// What it is.
    pub kind: VolumeKind,
    /// Whether the container only reads it.
    pub read_only: bool,
    /// What its files must be from now on, by path; empty = any. [`super::check_files`] compares.
    pub files: BTreeMap<String, Sha256Digest>,
}
