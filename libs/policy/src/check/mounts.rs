//! The rules for mounts and volumes.
//!
//! A mount is one of three things: a file system that the agent makes itself and that every engine asks for; a file that
//! engines bind from the host and for which the agent has its own (`/etc/hosts` and the like); or a volume of the pod. The
//! first two are no offence. A bind without a volume is a path of the host, and no policy can allow that.

use std::collections::BTreeMap;

use super::admission::AdmittedVolume;
use super::request::RequestedMount;
use super::{DEFAULT_MOUNTS, Denial, Subject, shown_list};
use crate::names::{GuestPath, Sha256Digest, shown};
use crate::policy::{ContainerPolicy, Policy, Rule, VolumePolicy};
use crate::volume::VolumeKind;

/// What engines bind from the host and the agent serves itself. A volume there is used where the policy names it, and
/// otherwise left.
pub const SERVED_MOUNTS: [&str; 5] = [
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/dev/shm",
    TERMINATION_LOG,
];

/// The volumes that are to be mounted.
pub(super) fn check(
    container: &ContainerPolicy,
    subject: &Subject,
    mounts: &[RequestedMount],
) -> Result<Vec<AdmittedVolume>, Denial> {
    let mut admitted: Vec<AdmittedVolume> = Vec::new();
    for mount in mounts.iter().filter(|mount| !is_default(mount)) {
        if admitted.iter().any(|other| other.destination == mount.destination) {
            return Err(Denial::MountTwice {
                subject: subject.clone(),
                destination: shown(&mount.destination),
            });
        }
        let is_served = mount.kind == BIND && SERVED_MOUNTS.contains(&mount.destination.as_str());
        match volume(container, subject, mount) {
            Ok(volume) => admitted.push(volume),
            Err(_) if is_served => {}
            Err(denial) => return Err(denial),
        }
    }
    // Whose files are pinned is there for a reason: without it the program would find what its image has in its place.
    let is_missing = |volume: &&VolumePolicy| {
        !volume.files.is_empty()
            && !admitted
                .iter()
                .any(|one| one.destination == volume.destination.as_str())
    };
    match container.volumes.only().into_iter().flatten().find(is_missing) {
        Some(volume) => Err(Denial::MissingVolume {
            subject: subject.clone(),
            destination: volume.destination.to_string(),
            kind: volume.kind.as_str(),
        }),
        None => Ok(admitted),
    }
}

/// Whether a volume of `kind` may be made at all: some container may mount it, or the agent serves its own in its place and
/// leaves what it is given.
///
/// # Errors
/// [`Denial::VolumeKind`], with the kinds that may be made.
pub fn check_volume(policy: &Policy, kind: VolumeKind) -> Result<(), Denial> {
    let allowed = |kind: VolumeKind| {
        kind.is_served()
            || policy.containers().iter().any(|container| {
                container
                    .volumes
                    .allows(|list| list.iter().any(|volume| volume.kind == kind))
            })
    };
    if allowed(kind) {
        return Ok(());
    }
    Err(Denial::VolumeKind {
        kind: kind.as_str(),
        allowed: shown_list(
            VolumeKind::ALL
                .into_iter()
                .filter(|kind| allowed(*kind))
                .map(VolumeKind::as_str),
        ),
    })
}

/// Whether a volume's files are those that the policy names, if it names any.
///
/// # Errors
/// [`Denial::File`]: the first that is other, missing or too many.
pub fn check_files(
    volume: &str,
    allowed: &BTreeMap<String, Sha256Digest>,
    found: &BTreeMap<String, Sha256Digest>,
) -> Result<(), Denial> {
    if allowed.is_empty() || allowed == found {
        return Ok(());
    }
    let differs = |path: &&String| allowed.get(*path) != found.get(*path);
    let path = allowed
        .keys()
        .chain(found.keys())
        .find(differs)
        .cloned()
        .unwrap_or_default();
    let said = |digest: Option<&Sha256Digest>| digest.map_or("not there".to_owned(), ToString::to_string);
    Err(Denial::File {
        volume: shown(volume),
        given: said(found.get(&path)),
        allowed: said(allowed.get(&path)),
        path: shown(&path),
    })
}

fn is_default(mount: &RequestedMount) -> bool {
    mount.volume.is_empty()
        && DEFAULT_MOUNTS
            .iter()
            .any(|(destination, kind)| *destination == mount.destination && *kind == mount.kind)
}

fn volume(container: &ContainerPolicy, subject: &Subject, mount: &RequestedMount) -> Result<AdmittedVolume, Denial> {
    let allowed = || match &container.volumes {
        Rule::Any => "any volume that the agent can make".to_owned(),
        Rule::Only(list) => shown_list(
            list.iter()
                .map(|volume| format!("{} of kind {}", volume.destination, volume.kind)),
        ),
    };
    let Some(kind) = mount.volume_kind.filter(|_| !mount.volume.is_empty()) else {
        let (subject, destination, kind) = (subject.clone(), shown(&mount.destination), shown(&mount.kind));
        let allowed = allowed();
        return Err(match mount.kind.as_str() {
            BIND if mount.volume.is_empty() => Denial::HostPath {
                subject,
                destination,
                kind,
                allowed,
            },
            _ => Denial::Mount {
                subject,
                destination,
                kind,
                allowed,
            },
        });
    };
    let (read_only, files) = match &container.volumes {
        Rule::Any => {
            check_place(container, subject, &mount.destination)?;
            (mount.read_only, BTreeMap::new())
        }
        Rule::Only(list) => {
            let named = list
                .iter()
                .find(|volume| volume.destination.as_str() == mount.destination && volume.kind == kind);
            match named {
                Some(volume) => (volume.read_only || mount.read_only, volume.files.clone()),
                None if is_termination_log(container, mount, kind) => (mount.read_only, BTreeMap::new()),
                None => {
                    return Err(Denial::Volume {
                        subject: subject.clone(),
                        destination: shown(&mount.destination),
                        kind: kind.as_str(),
                        allowed: allowed(),
                    });
                }
            }
        }
    };
    Ok(AdmittedVolume {
        destination: mount.destination.clone(),
        volume: mount.volume.clone(),
        kind,
        read_only,
        files,
    })
}

/// A file that the container writes and the host reads is no more than its output, where that reaches the host.
fn is_termination_log(container: &ContainerPolicy, mount: &RequestedMount, kind: VolumeKind) -> bool {
    container.stdio.tells_last_words() && kind == VolumeKind::TerminationLog && mount.destination == TERMINATION_LOG
}

/// A place that the host has chosen hides nothing of the agent's or of the policy's.
fn check_place(container: &ContainerPolicy, subject: &Subject, destination: &str) -> Result<(), Denial> {
    let Ok(path) = destination.parse::<GuestPath>() else {
        return Err(Denial::Form {
            subject: subject.clone(),
            field: "a destination of volumes",
            given: shown(destination),
            allowed: "an absolute, normalised path",
        });
    };
    let own = container.mounts.iter().map(|mount| &mount.destination);
    let own = own.chain(container.tmpfs.iter().map(|tmpfs| &tmpfs.destination));
    let own = own.chain(&container.output);
    let covered = match reserved_for_volumes(&path) {
        _ if path.is_root() => Some("the container's root"),
        Some(reserved) => Some(reserved),
        None => own
            .map(|other| (other.as_str(), other))
            .find(|(_, other)| path.is_within(other) || other.is_within(&path))
            .map(|(text, _)| text),
    };
    match covered {
        Some(other) => Err(Denial::Covers {
            subject: subject.clone(),
            destination: shown(destination),
            other: other.to_owned(),
        }),
        None => Ok(()),
    }
}

/// What the agent mounts there itself and no volume may hide.
pub(crate) fn reserved_for_volumes(path: &GuestPath) -> Option<&'static str> {
    if SERVED_MOUNTS.contains(&path.as_str()) {
        return None;
    }
    ["/proc", "/sys", "/dev"].into_iter().find(|reserved| {
        path.as_str()
            .strip_prefix(reserved)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The kubelet's default for `terminationMessagePath`.
const TERMINATION_LOG: &str = "/dev/termination-log";
const BIND: &str = "bind";
