//! The last steps before `exec`: limits, user, capabilities, seccomp.
//!
//! Order matters and is fixed here: what needs a privilege comes before the step that gives the privilege up.
#![allow(unsafe_code)] // sigaction and close_range

use std::{
    convert::Infallible,
    ffi::CString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::AT_FDCWD,
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
        stat::{Mode, umask},
    },
    unistd::{AccessFlags, Gid, Uid, chdir, execve, faccessat, fchown, setgroups, setresgid, setresuid, setsid},
};

use super::{StepError, capabilities, plan::ProcessPlan, seccomp, terminal::Terminal};

/// Gives up every privilege that the plan does not name, but for what [`filter`] needs; only that and [`exec`] make sense
/// afterwards.
pub(super) fn confine(plan: &ProcessPlan, terminal: Option<Terminal>) -> Result<(), StepError> {
    if terminal.is_none() {
        own_stdio(plan)?;
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(StepError::at("limit", "RLIMIT_CORE"))?;
    for limit in &plan.rlimits {
        let step = StepError::at("limit", limit.kind.as_str());
        match resource(&limit.kind) {
            // Core dumps hold what was in memory (T15).
            Some(Resource::RLIMIT_CORE) => {}
            Some(resource) => setrlimit(resource, limit.soft, limit.hard).map_err(step)?,
            None => return Err(step(Errno::EINVAL)),
        }
    }
    setsid().map_err(StepError::at("make", "a session"))?;
    if let Some(terminal) = terminal {
        terminal.take()?;
    }
    become_user(plan)?;
    if plan.no_new_privileges {
        capabilities::apply(plan.capabilities, plan.ambient)?;
        prctl::set_no_new_privs().map_err(StepError::at("set", "no_new_privs"))?;
    }
    chdir(&plan.cwd).map_err(StepError::at("cwd", plan.cwd.to_string_lossy()))?;
    default_signals()?;
    umask(Mode::from_bits_truncate(0o022));
    close_on_exec()
}

/// Installs the filters. Without no_new_privs that takes a capability, so that only now the process gives up the rest.
pub(super) fn filter(plan: &ProcessPlan) -> Result<(), StepError> {
    if !plan.no_new_privileges {
        capabilities::raise_for_filter(plan.capabilities)?;
    }
    seccomp::install(plan.seccomp, plan.host_seccomp.as_ref())?;
    if !plan.no_new_privileges {
        capabilities::apply(plan.capabilities, plan.ambient)?;
    }
    Ok(())
}

/// Starts the program; returns only if that failed.
pub(super) fn exec(plan: &ProcessPlan, path: &Path) -> Result<Infallible, StepError> {
    let failed = |errno| StepError::program(name(plan), errno);
    let strings = |list: &[String]| -> Result<Vec<CString>, StepError> {
        list.iter()
            .map(|text| CString::new(text.as_str()).map_err(|_| failed(Errno::EINVAL)))
            .collect()
    };
    let (args, env) = (strings(&plan.args)?, strings(&plan.env)?);
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| failed(Errno::EINVAL))?;
    execve(&path, &args, &env).map_err(failed)
}

/// Where the plan's program is, for the process's own user. A name with `/` is a path; others are looked for in the plan's
/// own `PATH`.
pub(super) fn find(plan: &ProcessPlan) -> Result<PathBuf, StepError> {
    find_in(name(plan), &plan.env).ok_or_else(|| StepError::not_in_path(name(plan)))
}

fn name(plan: &ProcessPlan) -> &str {
    plan.args.first().map(String::as_str).unwrap_or_default()
}

fn find_in(program: &str, env: &[String]) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    // Where a variable stands twice, the last one holds, as it does for the program itself.
    let path = env.iter().rev().find_map(|variable| variable.strip_prefix("PATH="))?;
    path.split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(program))
        .find(|candidate| is_program(candidate))
}

/// A file that this user may execute.
fn is_program(path: &Path) -> bool {
    let is_file = nix::sys::stat::stat(path).is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFREG);
    is_file && faccessat(AT_FDCWD, path, AccessFlags::X_OK, nix::fcntl::AtFlags::AT_EACCESS).is_ok()
}

/// The limit of that name of getrlimit(2).
fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_AS" => Resource::RLIMIT_AS,
        "RLIMIT_CORE" => Resource::RLIMIT_CORE,
        "RLIMIT_CPU" => Resource::RLIMIT_CPU,
        "RLIMIT_DATA" => Resource::RLIMIT_DATA,
        "RLIMIT_FSIZE" => Resource::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => Resource::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => Resource::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => Resource::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => Resource::RLIMIT_NICE,
        "RLIMIT_NOFILE" => Resource::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => Resource::RLIMIT_NPROC,
        "RLIMIT_RSS" => Resource::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => Resource::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => Resource::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => Resource::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

/// A program that opens `/dev/stdout` anew needs to own the pipe behind it.
fn own_stdio(plan: &ProcessPlan) -> Result<(), StepError> {
    let owner = (Some(Uid::from_raw(plan.uid)), Some(Gid::from_raw(plan.gid)));
    let null = nix::sys::stat::stat("/dev/null").map_err(StepError::at("look at", "/dev/null"))?;
    let streams = [
        std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned(),
        std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned(),
        std::os::fd::AsFd::as_fd(&std::io::stderr()).try_clone_to_owned(),
    ];
    for stream in streams {
        let stream = stream.map_err(StepError::io("look at", "a standard stream"))?;
        let found = nix::sys::stat::fstat(&stream).map_err(StepError::at("look at", "a standard stream"))?;
        if found.st_rdev != null.st_rdev {
            fchown(&stream, owner.0, owner.1).map_err(StepError::at("hand over", "a standard stream"))?;
        }
    }
    Ok(())
}

fn become_user(plan: &ProcessPlan) -> Result<(), StepError> {
    capabilities::limit_bounding(plan.capabilities)?;
    prctl::set_keepcaps(true).map_err(StepError::at("keep", "capabilities"))?;
    let groups: Vec<Gid> = plan.additional_gids.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(StepError::at("set", "supplementary groups"))?;
    let gid = Gid::from_raw(plan.gid);
    setresgid(gid, gid, gid).map_err(StepError::at("become group", plan.gid.to_string()))?;
    let uid = Uid::from_raw(plan.uid);
    setresuid(uid, uid, uid).map_err(StepError::at("become user", plan.uid.to_string()))?;
    prctl::set_keepcaps(false).map_err(StepError::at("let go of", "capabilities"))
}

/// Nothing is blocked and nothing is ignored, which `exec` would hand on: Rust's runtime ignores SIGPIPE, and whoever started the agent may
/// have ignored more.
fn default_signals() -> Result<(), StepError> {
    let step = |errno| StepError::at("reset", "signals")(errno);
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action runs no code of ours.
        unsafe { sigaction(signal, &default) }.map_err(step)?;
    }
    SigSet::empty().thread_set_mask().map_err(step)
}

/// Whatever descriptor is open beyond the standard streams, `exec` closes it.
fn close_on_exec() -> Result<(), StepError> {
    let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
    // SAFETY: sets a flag on descriptors; none is closed before exec, so no owner is left with a dead one.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, flags) };
    Errno::result(result)
        .map(drop)
        .map_err(StepError::at("close", "descriptors"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_as_it_is() {
        assert_eq!(find_in("/no/such/program", &[]), Some("/no/such/program".into()));
        assert_eq!(find_in("./x", &[]), Some("./x".into()));
    }

    #[test]
    fn a_name_is_looked_for_in_the_plans_path() {
        let env = ["PATH=:/no/such/dir:/bin".to_owned()];
        assert_eq!(find_in("sh", &env), Some("/bin/sh".into()));
        assert_eq!(find_in("no-such-program", &env), None);
        assert_eq!(find_in("sh", &[]), None);
    }
}
