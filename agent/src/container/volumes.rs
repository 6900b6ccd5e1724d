//! From the volumes that were admitted to what a launch binds.

use cella_policy::{VolumeKind, check::AdmittedVolume};

use super::{ContainerError, ContainerId};
use crate::{launch::MountPlan, pod::Pod, volume::LastWords};

/// What the container binds, and where its last words go. Every volume must be there: the host puts them first.
pub(super) fn sources(
    pod: &Pod,
    id: &ContainerId,
    admitted: &[AdmittedVolume],
) -> Result<(Vec<MountPlan>, Option<LastWords>), ContainerError> {
    let mut last_words: Option<LastWords> = None;
    let mut mounts = Vec::with_capacity(admitted.len());
    for volume in admitted {
        let found = pod.volumes().pinned_source(&volume.volume, volume.kind, &volume.files);
        let found = found.map_err(ContainerError::Volume)?;
        let (source, writable) = if volume.kind == VolumeKind::TerminationLog {
            // Each container has a file of its own.
            let words = match &mut last_words {
                Some(words) => words,
                none => none.insert(
                    LastWords::make(&pod.dir().join("last-words").join(id.as_str())).map_err(ContainerError::Volume)?,
                ),
            };
            (words.path().to_owned(), true)
        } else {
            (found.path, found.writable)
        };
        mounts.push(MountPlan::Volume {
            source,
            destination: volume.destination.as_str().into(),
            read_only: volume.read_only || !writable,
        });
    }
    Ok((mounts, last_words))
}
