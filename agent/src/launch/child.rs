//! The launcher process itself; see [`super`] for its part in the play.
#![allow(unsafe_code)] // fork, and descriptors that came with the process

use std::{
    fs,
    io::Read,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::ExitCode,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::{ForkResult, fork},
};

use super::{
    HOST_FD, LaunchPlan, MAX_PLAN, Order, PLAN_FD, ProcessPlan, REPORT_FD, StepError, namespaces, process,
    report::{self, Report},
    rootfs,
    terminal::Terminal,
    users,
};

/// The launcher's whole life: for `main`, when `argv[0]` is [`super::LAUNCHER_NAME`].
///
/// Started by hand it finds no plan and ends. It never returns in the process that becomes the workload.
pub fn main() -> ExitCode {
    let Some((order, mut reports)) = inherited() else {
        return ExitCode::FAILURE;
    };
    match launch(order, &mut reports) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With the socket gone there is nobody left to tell.
            let _ = error.report().write(&mut reports);
            ExitCode::FAILURE
        }
    }
}

fn launch(order: fs::File, reports: &mut UnixStream) -> Result<(), StepError> {
    // Whoever is in the container already must not look into this process while it joins.
    prctl::set_dumpable(false).map_err(StepError::at("hide", "the launcher"))?;
    let order = read_order(order)?;
    let cgroup = match &order {
        Order::Container(plan) => plan.cgroup.as_deref(),
        Order::Exec(plan) => plan.cgroup.as_deref(),
    };
    if let Some(cgroup) = cgroup {
        join(cgroup)?;
    }
    match &order {
        Order::Container(plan) => namespaces::enter(plan)?,
        Order::Exec(_) => {
            let mut namespaces = CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWIPC;
            if cgroup.is_some() {
                namespaces |= CloneFlags::CLONE_NEWCGROUP;
            }
            let host = host().ok_or_else(|| StepError::at("find", "the container")(Errno::EBADF))?;
            setns(host, namespaces).map_err(StepError::at("join", "the container's namespaces"))?;
        }
    }
    // SAFETY: the launcher was just exec'd and has started no thread, so the child may run any code.
    match unsafe { fork() }.map_err(StepError::at("fork", "the process"))? {
        ForkResult::Child => match &order {
            Order::Container(plan) => container(plan, reports),
            Order::Exec(plan) => process(&plan.process, false, reports),
        },
        ForkResult::Parent { child } => {
            let pid = u32::try_from(child.as_raw()).unwrap_or(0);
            let told = Report::Pid(pid)
                .write(reports)
                .and_then(|()| report::await_ack(reports));
            told.map_err(StepError::io("report", "the process"))
        }
    }
}

/// Process 1 of the container, up to `exec`.
fn container(plan: &LaunchPlan, reports: &mut UnixStream) -> Result<(), StepError> {
    umask(Mode::empty());
    namespaces::set_name(plan)?;
    rootfs::enter(plan)?;
    process(&plan.process, true, reports)
}

/// A process whose namespaces and root are right.
fn process(plan: &ProcessPlan, is_first: bool, reports: &mut UnixStream) -> Result<(), StepError> {
    let plan = &users::resolve(plan)?;
    let terminal = plan.terminal.map(|size| Terminal::make(plan, size)).transpose()?;
    if let Some(terminal) = &terminal {
        if is_first {
            terminal.be_console()?;
        }
        terminal.send(reports)?;
    }
    process::confine(plan, terminal)?;
    let program = process::find(plan)?;
    // Before the filters: the host's may forbid what these two steps need.
    Report::Ready
        .write(reports)
        .map_err(StepError::io("report", "readiness"))?;
    process::filter(plan)?;
    match process::exec(plan, &program)? {}
}

fn join(cgroup: &Path) -> Result<(), StepError> {
    fs::write(cgroup.join("cgroup.procs"), "0").map_err(StepError::io("join", cgroup.to_string_lossy()))
}

fn read_order(order: fs::File) -> Result<Order, StepError> {
    let mut json = Vec::new();
    order
        .take(MAX_PLAN)
        .read_to_end(&mut json)
        .map_err(StepError::io("read", "the plan"))?;
    serde_json::from_slice(&json).map_err(|_| StepError::at("read", "the plan")(Errno::EBADMSG))
}

/// The two descriptors that the agent left for us; `None` when this is no launch.
fn inherited() -> Option<(fs::File, UnixStream)> {
    if ![PLAN_FD, REPORT_FD].into_iter().all(is_open) {
        return None;
    }
    // SAFETY: both are open (just looked at), were put there by `spawn` for this process alone, and are taken once.
    Some(unsafe { (fs::File::from_raw_fd(PLAN_FD), UnixStream::from_raw_fd(REPORT_FD)) })
}

/// The process whose namespaces are to be joined, if the agent has named one.
fn host() -> Option<OwnedFd> {
    // SAFETY: open (just looked at), put there by `spawn` for this process alone, and taken once: an order is one.
    is_open(HOST_FD).then(|| unsafe { OwnedFd::from_raw_fd(HOST_FD) })
}

fn is_open(number: RawFd) -> bool {
    fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok()
}
