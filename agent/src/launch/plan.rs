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
pub enum Order {
    /// Make a container and run its first process.
    Container(LaunchPlan),
    /// Run a further process in a running container.
    Exec(ExecPlan),
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
    /// Host name in the container's UTS namespace.
    pub hostname: String,
    /// cgroup v2 directory to join; `None` only where there is no cgroup v2, in tests.
    pub cgroup: Option<PathBuf>,
    /// The process.
    pub process: ProcessPlan,
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
}

impl MountPlan {
    /// Where the container sees it.
    pub fn destination(&self) -> &Path {
        match self {
            Self::Model { destination, .. } | Self::Tmpfs { destination, .. } => destination,
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
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
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
    /// For a privileged container: everything but what would reach the host or replace the kernel.
    Machine,
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
        files.chain(mounts).try_for_each(check_path)?;
        for destination in self.mounts.iter().map(MountPlan::destination) {
            // The launcher's own file systems must not be covered, nor the root.
            if destination == Path::new("/") || RESERVED.iter().any(|top| destination.starts_with(top)) {
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
    /// A user that only the image's files know.
    #[error("the user {0:?} is a name, and names are not looked up")]
    UserName(String),
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
            hostname: "a".into(),
            cgroup: None,
            process: ProcessPlan {
                args: vec!["/bin/true".into()],
                env: vec!["PATH=/bin".into()],
                cwd: "/".into(),
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
        let order = Order::Exec(ExecPlan {
            cgroup: None,
            process: plan().process,
        });
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
    }
}
