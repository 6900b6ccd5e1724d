//! The rules of what is mounted into a container.

use std::collections::BTreeMap;

use super::{Checked, MAX_TABLES, count, name, output, range};
use crate::check::{DEFAULT_MOUNTS, reserved_for_volumes};
use crate::error::{Place, PolicyError};
use crate::file::{ContainerFile, MountFile, VolumeFile, VolumesFile};
use crate::names::{GuestPath, Sha256Digest};
use crate::policy::{ModelMount, ModelPolicy, Rule, SealedKind, Tmpfs, VolumePolicy};
use crate::volume::VolumeKind;

/// Everything that is mounted.
pub(super) struct Mounts {
    pub(super) mounts: Vec<ModelMount>,
    pub(super) tmpfs: Vec<Tmpfs>,
    pub(super) volumes: Rule<Vec<VolumePolicy>>,
    pub(super) output: Option<GuestPath>,
}

/// Mount points: none twice, none inside another, none over what the agent itself mounts.
pub(super) fn mounts(
    place: &Place,
    file: &ContainerFile,
    sealed: (&[ModelPolicy], &[ModelPolicy]),
    output: Option<&str>,
) -> Checked<Mounts> {
    count(&place.with("mount"), file.mount.len(), 0, MAX_TABLES)?;
    count(&place.with("tmpfs"), file.tmpfs.len(), 0, MAX_TABLES)?;
    let mut taken = Vec::new();
    let mut mounts = Vec::new();
    for (index, mount) in file.mount.iter().enumerate() {
        let place = place.at("mount", index);
        let destination = destination(&place, &mount.destination, &mut taken)?;
        let (kind, model) = source(&place, mount, sealed)?;
        mounts.push(ModelMount {
            destination,
            kind,
            model,
        });
    }
    let mut tmpfs = Vec::new();
    for (index, entry) in file.tmpfs.iter().enumerate() {
        let place = place.at("tmpfs", index);
        range(&place.with("size-mib"), entry.size_mib, 1, MAX_TMPFS_MIB)?;
        let destination = destination(&place, &entry.destination, &mut taken)?;
        tmpfs.push(Tmpfs {
            destination,
            size_mib: entry.size_mib,
        });
    }
    let volumes = match (file.volumes, file.volume.as_slice()) {
        (VolumesFile::Any, []) => Rule::Any,
        (VolumesFile::Any, _) => {
            return Err(PolicyError::Text {
                place: place.with("volume"),
                rule: "volumes is \"any\" and allows them all: leave out one of the two",
            });
        }
        (VolumesFile::Named, list) => {
            count(&place.with("volume"), list.len(), 0, MAX_TABLES)?;
            let one = |(index, file)| volume(&place.at("volume", index), file, &mut taken);
            Rule::Only(list.iter().enumerate().map(one).collect::<Checked<_>>()?)
        }
    };
    Ok(Mounts {
        mounts,
        tmpfs,
        volumes,
        output: output::destination(output, |place, text| destination(place, text, &mut taken))?,
    })
}

/// One of a model and a dataset, and it is there.
fn source(
    place: &Place,
    file: &MountFile,
    (models, datasets): (&[ModelPolicy], &[ModelPolicy]),
) -> Checked<(SealedKind, String)> {
    let (kind, name, known) = match (&file.model, &file.dataset) {
        (Some(model), None) => (SealedKind::Model, model, models),
        (None, Some(dataset)) => (SealedKind::Dataset, dataset, datasets),
        _ => {
            return Err(PolicyError::Text {
                place: place.clone(),
                rule: "a mount is of either a model or a dataset: name one",
            });
        }
    };
    if known.iter().any(|known| known.name == *name) {
        return Ok((kind, name.clone()));
    }
    Err(PolicyError::Dangling {
        place: place.clone(),
        what: kind.as_str(),
        name: name.clone(),
    })
}

fn volume(place: &Place, file: &VolumeFile, taken: &mut Vec<GuestPath>) -> Checked<VolumePolicy> {
    let kind: VolumeKind = file.kind.parse().map_err(|error| PolicyError::Volume {
        place: place.with("kind"),
        error,
    })?;
    let path: GuestPath = name(&place.with("destination"), &file.destination)?;
    if path.is_root() {
        return Err(overlap(place, &path, "the container's root"));
    }
    if let Some(reserved) = reserved_for_volumes(&path) {
        return Err(overlap(place, &path, reserved));
    }
    let files = files(place, kind, &file.files)?;
    take(place, path, taken).map(|destination| VolumePolicy {
        destination,
        files,
        kind,
        read_only: file.read_only.unwrap_or(kind.is_read_only()),
    })
}

/// Digests of what the host sends; of what containers write there are none.
fn files(place: &Place, kind: VolumeKind, files: &BTreeMap<String, String>) -> Checked<BTreeMap<String, Sha256Digest>> {
    let place = place.with("files");
    count(&place, files.len(), 0, MAX_FILES)?;
    if !files.is_empty() && matches!(kind, VolumeKind::EmptyDir | VolumeKind::TerminationLog) {
        return Err(PolicyError::Text {
            place,
            rule: "a volume of this kind has no files from the host",
        });
    }
    let one = |(path, digest): (&String, &String)| Ok((path.clone(), name(&place.with(path), digest)?));
    files.iter().map(one).collect()
}

fn destination(place: &Place, text: &str, taken: &mut Vec<GuestPath>) -> Checked<GuestPath> {
    let path: GuestPath = name(&place.with("destination"), text)?;
    if path.is_root() {
        return Err(overlap(place, &path, "the container's root"));
    }
    for (reserved, _) in DEFAULT_MOUNTS {
        let reserved: GuestPath = name(place, reserved)?;
        if path.is_within(&reserved) {
            return Err(overlap(place, &path, reserved.as_str()));
        }
    }
    take(place, path, taken)
}

fn take(place: &Place, path: GuestPath, taken: &mut Vec<GuestPath>) -> Checked<GuestPath> {
    match taken
        .iter()
        .find(|other| path.is_within(other) || other.is_within(&path))
    {
        Some(other) => Err(overlap(place, &path, other.as_str())),
        None => {
            taken.push(path.clone());
            Ok(path)
        }
    }
}

fn overlap(place: &Place, path: &GuestPath, other: &str) -> PolicyError {
    PolicyError::Overlap {
        place: place.clone(),
        path: path.to_string(),
        other: other.to_owned(),
    }
}

/// 1 TiB.
const MAX_TMPFS_MIB: u64 = 1 << 20;
/// Files of a volume that are named.
const MAX_FILES: u64 = 256;
