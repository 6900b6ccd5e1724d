//! What containers use, and how much they may.

use std::sync::Arc;

use slog::warn;

use super::{ContainerError, ContainerId, Containers, Limits, Machine, Setting, Stats, cgroup::Cgroup};
use crate::pod::EventKind;

impl Containers {
    /// Stops a running container's processes, or lets them go on; returns when the kernel has done so.
    pub async fn freeze(&self, id: &ContainerId, frozen: bool) -> Result<(), ContainerError> {
        let wanted = if frozen { "paused" } else { "resumed" };
        let instance = self.find(id)?;
        let group = instance.running_group(wanted)?;
        group.freeze(frozen).await.map_err(ContainerError::Cgroup)?;
        instance.note_paused(frozen);
        Ok(())
    }

    /// Replaces the limits that are given, within what `machine` has; before the start, too.
    pub fn update(&self, id: &ContainerId, limits: &Limits, machine: Machine) -> Result<(), ContainerError> {
        let group = self.find(id)?.group("updated")?;
        limits.check(machine).map_err(ContainerError::Limit)?;
        group.limit(limits).map_err(ContainerError::Cgroup)
    }

    /// What a container uses; before its start, nothing.
    pub fn stats(&self, id: &ContainerId) -> Result<Stats, ContainerError> {
        let group = self.find(id)?.group("measured")?;
        group.stats().map_err(ContainerError::Cgroup)
    }

    /// What all of them use together; nothing where nobody counts.
    pub fn pod_stats(&self) -> Result<Stats, ContainerError> {
        let root = self.setting.cgroups.as_ref();
        let stats = root.map(|root| root.stats()).transpose();
        stats.map(Option::unwrap_or_default).map_err(ContainerError::Cgroup)
    }
}

/// Tells the host each time the kernel kills a process of the container for want of memory, until its group is gone.
pub(super) fn tell_of_memory(setting: &Arc<Setting>, id: &ContainerId, group: Cgroup) {
    let (setting, id) = (Arc::clone(setting), id.clone());
    tokio::spawn(async move {
        let tell = || {
            warn!(setting.log, "container out of memory"; "id" => %id);
            let text = "the kernel killed a process of the container for want of memory";
            setting.pod.events().add(EventKind::OutOfMemory, id.as_str(), "", text);
        };
        group.watch_memory(tell).await;
    });
}
