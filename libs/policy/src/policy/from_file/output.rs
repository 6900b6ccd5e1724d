//! The rules of `[output]`.

use super::{Checked, MAX_INTEGER, MAX_MODEL_BYTES, name, range};
use crate::error::{Place, PolicyError};
use crate::file::OutputFile;
use crate::names::{GuestPath, NameError, RegistryName, is_repository};
use crate::policy::{ContainerPolicy, ModelPolicy, OutputPolicy, Registry, Rule, UserPolicy};

/// Where errors about it are.
pub(super) fn place() -> Place {
    Place::new("output")
}

/// Containers, models and datasets have been checked; `destination` was checked with what else its container mounts.
pub(super) fn output<'s>(
    file: OutputFile,
    registries: &[Registry],
    sealed: impl Iterator<Item = &'s ModelPolicy>,
    containers: &[ContainerPolicy],
) -> Checked<OutputPolicy> {
    let place = place();
    let container = containers.iter().find(|container| container.name == file.container);
    let (container, destination) = container
        .and_then(|container| Some((container, container.output.clone()?)))
        .ok_or_else(|| dangling(&place.with("container"), "container", &file.container))?;
    check_container(&place.with("container"), container)?;
    if !is_repository(&file.name) {
        let error = NameError::new("output", &file.name, NAME_RULE);
        let place = place.with("name");
        return Err(PolicyError::Name { place, error });
    }
    range(&place.with("version"), file.version, 1, MAX_INTEGER)?;
    range(&place.with("max-bytes"), file.max_bytes, 1, MAX_MODEL_BYTES)?;
    for input in sealed.filter(|input| input.name == file.name) {
        range(
            &place.with("version"),
            file.version,
            input.version.saturating_add(1),
            MAX_INTEGER,
        )?;
    }
    let (registry, repository) = target(&place.with("repository"), &file.repository, registries)?;
    Ok(OutputPolicy {
        container: file.container,
        destination,
        version: file.version,
        registry,
        repository,
        key: name(&place.with("key"), &file.key)?,
        max_bytes: file.max_bytes,
        name: file.name,
    })
}

/// Two instances would write into one folder, and a folder has one owner, who must be known before the image is.
fn check_container(place: &Place, container: &ContainerPolicy) -> Checked<()> {
    let rule = match (&container.instances, &container.user) {
        (Rule::Only(1), UserPolicy::Ids(_)) => return Ok(()),
        (Rule::Only(1), _) => "a container with an output names its user by number: user = { uid, gid }",
        _ => "a container with an output has one instance",
    };
    let place = place.clone();
    Err(PolicyError::Text { place, rule })
}

/// `registry/repository`, without tag and digest: both follow.
fn target(place: &Place, text: &str, registries: &[Registry]) -> Checked<(RegistryName, String)> {
    let (registry, repository) = text.split_once('/').unwrap_or(("", text));
    if !is_repository(repository) {
        let error = NameError::new("repository", text, TARGET_RULE);
        let place = place.clone();
        return Err(PolicyError::Name { place, error });
    }
    let registry: RegistryName = name(place, registry)?;
    if !registries.iter().any(|known| known.name == registry) {
        return Err(dangling(place, "registry", registry.as_str()));
    }
    Ok((registry, repository.to_owned()))
}

fn dangling(place: &Place, what: &'static str, name: &str) -> PolicyError {
    PolicyError::Dangling {
        place: place.clone(),
        what,
        name: name.to_owned(),
    }
}

/// The path of `file`'s folder, if it is `container`'s.
pub(super) fn of_container<'f>(file: Option<&'f OutputFile>, container: &str) -> Option<&'f str> {
    file.filter(|file| file.container == container)
        .map(|file| file.destination.as_str())
}

/// With the rules of all mounts: `check` is that of the container's.
pub(super) fn destination(
    text: Option<&str>,
    check: impl FnOnce(&Place, &str) -> Checked<GuestPath>,
) -> Checked<Option<GuestPath>> {
    text.map(|text| check(&place(), text)).transpose()
}

const NAME_RULE: &str = "must be lower-case parts of a-z 0-9 . _ - joined by /";
const TARGET_RULE: &str = "must be registry/repository, without tag or digest";
