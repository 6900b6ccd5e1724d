//! The rules of `after`: who is named exists, and nobody waits for itself, by whatever way.

use std::collections::BTreeSet;

use super::{Checked, MAX_TABLES, count};
use crate::error::{Place, PolicyError};
use crate::policy::ContainerPolicy;

pub(super) fn check(containers: &[ContainerPolicy]) -> Checked<()> {
    for container in containers {
        let place = Place::new(format!("container {:?}", container.name));
        count(&place.with("after"), container.after.len(), 0, MAX_TABLES)?;
        for (index, name) in container.after.iter().enumerate() {
            let place = place.at("after", index);
            let earlier = container.after.get(..index).unwrap_or_default();
            if earlier.contains(name) {
                return Err(PolicyError::Duplicate {
                    place,
                    what: "container",
                    name: name.clone(),
                });
            }
            if !containers.iter().any(|other| other.name == *name) {
                return Err(PolicyError::Dangling {
                    place,
                    what: "container",
                    name: name.clone(),
                });
            }
            if reaches(containers, name, &container.name) {
                return Err(PolicyError::Circle {
                    place,
                    name: name.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Whether `from` is `to`, or comes after it by some way. Each container is looked at once.
fn reaches(containers: &[ContainerPolicy], from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(name) = open.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            let found = containers.iter().filter(|container| container.name == name);
            open.extend(found.flat_map(|container| container.after.iter().map(String::as_str)));
        }
    }
    false
}
