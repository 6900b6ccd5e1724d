//! What the host asks for, compared with what the policy names. Pure, deny by default.
//!
//! | of the host's specification | rule |
//! |---|---|
//! | name, image, args, environment, cwd, user, host name | equal to the policy's |
//! | mounts | containerd's default set, which the agent makes itself; any other is denied |
//! | capabilities | containerd's default set or the policy's; the process gets **the policy's**, whatever was asked |
//! | rlimits | containerd's default, or `RLIMIT_MEMLOCK` as in the policy |
//! | terminal | only where the policy allows it |
//! | read-only root | the policy's; asking for more freedom or for none has no effect, asking for less is denied |
//! | sysctl, devices, hooks | denied when there are any |
//! | no_new_privs, masked and read-only paths, seccomp | not the host's: the agent's own, always on |
//! | cgroup limits | the host's: it can starve the machine anyway |
//! | pipes | the policy's `stdio` decides what is connected; asking is no offence |

mod denial;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use denial::Denial;

use crate::capability::Capability;
use crate::names::{Sha256Digest, is_hostname, shown};
use crate::policy::{ContainerPolicy, Memlock, Policy};

/// What the host asks for: the agent API's CreateContainer, as it came. All of it is untrusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerRequest {
    /// The policy's name for the container where the host knows one, else empty.
    pub name: String,
    /// Image candidates, `repo@sha256:…` or `sha256:…`.
    pub images: Vec<String>,
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
    /// Mounts.
    pub mounts: Vec<RequestedMount>,
    /// Capabilities of all five sets.
    pub capabilities: Vec<String>,
    /// Resource limits.
    pub rlimits: Vec<RequestedRlimit>,
    /// Host name; empty = the pod's.
    pub hostname: String,
    /// Whether a terminal is wanted.
    pub terminal: bool,
    /// Whether the root file system shall be read-only.
    pub readonly_rootfs: bool,
    /// Kernel parameters.
    pub sysctl: BTreeMap<String, String>,
    /// Paths of extra devices.
    pub devices: Vec<String>,
    /// Paths of OCI hooks.
    pub hooks: Vec<String>,
}

/// A mount as the host asks for it. Source and options are not here: the agent never uses them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestedMount {
    /// Path in the container.
    pub destination: String,
    /// `proc`, `tmpfs`, `bind`, …
    pub kind: String,
}

/// A resource limit as the host asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestedRlimit {
    /// `RLIMIT_NOFILE`, …
    pub kind: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Destination and type of the mounts that containerd puts into every specification. The agent makes its own.
pub const DEFAULT_MOUNTS: [(&str, &str); 8] = [
    ("/proc", "proc"),
    ("/dev", "tmpfs"),
    ("/dev/pts", "devpts"),
    ("/dev/shm", "tmpfs"),
    ("/dev/mqueue", "mqueue"),
    ("/sys", "sysfs"),
    ("/sys/fs/cgroup", "cgroup"),
    ("/run", "tmpfs"),
];

/// RLIMIT_NOFILE, soft and hard, that containerd puts into every specification.
pub const DEFAULT_NOFILE: u64 = 1024;

/// The container of the policy that the host asks for, or why there is none.
///
/// With a name, that container. Without, the first one whose image is among the candidates and whose every field
/// matches; when none matches, the first such container's denial is the answer.
pub fn check_container<'p>(policy: &'p Policy, request: &ContainerRequest) -> Result<&'p ContainerPolicy, Denial> {
    if !request.name.is_empty() {
        let container = policy
            .container(&request.name)
            .ok_or_else(|| Denial::UnknownContainer {
                name: shown(&request.name),
            })?;
        if !has_image(request, container) {
            return Err(other_image(request, container));
        }
        return check_fields(container, request).map(|()| container);
    }
    let mut denial = None;
    for container in policy
        .containers()
        .iter()
        .filter(|container| has_image(request, container))
    {
        match check_fields(container, request) {
            Ok(()) => return Ok(container),
            Err(found) => denial = denial.or(Some(found)),
        }
    }
    Err(denial.unwrap_or_else(|| match request.images.first() {
        Some(image) => Denial::UnknownImage { image: shown(image) },
        None => Denial::NoImage,
    }))
}

fn has_image(request: &ContainerRequest, container: &ContainerPolicy) -> bool {
    request
        .images
        .iter()
        .filter_map(|image| candidate_digest(image))
        .any(|digest| digest == *container.image.digest())
}

fn candidate_digest(image: &str) -> Option<Sha256Digest> {
    image.rsplit('@').next()?.parse().ok()
}

fn other_image(request: &ContainerRequest, container: &ContainerPolicy) -> Denial {
    match request.images.first() {
        None => Denial::NoImage,
        Some(image) => Denial::OtherImage {
            container: container.name.clone(),
            given: shown(image),
            allowed: container.image.to_string(),
        },
    }
}

fn check_fields(container: &ContainerPolicy, request: &ContainerRequest) -> Result<(), Denial> {
    check_args(container, request)?;
    check_env(container, request)?;
    check_cwd(container, request)?;
    check_user(container, request)?;
    check_mounts(container, request)?;
    check_capabilities(container, request)?;
    check_rlimits(container, request)?;
    check_hostname(container, request)?;
    check_switches(container, request)?;
    check_extras(container, request)
}

fn check_args(container: &ContainerPolicy, request: &ContainerRequest) -> Result<(), Denial> {
    let longest = container.args.len().max(request.args.len());
    for index in 0..longest {
        let denial = match (request.args.get(index), container.args.get(index)) {
            (Some(given), Some(allowed)) if given == allowed => continue,
            (Some(given), Some(allowed)) => Denial::Argument {
                container: container.name.clone(),
                index,
                given: shown(given),
                allowed: shown(allowed),
            },
            (Some(given), None) => Denial::ExtraArgument {
                container: container.name.clone(),
                index,
                given: shown(given),
            },
            (None, Some(allowed)) => Denial::MissingArgument {
                container: container.name.clone(),
                index,
                allowed: shown(allowed),
            },
            (None, None) => continue,
        };
        return Err(denial);
    }
    Ok(())
}

fn check_env(container: &ContainerPolicy, request: &ContainerRequest) -> Result<(), Denial> {
    let allowed: BTreeMap<&str, &str> = container.env.iter().map(|entry| variable(entry)).collect();
    let mut given = BTreeSet::new();
    for entry in &request.env {
        let (name, value) = variable(entry);
        if !given.insert(name) {
            return Err(Denial::RepeatedVariable {
                container: container.name.clone(),
                name: shown(name),
            });
        }
        match allowed.get(name) {
            None => {
                return Err(Denial::ExtraVariable {
                    container: container.name.clone(),
                    name: shown(name),
                });
            }
            Some(expected) if !entry.contains('=') || *expected != value => {
                return Err(Denial::Variable {
                    container: container.name.clone(),
                    name: shown(name),
                    given: shown(value),
                    allowed: shown(expected),
                });
            }
            Some(_) => {}
        }
    }
    match allowed.keys().find(|name| !given.contains(*name)) {
        Some(name) => Err(Denial::MissingVariable {
            container: container.name.clone(),
            name: shown(name),
        }),
        None => Ok(()),
    }
}

fn variable(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}

fn check_cwd(container: &ContainerPolicy, request: &ContainerRequest) -> Result<(), Denial> {
    if request.cwd == container.cwd.as_str() {
        return Ok(());
    }
    Err(Denial::WorkingDirectory {
        container: container.name.clone(),
        given: shown(&request.cwd),
        allowed: shown(container.cwd.as_str()),
    })
}

fn check_user(container: &ContainerPolicy, request: &ContainerRequest) -> Result<(), Denial> {
    let user = &container.user;
    for (field, given, allowed) in [("uid", request.uid, user.uid), ("gid", request.gid, user.gid)] {
        if given != allowed {
            return Err(Denial::User {
                container: container.name.clone(),
                field,
                given,
                allowed,
            });
        }
    }
    let given: BTreeSet<u32> = request
        .additional_gids
        .iter()
        .copied()
        .filter(|gid| *gid != user.gid)
        .collect();
    if given == user.additional_gids {
        return Ok(());
    }
    Err(Denial::Groups {
        container: container.name.clone(),
        given: given.into_iter().take(MAX_SHOWN_GROUPS).collect(),
        allowed: user.additional_gids.iter().copied().collect(),
    })
}

fn check_mounts(container: &ContainerPolicy, request: &ContainerRequest) -> Result<(), Denial> {
    let is_default = |mount: &&RequestedMount| {
        DEFAULT_MOUNTS
            .iter()
            .any(|(destination, kind)| *destination == mount.destination && *kind == mount.kind)
    };
    match request.mounts.iter().find(|mount| !is_default(mount)) {
        Some(mount) => Err(Denial::Mount {
            container: container.name.clone(),
            destination: shown(&mount.destination),
            kind: shown(&mount.kind),
        }),
        None => Ok(()),
    }
}

fn check_capabilities(container: &ContainerPolicy, request: &ContainerRequest) -> Result<(), Denial> {
    let is_named = |text: &String| {
        text.parse::<Capability>()
            .is_ok_and(|capability| capability.is_containerd_default() || container.capabilities.contains(&capability))
    };
    match request.capabilities.iter().find(|text| !is_named(text)) {
        Some(text) => Err(Denial::Capability {
            container: container.name.clone(),
            given: shown(text),
        }),
        None => Ok(()),
    }
}

fn check_rlimits(container: &ContainerPolicy, request: &ContainerRequest) -> Result<(), Denial> {
    let memlock = match container.memlock {
        Memlock::Bytes(bytes) => bytes,
        Memlock::Unlimited => u64::MAX,
    };
    let is_allowed = |limit: &&RequestedRlimit| match limit.kind.as_str() {
        "RLIMIT_NOFILE" => (limit.soft, limit.hard) == (DEFAULT_NOFILE, DEFAULT_NOFILE),
        "RLIMIT_MEMLOCK" => (limit.soft, limit.hard) == (memlock, memlock),
        _ => false,
    };
    match request.rlimits.iter().find(|limit| !is_allowed(limit)) {
        Some(limit) => Err(Denial::Rlimit {
            container: container.name.clone(),
            kind: shown(&limit.kind),
            soft: limit.soft,
            hard: limit.hard,
        }),
        None => Ok(()),
    }
}

fn check_hostname(container: &ContainerPolicy, request: &ContainerRequest) -> Result<(), Denial> {
    let allowed = match &container.hostname {
        Some(exact) if request.hostname == *exact => return Ok(()),
        None if request.hostname.is_empty() || is_hostname(&request.hostname) => return Ok(()),
        Some(exact) => shown(exact),
        None => "any valid one".to_owned(),
    };
    Err(Denial::Hostname {
        container: container.name.clone(),
        given: shown(&request.hostname),
        allowed,
    })
}

fn check_switches(container: &ContainerPolicy, request: &ContainerRequest) -> Result<(), Denial> {
    if request.terminal && !container.terminal {
        return Err(Denial::Terminal {
            container: container.name.clone(),
        });
    }
    if request.readonly_rootfs && !container.readonly_rootfs {
        return Err(Denial::ReadonlyRootfs {
            container: container.name.clone(),
        });
    }
    Ok(())
}

fn check_extras(container: &ContainerPolicy, request: &ContainerRequest) -> Result<(), Denial> {
    let extras = [
        ("sysctl", request.sysctl.keys().next()),
        ("device", request.devices.first()),
        ("hook", request.hooks.first()),
    ];
    for (what, first) in extras {
        if let Some(given) = first {
            return Err(Denial::Extra {
                container: container.name.clone(),
                what,
                given: shown(given),
            });
        }
    }
    Ok(())
}

const MAX_SHOWN_GROUPS: usize = 16;
