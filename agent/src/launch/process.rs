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

use super::{
    StepError, capabilities,
    plan::{ProcessPlan, RlimitKind},
    seccomp,
};

/// Gives up every privilege that the plan does not name. Afterwards only [`exec`] makes sense.
pub(super) fn confine(plan: &ProcessPlan) -> Result<(), StepError> {
    own_stdio(plan)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(StepError::at("limit", "RLIMIT_CORE"))?;
    for limit in &plan.rlimits {
        let (resource, name) = match limit.kind {
            RlimitKind::Nofile => (Resource::RLIMIT_NOFILE, "RLIMIT_NOFILE"),
            RlimitKind::Memlock => (Resource::RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK"),
        };
        setrlimit(resource, limit.soft, limit.hard).map_err(StepError::at("limit", name))?;
    }
    setsid().map_err(StepError::at("make", "a session"))?;
    become_user(plan)?;
    prctl::set_no_new_privs().map_err(StepError::at("set", "no_new_privs"))?;
    chdir(&plan.cwd).map_err(StepError::at("cwd", plan.cwd.to_string_lossy()))?;
    default_signals()?;
    umask(Mode::from_bits_truncate(0o022));
    close_on_exec()?;
    seccomp::install()
}

/// Starts the program; returns only if that failed.
pub(super) fn exec(plan: &ProcessPlan) -> Result<Infallible, StepError> {
    let program = plan.args.first().map(String::as_str).unwrap_or_default();
    let failed = |errno| StepError::at("exec", program)(errno);
    let strings = |list: &[String]| -> Result<Vec<CString>, StepError> {
        list.iter()
            .map(|text| CString::new(text.as_str()).map_err(|_| failed(Errno::EINVAL)))
            .collect()
    };
    let (args, env) = (strings(&plan.args)?, strings(&plan.env)?);
    let path = find(program, &plan.env).ok_or_else(|| failed(Errno::ENOENT))?;
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| failed(Errno::EINVAL))?;
    execve(&path, &args, &env).map_err(failed)
}

/// A program with `/` is a path; others are looked for in the plan's own `PATH`.
fn find(program: &str, env: &[String]) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    let path = env.iter().find_map(|variable| variable.strip_prefix("PATH="))?;
    path.split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(program))
        .find(|candidate| faccessat(AT_FDCWD, candidate, AccessFlags::X_OK, nix::fcntl::AtFlags::AT_EACCESS).is_ok())
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
    prctl::set_keepcaps(false).map_err(StepError::at("let go of", "capabilities"))?;
    capabilities::apply(plan.capabilities)
}

/// Nothing is blocked and nothing is ignored: Rust's runtime ignores SIGPIPE, which `exec` would hand on.
fn default_signals() -> Result<(), StepError> {
    let step = |errno| StepError::at("reset", "signals")(errno);
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default) }.map_err(step)?;
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
        assert_eq!(find("/no/such/program", &[]), Some("/no/such/program".into()));
        assert_eq!(find("./x", &[]), Some("./x".into()));
    }

    #[test]
    fn a_name_is_looked_for_in_the_plans_path() {
        let env = ["PATH=:/no/such/dir:/bin".to_owned()];
        assert_eq!(find("sh", &env), Some("/bin/sh".into()));
        assert_eq!(find("no-such-program", &env), None);
        assert_eq!(find("sh", &[]), None);
    }
}
