//! From the policy's words to a launch plan.

use cella_policy::{ContainerPolicy, Memlock, check::DEFAULT_NOFILE};

use super::{Cgroup, ContainerId, Setting};
use crate::{
    launch::{
        LaunchPlan, MountPlan, PlanError, ProcessPlan, RlimitPlan, capabilities::CapabilitySet, plan::RlimitKind,
    },
    network::NetworkPlan,
    workload::{ModelMount, Rootfs},
};

/// Everything that a launch is made of.
pub(super) struct Parts<'a> {
    pub(super) id: &'a ContainerId,
    pub(super) policy: &'a ContainerPolicy,
    pub(super) hostname: &'a str,
    pub(super) rootfs: Rootfs,
    pub(super) models: Vec<ModelMount>,
    pub(super) network: &'a NetworkPlan,
    pub(super) cgroup: Option<&'a Cgroup>,
}

/// The plan: the policy's word on everything, the host's on the host name alone.
pub(super) fn plan(parts: Parts<'_>, setting: &Setting) -> Result<LaunchPlan, PlanError> {
    let Parts {
        id,
        policy,
        hostname,
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
    let memlock = match policy.memlock {
        Memlock::Bytes(bytes) => bytes,
        Memlock::Unlimited => u64::MAX,
    };
    let limit = |kind, value| RlimitPlan {
        kind,
        soft: value,
        hard: value,
    };
    let plan = LaunchPlan {
        bundle: setting.bundle(id),
        lower_dirs: rootfs.lower_dirs,
        writable_mib: setting.writable_mib,
        readonly_rootfs: policy.readonly_rootfs,
        mounts: model_mounts.chain(tmpfs).collect(),
        files: vec![
            ("/etc/hostname".into(), format!("{hostname}\n")),
            ("/etc/hosts".into(), network.hosts(hostname)),
            ("/etc/resolv.conf".into(), network.resolv_conf()),
        ],
        hostname: hostname.to_owned(),
        cgroup: cgroup.map(|cgroup| cgroup.path().to_owned()),
        process: ProcessPlan {
            args: policy.args.clone(),
            env: policy.env.clone(),
            cwd: policy.cwd.as_str().into(),
            uid: policy.user.uid,
            gid: policy.user.gid,
            additional_gids: policy.user.additional_gids.iter().copied().collect(),
            capabilities: CapabilitySet::from_numbers(policy.capabilities.iter().map(|one| one.number())),
            rlimits: vec![
                limit(RlimitKind::Nofile, DEFAULT_NOFILE),
                limit(RlimitKind::Memlock, memlock),
            ],
        },
    };
    plan.check().map(|()| plan)
}
