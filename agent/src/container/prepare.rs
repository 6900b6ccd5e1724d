//! From the policy's words to a launch plan.

use std::path::{Path, PathBuf};

use cella_policy::{
    ContainerPolicy,
    check::{AdmittedProcess, AdmittedUser, RequestedRlimit},
};

use super::{Cgroup, ContainerId, Setting};
use crate::{
    launch::{
        HostSeccomp, LaunchPlan, MaskPlan, MountPlan, NamespacePlan, PlanError, ProcessPlan, RlimitPlan, SeccompPlan,
        TerminalSize, capabilities::CapabilitySet,
    },
    network::NetworkPlan,
    pod::CommonGround,
    workload::{ModelMount, Rootfs},
};

/// What all processes of a container have in common.
#[derive(Clone, Debug)]
pub(super) struct Rights {
    /// Every power within the guest.
    pub(super) privileged: bool,
    /// Whether users other than root keep their capabilities: those that the policy itself names.
    pub(super) ambient: bool,
    /// Whether the agent's allow-list of system calls holds.
    pub(super) agent_seccomp: bool,
    /// A system call filter of the host's.
    pub(super) host_seccomp: Option<HostSeccomp>,
}

/// Everything that a launch is made of.
pub(super) struct Parts<'a> {
    pub(super) id: &'a ContainerId,
    pub(super) policy: &'a ContainerPolicy,
    pub(super) process: &'a AdmittedProcess,
    pub(super) rights: &'a Rights,
    pub(super) readonly_rootfs: bool,
    pub(super) hostname: &'a str,
    pub(super) terminal: Option<TerminalSize>,
    pub(super) rootfs: Rootfs,
    pub(super) models: Vec<ModelMount>,
    pub(super) network: &'a NetworkPlan,
    pub(super) cgroup: Option<&'a Cgroup>,
    /// What it shares with the pod's other containers.
    pub(super) ground: CommonGround,
    /// The process namespace that it shares, if it shares one.
    pub(super) process_namespace: Option<PathBuf>,
    pub(super) volumes: &'a [MountPlan],
    pub(super) masks: &'a MaskPlan,
    pub(super) devices: &'a [PathBuf],
}

/// The plan: what was admitted, and nothing else.
pub(super) fn plan(parts: Parts<'_>, setting: &Setting) -> Result<LaunchPlan, PlanError> {
    let Parts {
        id,
        policy,
        process,
        rights,
        readonly_rootfs,
        hostname,
        terminal,
        rootfs,
        models,
        network,
        cgroup,
        ground,
        process_namespace,
        volumes,
        masks,
        devices,
    } = parts;
    let hostname = match (&policy.hostname, hostname) {
        (Some(exact), _) => exact.as_str(),
        (None, "") => ground.hostname.as_str(),
        (None, asked) => asked,
    };
    // A container that goes by another name than its pod's cannot have the pod's UTS namespace.
    let uts = (hostname == ground.hostname).then(|| ground.uts.clone());
    // Where a volume comes the file is made empty, whatever the image has there: it may be a link to nowhere.
    let file = |path: &str, text: String| {
        let covered = volumes.iter().any(|mount| mount.destination() == Path::new(path));
        (PathBuf::from(path), if covered { String::new() } else { text })
    };
    let model_mounts = models.into_iter().map(|model| MountPlan::Model {
        source: model.source,
        destination: model.destination,
    });
    let tmpfs = policy.tmpfs.iter().map(|tmpfs| MountPlan::Tmpfs {
        destination: tmpfs.destination.as_str().into(),
        size_mib: tmpfs.size_mib,
    });
    let plan = LaunchPlan {
        bundle: setting.bundle(id),
        lower_dirs: rootfs.lower_dirs,
        writable_mib: setting.writable_mib,
        readonly_rootfs,
        mounts: model_mounts.chain(tmpfs).chain(volumes.iter().cloned()).collect(),
        files: vec![
            file("/etc/hostname", format!("{hostname}\n")),
            file("/etc/hosts", network.hosts(hostname)),
            file("/etc/resolv.conf", network.resolv_conf()),
        ],
        namespaces: NamespacePlan {
            ipc: Some(ground.ipc),
            uts,
            pid: process_namespace,
        },
        masks: masks.clone(),
        devices: devices.to_vec(),
        shm: Some(ground.shm),
        hostname: hostname.to_owned(),
        cgroup: cgroup.map(|cgroup| cgroup.path().to_owned()),
        process: self::process(process, &rootfs.user, rights, terminal)?,
    };
    plan.check().map(|()| plan)
}

/// A process of a container whose image runs as `image_user`.
pub(super) fn process(
    admitted: &AdmittedProcess,
    image_user: &str,
    rights: &Rights,
    terminal: Option<TerminalSize>,
) -> Result<ProcessPlan, PlanError> {
    let user = user(&admitted.user, image_user);
    let plan = ProcessPlan {
        args: admitted.args.clone(),
        env: admitted.env.clone(),
        cwd: admitted.cwd.as_str().into(),
        lookup: user.lookup,
        uid: user.uid,
        gid: user.gid,
        additional_gids: user.additional_gids,
        capabilities: CapabilitySet::from_numbers(admitted.capabilities.iter().map(|one| one.number())),
        rlimits: admitted.rlimits.iter().map(limit).collect(),
        terminal,
        no_new_privileges: admitted.no_new_privileges,
        ambient: rights.ambient,
        seccomp: match (rights.privileged, rights.agent_seccomp, &rights.host_seccomp) {
            (true, ..) | (false, false, Some(_)) => SeccompPlan::Machine,
            (false, true, _) => SeccompPlan::Container,
            (false, false, None) => SeccompPlan::Unconfined,
        },
        host_seccomp: rights.host_seccomp.clone(),
    };
    plan.check().map(|()| plan)
}

/// Whom a process runs as: numbers, and what is looked up in the container's files when it is there.
#[derive(Debug, Default, PartialEq, Eq)]
struct User {
    lookup: Option<String>,
    uid: u32,
    gid: u32,
    additional_gids: Vec<u32>,
}

fn user(admitted: &AdmittedUser, image: &str) -> User {
    match admitted {
        AdmittedUser::Ids(user) => User {
            lookup: None,
            uid: user.uid,
            gid: user.gid,
            additional_gids: user.additional_gids.iter().copied().collect(),
        },
        AdmittedUser::Image => User {
            lookup: Some(if image.is_empty() {
                "0".to_owned()
            } else {
                image.to_owned()
            }),
            ..User::default()
        },
        AdmittedUser::Host {
            uid,
            gid,
            additional_gids,
            name,
        } => {
            // containerd looks a user's group up in the image; where it has none it says 0, and lists that among the
            // further groups. Then the image's own files decide, as they would have done there.
            let unknown_group = *gid == 0 && (*uid != 0 || !name.is_empty());
            let lookup = match (name.as_str(), unknown_group) {
                ("", true) => uid.to_string(),
                ("", false) => format!("{uid}:{gid}"),
                (name, _) => name.to_owned(),
            };
            let keeps = |group: &u32| *group != *gid || !unknown_group;
            User {
                lookup: Some(lookup),
                uid: *uid,
                gid: *gid,
                additional_gids: additional_gids.iter().copied().filter(keeps).collect(),
            }
        }
    }
}

fn limit(admitted: &RequestedRlimit) -> RlimitPlan {
    RlimitPlan {
        kind: admitted.kind.clone(),
        soft: admitted.soft,
        hard: admitted.hard,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(uid: u32, gid: u32, additional_gids: &[u32], name: &str) -> User {
        let admitted = AdmittedUser::Host {
            uid,
            gid,
            additional_gids: additional_gids.to_vec(),
            name: name.to_owned(),
        };
        user(&admitted, "")
    }

    #[test]
    fn names_and_groups_are_left_to_the_images_files() {
        let image = |image| user(&AdmittedUser::Image, image).lookup.unwrap();
        assert_eq!(
            (image(""), image("web:media")),
            ("0".to_owned(), "web:media".to_owned())
        );
        assert_eq!(host(0, 0, &[], "web").lookup.unwrap(), "web");
        // Said by number, group and all: as asked.
        assert_eq!(host(7, 8, &[8, 9], "").lookup.unwrap(), "7:8");
        assert_eq!(host(7, 8, &[8, 9], "").additional_gids, [8, 9]);
        assert_eq!(host(0, 0, &[0, 9], "").lookup.unwrap(), "0:0");
        // No group said: containerd has put root's there.
        assert_eq!(host(7, 0, &[0, 9], "").lookup.unwrap(), "7");
        assert_eq!(host(7, 0, &[0, 9], "").additional_gids, [9]);
    }
}
