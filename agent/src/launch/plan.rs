//! What the launcher is to make: the agent's decision, complete, as data.
//!
//! Paths of the container are absolute and without `..`; [`LaunchPlan::check`] says so before anything is started. The
//! fixed mounts (proc, dev, sys, run, cgroup) and the masks are the launcher's own and stand in no plan.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::capabilities::CapabilitySet;

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

/// The container's first process.
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
}

/// One resource limit, soft and hard alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RlimitPlan {
    /// Which.
    pub kind: RlimitKind,
    /// Its soft value; `u64::MAX` = unlimited.
    pub soft: u64,
    /// Its hard value; `u64::MAX` = unlimited.
    pub hard: u64,
}

/// The limits that a plan may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RlimitKind {
    /// `RLIMIT_NOFILE`.
    Nofile,
    /// `RLIMIT_MEMLOCK`.
    Memlock,
}

impl LaunchPlan {
    /// Refuses what the launcher could not carry out.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.process.args.first().is_none_or(String::is_empty) {
            return Err(PlanError::NoProgram);
        }
        if self.lower_dirs.is_empty() {
            return Err(PlanError::NoLayers);
        }
        let process = &self.process;
        if process.args.iter().chain(&process.env).any(|text| text.contains('\0')) {
            return Err(PlanError::Nul);
        }
        let files = self.files.iter().map(|(path, _)| path.as_path());
        let mounts = self.mounts.iter().map(MountPlan::destination);
        for path in files.chain(mounts).chain([process.cwd.as_path()]) {
            let plain = path
                .components()
                .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            if !path.is_absolute() || !plain {
                return Err(PlanError::Path(path.to_owned()));
            }
        }
        for destination in self.mounts.iter().map(MountPlan::destination) {
            // The launcher's own file systems must not be covered, nor the root.
            if destination == Path::new("/") || RESERVED.iter().any(|top| destination.starts_with(top)) {
                return Err(PlanError::Reserved(destination.to_owned()));
            }
        }
        Ok(())
    }
}

/// Why a plan cannot be carried out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// There is nothing to run.
    #[error("the policy's args are empty: there is no program to start")]
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
                    kind: RlimitKind::Nofile,
                    soft: 1024,
                    hard: 1024,
                }],
            },
        }
    }

    #[test]
    fn a_plan_survives_json() {
        let json = serde_json::to_vec(&plan()).unwrap();
        assert_eq!(serde_json::from_slice::<LaunchPlan>(&json).unwrap(), plan());
        assert_eq!(plan().check(), Ok(()));
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
