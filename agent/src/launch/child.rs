//! The launcher process itself; see [`super`] for its part in the play.
#![allow(unsafe_code)] // fork, and descriptors that came with the process

use std::{
    fs,
    io::Read,
    os::{fd::FromRawFd, unix::net::UnixStream},
    path::Path,
    process::ExitCode,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, umask},
    unistd::{ForkResult, fork, sethostname},
};

use super::{
    LaunchPlan, MAX_PLAN, PLAN_FD, REPORT_FD, StepError, process,
    report::{self, Report},
    rootfs,
};

/// The launcher's whole life: for `main`, when `argv[0]` is [`super::LAUNCHER_NAME`].
///
/// Started by hand it finds no plan and ends. It never returns in the process that becomes the workload.
pub fn main() -> ExitCode {
    let Some((plan, mut reports)) = inherited() else {
        return ExitCode::FAILURE;
    };
    match launch(plan, &mut reports) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With the socket gone there is nobody left to tell.
            let _ = Report::Failed(error.line()).write(&mut reports);
            ExitCode::FAILURE
        }
    }
}

fn launch(plan: fs::File, reports: &mut UnixStream) -> Result<(), StepError> {
    let plan = read_plan(plan)?;
    if let Some(cgroup) = &plan.cgroup {
        join(cgroup)?;
    }
    let mut namespaces =
        CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    if plan.cgroup.is_some() {
        namespaces |= CloneFlags::CLONE_NEWCGROUP;
    }
    unshare(namespaces).map_err(StepError::at("unshare", "namespaces"))?;
    // SAFETY: the launcher was just exec'd and has started no thread, so the child may run any code.
    match unsafe { fork() }.map_err(StepError::at("fork", "the container's process"))? {
        ForkResult::Child => container(&plan, reports),
        ForkResult::Parent { child } => {
            let pid = u32::try_from(child.as_raw()).unwrap_or(0);
            let told = Report::Pid(pid)
                .write(reports)
                .and_then(|()| report::await_ack(reports));
            told.map_err(StepError::io("report", "the container's process"))
        }
    }
}

/// Process 1 of the container, up to `exec`.
fn container(plan: &LaunchPlan, reports: &mut UnixStream) -> Result<(), StepError> {
    umask(Mode::empty());
    sethostname(&plan.hostname).map_err(StepError::at("set host name", plan.hostname.as_str()))?;
    rootfs::enter(plan)?;
    process::confine(&plan.process)?;
    Report::Ready
        .write(reports)
        .map_err(StepError::io("report", "readiness"))?;
    match process::exec(&plan.process)? {}
}

fn join(cgroup: &Path) -> Result<(), StepError> {
    fs::write(cgroup.join("cgroup.procs"), "0").map_err(StepError::io("join", cgroup.to_string_lossy()))
}

fn read_plan(plan: fs::File) -> Result<LaunchPlan, StepError> {
    let mut json = Vec::new();
    plan.take(MAX_PLAN)
        .read_to_end(&mut json)
        .map_err(StepError::io("read", "the plan"))?;
    serde_json::from_slice(&json).map_err(|_| StepError::at("read", "the plan")(nix::errno::Errno::EBADMSG))
}

/// The two descriptors that the agent left for us; `None` when this is no launch.
fn inherited() -> Option<(fs::File, UnixStream)> {
    for number in [PLAN_FD, REPORT_FD] {
        fs::symlink_metadata(format!("/proc/self/fd/{number}")).ok()?;
    }
    // SAFETY: both are open (just looked at), were put there by `spawn` for this process alone, and are taken once.
    Some(unsafe { (fs::File::from_raw_fd(PLAN_FD), UnixStream::from_raw_fd(REPORT_FD)) })
}
