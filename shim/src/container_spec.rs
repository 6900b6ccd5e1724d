//! OCI specification → what the agent is asked for.
//!
//! Everything that the agent's API has a place for is passed on as it stands; the agent compares it with the policy. Not
//! passed on, because it speaks of the host or because the guest decides it alone:
//!
//! | dropped | why |
//! |---|---|
//! | `root.path`, the rootfs mounts' sources | the guest pulls and unpacks its own image |
//! | `linux.namespaces` of type cgroup, time and user, `linux.cgroupsPath`, `linux.{uid,gid}Mappings`, `linux.netDevices` | the VM is the boundary; the agent makes its own |
//! | `process.apparmorProfile`, `process.selinuxLabel`, `linux.mountLabel` | the guest has neither |
//! | `linux.resources.devices` and every resource but memory, CPU, pids and `unified` | cgroup v2 in the guest, devices are the agent's |
//! | `process.{oomScoreAdj,scheduler,ioPriority,execCPUAffinity}`, `process.user.{umask,username}` | host scheduling; not in the agent's API |
//! | `linux.{rootfsPropagation,intelRdt,memoryPolicy,personality,timeOffsets}`, `domainname`, `annotations` | not in the agent's API |
//!
//! Dropping can only give the container less than the host asked for: the agent starts from nothing and adds what the
//! policy names. Bind mounts become volumes ([`crate::volumes`]); namespaces of the host are named, so that the agent can
//! refuse them by name (`cella_bundle`).

use cella_protos::agent;
use containerd_shim::protos::types::mount::Mount as TaskMount;

pub use cella_bundle::{Neighbours, host_namespaces};

use crate::bundle::oci::{Capabilities, Mount, Process, Resources, Rlimit, Spec, User};

/// Mount option by which `cella-snapshotter` names the image.
const IMAGE_OPTION: &str = "x-cella.image=";
/// Most image candidates that are passed on.
pub const MAX_IMAGES: usize = 8;
/// Longest image reference, in bytes.
const MAX_IMAGE: usize = 512;

/// A rootfs whose image cannot be passed on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The rootfs was not made by our snapshotter.
    #[error(
        "the root file system names no image: pull and run it with the snapshotter \"cella\" (ctr: --snapshotter cella)"
    )]
    None,
    /// More candidates than the snapshotter ever gives.
    #[error("the root file system names more than {MAX_IMAGES} images")]
    TooMany,
    /// Not a reference.
    #[error("the root file system names the image {image:?}, which is not printable ASCII of 1 to {MAX_IMAGE} bytes")]
    Form {
        /// The option's value, made printable.
        image: String,
    },
}

/// Translates `spec`; see the module for what is dropped. `terminal` is the task's, which must agree with the specification's;
/// `neighbours` is whom the container shares its VM with. Parameters of the kernel are the pod's where the container is alone.
pub fn translate(spec: &Spec, terminal: bool, neighbours: &Neighbours) -> agent::ContainerSpec {
    let process = &spec.process;
    let mut out = agent::ContainerSpec::new();
    out.args.clone_from(&process.args);
    out.env.clone_from(&process.env);
    out.cwd.clone_from(&process.cwd);
    out.user = Some(user(&process.user)).into();
    out.mounts = spec.mounts.iter().map(mount).collect();
    out.capabilities = Some(capabilities(&process.capabilities)).into();
    out.rlimits = process.rlimits.iter().map(rlimit).collect();
    out.hostname.clone_from(&spec.hostname);
    out.no_new_privileges = process.no_new_privileges;
    out.readonly_rootfs = spec.root.readonly;
    out.terminal = process.terminal || terminal;
    out.masked_paths.clone_from(&spec.linux.masked_paths);
    out.readonly_paths.clone_from(&spec.linux.readonly_paths);
    out.resources = Some(resources(&spec.linux.resources)).into();
    if !matches!(neighbours, Neighbours::None) {
        out.sysctl = spec.linux.sysctl.clone().into_iter().collect();
    }
    out.devices = spec.linux.devices.iter().map(|device| device.path.clone()).collect();
    out.hooks = spec
        .hooks
        .values()
        .flatten()
        .flatten()
        .map(|hook| hook.path.clone())
        .collect();
    let namespaces = cella_bundle::namespaces(spec, neighbours);
    out.shared_pid_namespace = namespaces.shared_pid;
    out.host_namespaces = namespaces.of_the_host;
    out.privileged = cella_bundle::privileged(spec);
    out.seccomp = spec
        .linux
        .seccomp
        .as_ref()
        .map(|filter| filter.to_string().into_bytes())
        .unwrap_or_default();
    out
}

/// Translates the process of an exec; pipes and ids are the caller's. `terminal` is the request's, which must agree with
/// the process's.
pub fn translate_exec(process: &Process, terminal: bool) -> agent::ExecProcessRequest {
    agent::ExecProcessRequest {
        args: process.args.clone(),
        env: process.env.clone(),
        cwd: process.cwd.clone(),
        user: Some(user(&process.user)).into(),
        capabilities: Some(capabilities(&process.capabilities)).into(),
        rlimits: process.rlimits.iter().map(rlimit).collect(),
        no_new_privileges: process.no_new_privileges,
        terminal: process.terminal || terminal,
        ..Default::default()
    }
}

/// The image candidates that the snapshotter wrote into the options of the rootfs mounts, in its order.
///
/// # Errors
/// No image, too many, or a value that is no reference. The agent checks the reference itself.
pub fn images(rootfs: &[TaskMount]) -> Result<Vec<String>, ImageError> {
    let mut images = Vec::new();
    for image in rootfs
        .iter()
        .flat_map(|mount| &mount.options)
        .filter_map(|option| option.strip_prefix(IMAGE_OPTION))
    {
        if image.is_empty() || image.len() > MAX_IMAGE || !image.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ImageError::Form {
                image: crate::untrusted::printable(image, 128),
            });
        }
        if images.len() == MAX_IMAGES {
            return Err(ImageError::TooMany);
        }
        images.push(image.to_owned());
    }
    if images.is_empty() {
        Err(ImageError::None)
    } else {
        Ok(images)
    }
}

fn user(user: &User) -> agent::User {
    agent::User {
        uid: user.uid,
        gid: user.gid,
        additional_gids: user.additional_gids.clone(),
        ..Default::default()
    }
}

fn rlimit(limit: &Rlimit) -> agent::Rlimit {
    agent::Rlimit {
        type_: limit.kind.clone(),
        soft: limit.soft,
        hard: limit.hard,
        ..Default::default()
    }
}

fn mount(mount: &Mount) -> agent::Mount {
    agent::Mount {
        destination: mount.destination.clone(),
        type_: mount.kind.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
        ..Default::default()
    }
}

fn capabilities(from: &Capabilities) -> agent::Capabilities {
    agent::Capabilities {
        bounding: from.bounding.clone(),
        effective: from.effective.clone(),
        inheritable: from.inheritable.clone(),
        permitted: from.permitted.clone(),
        ambient: from.ambient.clone(),
        ..Default::default()
    }
}

/// Translates limits; what is not there is 0 or empty.
pub fn resources(from: &Resources) -> agent::Resources {
    agent::Resources {
        memory_limit_bytes: from.memory.limit,
        cpu_quota_us: from.cpu.quota,
        cpu_period_us: from.cpu.period,
        cpu_shares: from.cpu.shares,
        pids_limit: from.pids.limit,
        cpuset_cpus: from.cpu.cpus.clone(),
        cpuset_mems: from.cpu.mems.clone(),
        swap_limit_bytes: from.memory.swap,
        unified: from.unified.clone().into_iter().collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"{
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 65534, "gid": 65533, "additionalGids": [7]},
            "args": ["/bin/x", "--y"], "env": ["A=b"], "cwd": "/w",
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_FUTURE"], "ambient": null},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
            "noNewPrivileges": true, "apparmorProfile": "cri", "oomScoreAdj": -998
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "pod",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}, {"destination": "/x"}],
        "hooks": {"prestart": [{"path": "/evil"}], "poststop": null, "futureHook": [{"path": "/later", "args": []}]},
        "linux": {
            "sysctl": {"net.x": "1"},
            "resources": {"memory": {"limit": 1048576, "swap": 6}, "cpu": {"shares": 2, "quota": 3, "period": 4, "cpus": "0-1"},
                "unified": {"memory.high": "7"}, "pids": {"limit": 5}, "devices": [{"allow": false}]},
            "cgroupsPath": "/x", "namespaces": [{"type": "pid"}], "devices": [{"path": "/dev/kvm", "type": "c"}],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}, "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]
        }
    }"#;

    #[test]
    fn everything_the_agent_can_judge_is_passed_on() {
        let spec: Spec = serde_json::from_str(SPEC).unwrap();
        let pod = Neighbours::Pod { of_the_host: vec![] };
        let out = translate(&spec, false, &pod);
        assert_eq!(out.args, ["/bin/x", "--y"]);
        assert_eq!(
            (out.env.as_slice(), out.cwd.as_str()),
            (["A=b".to_owned()].as_slice(), "/w")
        );
        assert_eq!(
            (out.user.uid, out.user.gid, out.user.additional_gids.as_slice()),
            (65534, 65533, [7].as_slice())
        );
        // An unknown capability is not lost on the way: the agent must be able to refuse it.
        assert_eq!(out.capabilities.bounding, ["CAP_CHOWN", "CAP_FUTURE"]);
        assert!(out.capabilities.ambient.is_empty());
        assert_eq!(
            (out.rlimits[0].type_.as_str(), out.rlimits[0].soft, out.rlimits[0].hard),
            ("RLIMIT_NOFILE", 512, 1024)
        );
        assert!(out.no_new_privileges && out.readonly_rootfs && !out.terminal);
        assert_eq!(
            (out.mounts.len(), out.mounts[0].options.as_slice()),
            (2, ["nosuid".to_owned()].as_slice())
        );
        let mut hooks = out.hooks.clone();
        hooks.sort();
        assert_eq!(hooks, ["/evil", "/later"]);
        assert_eq!(
            (out.devices, out.hostname.as_str()),
            (vec!["/dev/kvm".to_owned()], "pod")
        );
        assert_eq!(
            (out.masked_paths, out.readonly_paths),
            (vec!["/proc/kcore".to_owned()], vec!["/proc/sys".to_owned()])
        );
        assert_eq!(out.sysctl.get("net.x").map(String::as_str), Some("1"));
        let r = &out.resources;
        assert_eq!(
            (
                r.memory_limit_bytes,
                r.cpu_shares,
                r.cpu_quota_us,
                r.cpu_period_us,
                r.pids_limit
            ),
            (1048576, 2, 3, 4, 5)
        );
        assert_eq!((r.swap_limit_bytes, r.cpuset_cpus.as_str()), (6, "0-1"));
        assert_eq!(r.unified.get("memory.high").map(String::as_str), Some("7"));
        assert_eq!(out.seccomp, br#"{"defaultAction":"SCMP_ACT_ERRNO"}"#);
        let alone = translate(&spec, true, &Neighbours::None);
        assert!(alone.terminal && alone.sysctl.is_empty());
    }

    fn rootfs(options: &[&str]) -> Vec<TaskMount> {
        vec![TaskMount {
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            ..Default::default()
        }]
    }

    #[test]
    fn images_come_from_the_mount_options_in_order() {
        let options = ["rbind", "ro", "x-cella.image=a@sha256:00", "x-cella.image=b@sha256:11"];
        assert_eq!(images(&rootfs(&options)).unwrap(), ["a@sha256:00", "b@sha256:11"]);
    }

    #[test]
    fn absent_many_and_odd_images_are_refused() {
        assert_eq!(images(&rootfs(&["rbind"])), Err(ImageError::None));
        assert_eq!(images(&rootfs(&["x-cella.image=a"; 9])), Err(ImageError::TooMany));
        for odd in ["x-cella.image=", "x-cella.image=a b", "x-cella.image=a\n"] {
            assert!(
                matches!(images(&rootfs(&[odd])), Err(ImageError::Form { .. })),
                "{odd:?}"
            );
        }
    }
}
