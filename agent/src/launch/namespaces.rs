//! The namespaces of a container: the pod's where the plan names them, its own otherwise.

use std::{fs::File, path::Path};

use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::sethostname,
};

use super::{LaunchPlan, StepError};

/// Joins the pod's namespaces and makes the others. A process namespace holds for the next child, not for the caller.
pub(super) fn enter(plan: &LaunchPlan) -> Result<(), StepError> {
    let shared = &plan.namespaces;
    let mut own = CloneFlags::CLONE_NEWNS;
    if plan.cgroup.is_some() {
        own |= CloneFlags::CLONE_NEWCGROUP;
    }
    for (path, kind, name) in [
        (&shared.ipc, CloneFlags::CLONE_NEWIPC, "the pod's IPC namespace"),
        (&shared.uts, CloneFlags::CLONE_NEWUTS, "the pod's UTS namespace"),
        (&shared.pid, CloneFlags::CLONE_NEWPID, "the pod's process namespace"),
    ] {
        match path {
            Some(path) => join(path, kind, name)?,
            None => own |= kind,
        }
    }
    unshare(own).map_err(StepError::at("unshare", "namespaces"))
}

/// Names the container, unless it goes by the pod's name.
pub(super) fn set_name(plan: &LaunchPlan) -> Result<(), StepError> {
    if plan.namespaces.uts.is_some() {
        return Ok(());
    }
    sethostname(&plan.hostname).map_err(StepError::at("set host name", plan.hostname.as_str()))
}

fn join(path: &Path, kind: CloneFlags, name: &'static str) -> Result<(), StepError> {
    let namespace = File::open(path).map_err(StepError::io("open", name))?;
    setns(namespace, kind).map_err(StepError::at("join", name))
}
