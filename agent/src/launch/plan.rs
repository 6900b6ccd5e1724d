//! What the launcher is to make: the agent's decision, complete, as data.
//!
//! Paths of the container are absolute and without `..`; [`LaunchPlan::check`] says so before anything is started. The
//! fixed mounts (proc, dev, sys, run, cgroup) and the masks are the launcher's own and stand in no plan.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{capabilities::CapabilitySet, host_seccomp::HostSeccomp};

/// What a launcher is told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each launch, and it is written out at once"
)]
pub enum Order {
    /// Make a container and run its first process.
    Container(Box<LaunchPlan>),
    /// Run a further process in a running container.
    Exec(Box<ExecPlan>),
}

/// Everything about a further process. Its container is the one of the process that the launcher's third descriptor
/// stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecPlan {
    /// The container's cgroup v2 directory; `None` only where there is no cgroup v2, in tests.
    pub cgroup: Option<PathBuf>,
    /// The process.
    pub process: ProcessPlan,
}

/// Everything about one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchPlan {
    /// Empty directory of the agent's; the container's file systems are made on it, in its own mount namespace.
    pub bundle: PathBuf,
    /// Unpacked image layers, top first.
    pub lower_dirs: Vec<PathBuf>,
    /// Memory that the container's own changes to its root may take, in MiB.
    pub writable_mib: u64,
    /// Whether the root refuses writes once the container runs.
    pub readonly_rootfs: bool,
    /// Mounts that the policy names.
    pub mounts: Vec<MountPlan>,
    /// Files that the agent writes into the root, such as `/etc/resolv.conf`: path and content.
    pub files: Vec<(PathBuf, String)>,
    /// The pod's namespaces that it joins.
    pub namespaces: NamespacePlan,
    /// What is hidden or made read-only, and what is not.
    pub masks: MaskPlan,
    /// Device nodes of the guest's that it gets besides the harmless ones; below `/dev`.
    pub devices: Vec<PathBuf>,
    /// The pod's shared memory, to be bound on `/dev/shm`; `None` = its own.
    pub shm: Option<PathBuf>,
    /// Host name, where it has a UTS namespace of its own.
    pub hostname: String,
    /// cgroup v2 directory to join; `None` only where there is no cgroup v2, in tests.
    pub cgroup: Option<PathBuf>,
    /// The process.
    pub process: ProcessPlan,
}

/// Paths that tell about the machine or act on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskPlan {
    /// Leaves out the launcher's own list.
    pub nothing: bool,
    /// Lets the container write to `/sys` and its cgroup: for the privileged.
    pub writable: bool,
    /// Further paths to hide.
    pub masked: Vec<PathBuf>,
    /// Further paths to make read-only.
    pub readonly: Vec<PathBuf>,
}

/// Where namespaces are that a container joins; `None` = it gets its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespacePlan {
    /// System V and POSIX messages.
    pub ipc: Option<PathBuf>,
    /// The host name.
    pub uts: Option<PathBuf>,
    /// Processes.
    pub pid: Option<PathBuf>,
}

/// A mount that the policy names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum MountPlan {
    /// A model: a directory of finished files, bound read-only, nosuid, nodev, noexec.
    Model {
        /// The agent's directory.
        source: PathBuf,
        /// Where the container sees it.
        destination: PathBuf,
    },
    /// Memory for the container's own use: nosuid, nodev.
    Tmpfs {
        /// Where the container sees it.
        destination: PathBuf,
        /// Its size in MiB.
        size_mib: u64,
    },
    /// A volume of the pod, a directory or one file, bound nosuid, nodev.
    Volume {
        /// The agent's directory or file.
        source: PathBuf,
        /// Where the container sees it.
        destination: PathBuf,
        /// Whether the container only reads it.
        read_only: bool,
    },
}

impl MountPlan {
    /// Where the container sees it.
    pub fn destination(&self) -> &Path {
        match self {
            Self::Model { destination, .. } | Self::Tmpfs { destination, .. } | Self::Volume { destination, .. } => {
                destination
            }
        }
    }
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessPlan {
    /// Program and arguments; a program without `/` is looked for in the environment's `PATH`.
    pub args: Vec<String>,
    /// `NAME=value`, all of it.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// `user` or `user:group`, by name or number, for the container's passwd and group files; the numbers below then
    /// follow from it. `None` = they hold exactly.
    pub lookup: Option<String>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups. Those of the container's files are added to them.
    pub additional_gids: Vec<u32>,
    /// Exactly what the process gets.
    pub capabilities: CapabilitySet,
    /// Limits. `RLIMIT_CORE` is 0 whatever stands here.
    pub rlimits: Vec<RlimitPlan>,
    /// Size of its terminal; `None` = it has none.
    pub terminal: Option<TerminalSize>,
    /// Whether programs can never gain privileges.
    pub no_new_privileges: bool,
    /// Whether capabilities are kept by a user other than root, too.
    pub ambient: bool,
    /// Which system calls it may make.
    pub seccomp: SeccompPlan,
    /// The host's filter, on top of the agent's.
    pub host_seccomp: Option<HostSeccomp>,
}

/// The agent's own system call filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeccompPlan {
    /// An allow-list: what a container needs.
    Container,
    /// For a privileged container, and for one whose calls the policy leaves to a filter of the host's: everything but what
    /// would reach the host or replace the kernel.
    Machine,
    /// None: the policy leaves it to the host, and the host asks for none.
    Unconfined,
}

/// Size of a terminal in characters; 0 = not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Width.
    pub columns: u16,
    /// Height.
    pub rows: u16,
}

/// One resource limit, soft and hard alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RlimitPlan {
    /// Which, "RLIMIT_NOFILE".
    pub kind: String,
    /// Its soft value; `u64::MAX` = unlimited.
    pub soft: u64,
    /// Its hard value; `u64::MAX` = unlimited.
    pub hard: u64,
}

impl LaunchPlan {
    /// Refuses what the launcher could not carry out.
    pub fn check(&self) -> Result<(), PlanError> {
        self.process.check()?;
        if self.lower_dirs.is_empty() {
            return Err(PlanError::NoLayers);
        }
        let files = self.files.iter().map(|(path, _)| path.as_path());
        let mounts = self.mounts.iter().map(MountPlan::destination);
        let masks = self
            .masks
            .masked
            .iter()
            .chain(&self.masks.readonly)
            .map(PathBuf::as_path);
        let devices = self.devices.iter().map(PathBuf::as_path);
        files
            .chain(mounts)
            .chain(masks)
            .chain(devices)
            .try_for_each(check_path)?;
        if let Some(other) = self.devices.iter().find(|device| !device.starts_with("/dev")) {
            return Err(PlanError::Path(other.clone()));
        }
        for mount in &self.mounts {
            // The launcher's own file systems must not be covered, nor the root.
            let destination = mount.destination();
            let is_offered =
                matches!(mount, MountPlan::Volume { .. }) && OFFERED.iter().any(|one| destination == Path::new(one));
            let is_reserved = destination == Path::new("/") || RESERVED.iter().any(|top| destination.starts_with(top));
            if is_reserved && !is_offered {
                return Err(PlanError::Reserved(destination.to_owned()));
            }
        }
        Ok(())
    }
}

impl ProcessPlan {
    /// Refuses what the launcher could not carry out.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err(PlanError::NoProgram);
        }
        if self.args.iter().chain(&self.env).any(|text| text.contains('\0')) {
            return Err(PlanError::Nul);
        }
        check_path(&self.cwd)
    }
}

/// Absolute and without `..`.
fn check_path(path: &Path) -> Result<(), PlanError> {
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain {
        Ok(())
    } else {
        Err(PlanError::Path(path.to_owned()))
    }
}

/// Why a plan cannot be carried out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// There is nothing to run.
    #[error("the arguments are empty: there is no program to start")]
    NoProgram,
    /// There is no root.
    #[error("the image has no layer")]
    NoLayers,
    /// An argument or variable cannot be handed to a program.
    #[error("an argument or environment variable contains a NUL byte")]
    Nul,
    /// A path that is not absolute and plain.
    #[error("path {} is not absolute, or contains ..", .0.display())]
    Path(PathBuf),
    /// A mount over what the launcher makes itself.
    #[error("a mount on {} would cover what the agent makes there", .0.display())]
    Reserved(PathBuf),
}

const RESERVED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Where a volume may be all the same: what programs expect of Kubernetes.
const OFFERED: [&str; 2] = ["/dev/shm", "/dev/termination-log"];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan() -> LaunchPlan {
        LaunchPlan {
            bundle: "/run/cella/containers/a".into(),
            lower_dirs: vec!["/run/cella/layers/1".into()],
            writable_mib: 16,
            readonly_rootfs: true,
            mounts: vec![MountPlan::Tmpfs {
                destination: "/tmp".into(),
                size_mib: 1,
            }],
            files: vec![("/etc/hostname".into(), "a\n".into())],
            namespaces: NamespacePlan::default(),
            masks: MaskPlan::default(),
            devices: vec![],
            shm: None,
            hostname: "a".into(),
            cgroup: None,
            process: ProcessPlan {
                args: vec!["/bin/true".into()],
                env: vec!["PATH=/bin".into()],
                cwd: "/".into(),
                lookup: None,
                uid: 65534,
                gid: 65534,
                additional_gids: vec![],
                capabilities: CapabilitySet::default(),
                rlimits: vec![RlimitPlan {
                    kind: "RLIMIT_NOFILE".into(),
                    soft: 1024,
                    hard: 1024,
                }],
                terminal: None,
                no_new_privileges: true,
                ambient: true,
                seccomp: SeccompPlan::Container,
                host_seccomp: None,
            },
        }
    }

    #[test]
    fn a_plan_survives_json() {
        let json = serde_json::to_vec(&plan()).unwrap();
        assert_eq!(serde_json::from_slice::<LaunchPlan>(&json).unwrap(), plan());
        assert_eq!(plan().check(), Ok(()));
        let order = Order::Exec(Box::new(ExecPlan {
            cgroup: None,
            process: plan().process,
        }));
        let json = serde_json::to_vec(&order).unwrap();
        assert_eq!(serde_json::from_slice::<Order>(&json).unwrap(), order);
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        let changed = |change: fn(&mut LaunchPlan)| {
            let mut plan = plan();
            change(&mut plan);
            plan.check().unwrap_err()
        };
        assert_eq!(changed(|plan| plan.process.args.clear()), PlanError::NoProgram);
        assert_eq!(changed(|plan| plan.lower_dirs.clear()), PlanError::NoLayers);
        assert_eq!(changed(|plan| plan.process.env.push("A=\0".into())), PlanError::Nul);
        assert_eq!(
            changed(|plan| plan.process.cwd = "work".into()),
            PlanError::Path("work".into())
        );
        assert_eq!(
            changed(|plan| plan.files[0].0 = "/a/../b".into()),
            PlanError::Path("/a/../b".into())
        );
        for covered in ["/", "/dev/shm", "/proc", "/sys/fs"] {
            let mut plan = plan();
            plan.mounts = vec![MountPlan::Tmpfs {
                destination: covered.into(),
                size_mib: 1,
            }];
            assert_eq!(plan.check(), Err(PlanError::Reserved(covered.into())));
        }
        let volume = |destination: &str| {
            let mut plan = plan();
            plan.mounts = vec![MountPlan::Volume {
                source: "/run/cella/pod/volumes/a".into(),
                destination: destination.into(),
                read_only: false,
            }];
            plan.check()
        };
        for offered in ["/dev/shm", "/dev/termination-log", "/data"] {
            assert_eq!(volume(offered), Ok(()), "{offered}");
        }
        for covered in ["/dev", "/dev/null", "/dev/shm/x", "/proc"] {
            assert_eq!(volume(covered), Err(PlanError::Reserved(covered.into())));
        }
    }
}
