//! From the policy's words to a launch plan.

use cella_policy::{
    ContainerPolicy, User,
    check::{AdmittedProcess, AdmittedUser, RequestedRlimit},
};

use super::{Cgroup, ContainerId, Setting};
use crate::{
    launch::{
        HostSeccomp, LaunchPlan, MountPlan, PlanError, ProcessPlan, RlimitPlan, SeccompPlan, TerminalSize,
        capabilities::CapabilitySet,
    },
    network::NetworkPlan,
    workload::{ModelMount, Rootfs},
};

/// What all processes of a container have in common.
#[derive(Clone, Debug)]
pub(super) struct Rights {
    /// Every power within the guest.
    pub(super) privileged: bool,
    /// Whether users other than root keep their capabilities: those that the policy itself names.
    pub(super) ambient: bool,
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
    } = parts;
    let hostname = match (&policy.hostname, hostname) {
        (Some(exact), _) => exact.as_str(),
        (None, "") if network.hostname.is_empty() => "cella",
        (None, "") => network.hostname.as_str(),
        (None, asked) => asked,
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
        mounts: model_mounts.chain(tmpfs).collect(),
        files: vec![
            ("/etc/hostname".into(), format!("{hostname}\n")),
            ("/etc/hosts".into(), network.hosts(hostname)),
            ("/etc/resolv.conf".into(), network.resolv_conf()),
        ],
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
    let user = user(&admitted.user, image_user)?;
    let plan = ProcessPlan {
        args: admitted.args.clone(),
        env: admitted.env.clone(),
        cwd: admitted.cwd.as_str().into(),
        uid: user.uid,
        gid: user.gid,
        additional_gids: user.additional_gids.iter().copied().collect(),
        capabilities: CapabilitySet::from_numbers(admitted.capabilities.iter().map(|one| one.number())),
        rlimits: admitted.rlimits.iter().map(limit).collect(),
        terminal,
        no_new_privileges: admitted.no_new_privileges,
        ambient: rights.ambient,
        seccomp: if rights.privileged {
            SeccompPlan::Machine
        } else {
            SeccompPlan::Container
        },
        host_seccomp: rights.host_seccomp.clone(),
    };
    plan.check().map(|()| plan)
}

/// Numbers as they were admitted; names are not looked up.
fn user(admitted: &AdmittedUser, image: &str) -> Result<User, PlanError> {
    let ids = |uid, gid, groups: &[u32]| User {
        uid,
        gid,
        additional_gids: groups.iter().copied().filter(|group| *group != gid).collect(),
    };
    let unknown = |name: &str| PlanError::UserName(name.to_owned());
    match admitted {
        AdmittedUser::Ids(user) => Ok(user.clone()),
        AdmittedUser::Host {
            uid,
            gid,
            additional_gids,
            name,
        } if name.is_empty() => Ok(ids(*uid, *gid, additional_gids)),
        AdmittedUser::Host { name, .. } => Err(unknown(name)),
        AdmittedUser::Image if image.is_empty() => Ok(ids(0, 0, &[])),
        AdmittedUser::Image => {
            let (uid, gid) = image.split_once(':').unwrap_or((image, "0"));
            match (uid.parse(), gid.parse()) {
                (Ok(uid), Ok(gid)) => Ok(ids(uid, gid, &[])),
                _ => Err(unknown(image)),
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
