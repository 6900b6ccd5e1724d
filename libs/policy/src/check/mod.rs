//! What the host asks for, compared with what the policy names. Pure, deny by default.
//!
//! What is admitted comes back as data ([`Admission`], [`AdmittedProcess`]), and an agent runs that: the request is not
//! looked at again, so nothing that was not judged can have an effect.
//!
//! | of the host's specification | rule |
//! |---|---|
//! | name | the entry of that name; see below |
//! | image candidates | a hint: whichever entry is found, **its** image runs |
//! | args, cwd, user, host name | equal to the policy's, or any where it says so |
//! | environment | the policy's variables with its values, and those that `env-allow` names with the host's |
//! | mounts | containerd's default set and CRI's own files, which the agent makes itself; volumes as the policy names them; a path of the host never |
//! | capabilities | containerd's default set or the policy's; the process gets **the policy's**, whatever was asked |
//! | rlimits | containerd's default, or `RLIMIT_MEMLOCK` as in the policy, or any where it says so |
//! | terminal | only where the policy allows it; it brings `TERM=xterm` |
//! | read-only root | the policy's; asking for more freedom has no effect, asking for less is denied |
//! | privileged | only where the policy allows it; then capabilities, `no_new_privs` and devices are as asked, and nothing is masked |
//! | `no_new_privs` | always on, unless the policy allows new privileges |
//! | masked and read-only paths, seccomp | the agent's own; the host's, or none, where the policy says so |
//! | sysctl | those that `[pod] sysctl` names, and the two that containerd sets for every pod; they are the pod's, and set with its network |
//! | process namespace of the pod | only where the policy allows it |
//! | host namespaces, hooks | denied when there are any |
//! | cgroup limits | the host's: it can starve the machine anyway |
//! | pipes | the policy's `stdio` decides what is connected; asking is no offence |
//! | order of starts | nobody before whom its `after` names ([`Lineup`]); clients are let in when every required container is there |
//!
//! # Which entry
//! The host may never run anything but what an entry names, so its image candidates carry no authority; they can only
//! choose. A name chooses first: CRI gives the container's name of the pod's YAML, and the owner wrote the policy with the
//! same names. The candidates are then not compared, because containerd knows snapshots by their *plain* layers: an image
//! that was encrypted again has another digest and the same snapshots, so candidates may be of another manifest of the very
//! same content ([`Admission::image_offered`] tells, for a warning). Without a name the candidates choose: the first entry
//! with one of the images whose every field matches. A name that the policy does not have is refused, unless entries say
//! `match = "image"`: among those the candidates choose. See `docs/adr/0009-the-policys-image-runs.md`.

mod admission;
mod denial;
mod mounts;
mod network;
mod pod;
mod presence;
mod process;
mod question;
mod request;

#[cfg(test)]
mod tests;

pub use admission::{Admission, AdmittedProcess, AdmittedUser, AdmittedVolume};
pub use denial::{Denial, Subject};
pub use mounts::{SERVED_MOUNTS, check_files, check_volume};
pub use network::{check_egress, check_ingress};
pub use pod::{DEFAULT_SYSCTL, check_call, check_forward, check_pod, check_stats};
pub use presence::{Lineup, Missing, Turn};
pub use process::check_signal;
pub use question::{Judge, Question};
pub use request::{ContainerRequest, ProcessRequest, RequestedMount, RequestedRlimit};

pub(crate) use mounts::reserved_for_volumes;

use crate::names::{GuestPath, Sha256Digest, is_hostname, shown};
use crate::policy::{ContainerPolicy, MaskedPaths, Match, Policy, Rule, Seccomp};

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

/// The container that may be made of what the host asks for, or why there is none.
///
/// # Errors
/// The first rule that is broken; where several entries could have been meant, the first entry's.
pub fn check_container<'p>(policy: &'p Policy, request: &ContainerRequest) -> Result<Admission<'p>, Denial> {
    request.check_bounds()?;
    if let Some(container) = policy.container(&request.name) {
        return check_fields(policy, container, request);
    }
    let may_match = |container: &&ContainerPolicy| request.name.is_empty() || container.matching == Match::Image;
    if !policy.containers().iter().any(|container| may_match(&container)) {
        return Err(Denial::UnknownContainer {
            name: shown(&request.name),
            allowed: shown_list(policy.containers().iter().map(|container| &container.name)),
        });
    }
    let mut denial = None;
    for container in policy.containers().iter().filter(may_match) {
        if has_image(request, container) {
            match check_fields(policy, container, request) {
                Ok(admission) => return Ok(admission),
                Err(found) => denial = denial.or(Some(found)),
            }
        }
    }
    Err(denial.unwrap_or_else(|| match request.images.first() {
        Some(image) => Denial::UnknownImage {
            image: shown(image),
            allowed: shown_list(policy.containers().iter().filter(may_match).map(|one| &one.image)),
        },
        None => Denial::NoImage,
    }))
}

/// The process that may be started in a container of the policy, or why not.
///
/// Environment, directory, user, capabilities and limits follow the same rules as the container's first process.
///
/// # Errors
/// The first rule that is broken.
pub fn check_exec(container: &ContainerPolicy, request: &ProcessRequest) -> Result<AdmittedProcess, Denial> {
    let subject = Subject::Exec(container.name.clone());
    request.check_bounds(|| subject.clone())?;
    let args = process::command(container, &subject, &request.args)?;
    process::check(container, &subject, request, args, container.privileged)
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

fn check_fields<'p>(
    policy: &'p Policy,
    container: &'p ContainerPolicy,
    request: &ContainerRequest,
) -> Result<Admission<'p>, Denial> {
    let subject = Subject::Container(container.name.clone());
    let args = process::args(container, &subject, &request.process.args)?;
    check_powers(policy, container, &subject, request)?;
    let process = process::check(container, &subject, &request.process, args, request.privileged)?;
    let volumes = mounts::check(container, &subject, &request.mounts)?;
    let hostname = check_hostname(container, &subject, &request.hostname)?;
    let readonly_rootfs = check_root(container, &subject, request.readonly_rootfs)?;
    check_pod(policy, &request.sysctl)?;
    let (masked_paths, readonly_paths) = match container.masked_paths {
        MaskedPaths::Agent => (Vec::new(), Vec::new()),
        MaskedPaths::Any => (
            check_paths(&subject, "one of masked-paths", &request.masked_paths)?,
            check_paths(&subject, "a read-only one of masked-paths", &request.readonly_paths)?,
        ),
    };
    let unmasked = container.masked_paths == MaskedPaths::Any
        && request.masked_paths.is_empty()
        && request.readonly_paths.is_empty();
    Ok(Admission {
        policy: container,
        image_offered: has_image(request, container),
        process,
        readonly_rootfs,
        hostname,
        volumes,
        privileged: request.privileged,
        shared_pid: request.shared_pid,
        masked: !request.privileged && !unmasked,
        masked_paths,
        readonly_paths,
        host_seccomp: container.seccomp != Seccomp::Agent && !request.privileged,
        agent_seccomp: container.seccomp != Seccomp::Any || request.privileged,
        devices: request.devices.clone(),
    })
}

/// What reaches beyond a container.
fn check_powers(
    policy: &Policy,
    container: &ContainerPolicy,
    subject: &Subject,
    request: &ContainerRequest,
) -> Result<(), Denial> {
    if request.privileged && !container.privileged {
        return Err(Denial::Privileged {
            subject: subject.clone(),
        });
    }
    if request.shared_pid && !policy.pod().share_process_namespace {
        return Err(Denial::SharedPid {
            subject: subject.clone(),
        });
    }
    if let Some(given) = request.host_namespaces.first() {
        return Err(Denial::HostNamespace {
            subject: subject.clone(),
            given: shown(given),
        });
    }
    let is_none = |path: &&String| !path.starts_with("/dev/") || path.parse::<GuestPath>().is_err();
    let device = match request.privileged {
        true => request.devices.iter().find(is_none),
        false => request.devices.first(),
    };
    let extras = [
        ("device", device, "none, or in a privileged container those below /dev"),
        ("hook", request.hooks.first(), "none: hooks are programs of the host"),
    ];
    for (what, first, allowed) in extras {
        if let Some(given) = first {
            return Err(Denial::Extra {
                subject: subject.clone(),
                what,
                given: shown(given),
                allowed,
            });
        }
    }
    Ok(())
}

fn check_hostname(container: &ContainerPolicy, subject: &Subject, given: &str) -> Result<String, Denial> {
    let allowed = match &container.hostname {
        Some(exact) if given == exact => return Ok(exact.clone()),
        None if given.is_empty() || is_hostname(given) => return Ok(given.to_owned()),
        Some(exact) => shown(exact),
        None => "any valid one".to_owned(),
    };
    Err(Denial::Hostname {
        subject: subject.clone(),
        given: shown(given),
        allowed,
    })
}

/// Whether the root file system is read-only.
fn check_root(container: &ContainerPolicy, subject: &Subject, asked: bool) -> Result<bool, Denial> {
    match container.readonly_rootfs {
        Rule::Any => Ok(asked),
        Rule::Only(false) if asked => Err(Denial::ReadonlyRootfs {
            subject: subject.clone(),
        }),
        Rule::Only(read_only) => Ok(read_only),
    }
}

fn check_paths(subject: &Subject, field: &'static str, paths: &[String]) -> Result<Vec<String>, Denial> {
    match paths.iter().find(|path| !is_plain_path(path)) {
        Some(path) => Err(Denial::Form {
            subject: subject.clone(),
            field,
            given: shown(path),
            allowed: "an absolute path without .. and control characters",
        }),
        None => Ok(paths.to_vec()),
    }
}

/// An absolute path without `..`; a slash at its end or a doubled one is no offence.
fn is_plain_path(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    text.starts_with('/') && format!("/{}", parts.join("/")).parse::<GuestPath>().is_ok()
}

/// What is allowed, for a message: at most eight of the items, or "nothing".
fn shown_list(items: impl IntoIterator<Item = impl ToString>) -> String {
    const LIMIT: usize = 8;
    let mut items = items.into_iter().map(|item| shown(&item.to_string()));
    let first: Vec<String> = items.by_ref().take(LIMIT).collect();
    match (first.is_empty(), items.count()) {
        (true, _) => "nothing".to_owned(),
        (false, 0) => first.join(", "),
        (false, more) => format!("{} and {more} more", first.join(", ")),
    }
}
