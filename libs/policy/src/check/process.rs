//! The rules for a process: a container's first one, and every further one.

use std::collections::{BTreeMap, BTreeSet};

use super::admission::{AdmittedProcess, AdmittedUser};
use super::request::{ProcessRequest, RequestedRlimit};
use super::{DEFAULT_NOFILE, Denial, Subject, is_plain_path, shown_list};
use crate::capability::Capability;
use crate::form::Form;
use crate::names::shown;
use crate::pattern::EnvPattern;
use crate::policy::{ContainerPolicy, Rlimits, Rule, Signals, User, UserPolicy};
use crate::signal::Signal;

/// Everything but the arguments, which `args` has found good already.
pub(super) fn check(
    container: &ContainerPolicy,
    subject: &Subject,
    request: &ProcessRequest,
    args: Vec<String>,
    privileged: bool,
) -> Result<AdmittedProcess, Denial> {
    if request.terminal && !container.terminal {
        return Err(Denial::Terminal {
            subject: subject.clone(),
        });
    }
    Ok(AdmittedProcess {
        args,
        env: env(container, subject, request)?,
        cwd: cwd(container, subject, &request.cwd)?,
        user: user(container, subject, request)?,
        capabilities: capabilities(container, subject, &request.capabilities, privileged)?,
        rlimits: rlimits(container, subject, &request.rlimits)?,
        terminal: request.terminal,
        no_new_privileges: request.no_new_privileges || !(container.new_privileges || privileged),
    })
}

/// Whether the host may send signal `number` to the container's processes.
///
/// # Errors
/// [`Denial::Signal`], with those that it may.
pub fn check_signal(container: &ContainerPolicy, number: u32) -> Result<(), Denial> {
    if container.signals.allows(number) {
        return Ok(());
    }
    let allowed = match &container.signals {
        Signals::Any => "SIGHUP to SIGRTMAX, 1 to 64".to_owned(),
        Signals::Only(list) => {
            let kill = (!list.contains(&Signal::KILL)).then_some(Signal::KILL);
            shown_list(list.iter().copied().chain(kill))
        }
    };
    Err(Denial::Signal {
        subject: Subject::Container(container.name.clone()),
        given: Signal::from_number(number).map_or_else(|| number.to_string(), |signal| signal.to_string()),
        allowed,
    })
}

/// The container's arguments: equal to the policy's, or any that a process can have.
pub(super) fn args(container: &ContainerPolicy, subject: &Subject, given: &[String]) -> Result<Vec<String>, Denial> {
    match &container.args {
        Rule::Any => any_args(subject, given),
        Rule::Only(allowed) => same_args(subject, given, allowed).map(|()| allowed.clone()),
    }
}

/// A further process's arguments: one of the policy's command lines, or any that a process can have.
pub(super) fn command(container: &ContainerPolicy, subject: &Subject, given: &[String]) -> Result<Vec<String>, Denial> {
    match &container.exec {
        Rule::Any => any_args(subject, given),
        Rule::Only(allowed) => match allowed.iter().find(|line| *line == given) {
            Some(line) => Ok(line.clone()),
            None => Err(Denial::Command {
                subject: subject.clone(),
                given: shown(&given.join(" ")),
                allowed: shown_list(allowed.iter().map(|line| line.join(" "))),
            }),
        },
    }
}

fn any_args(subject: &Subject, given: &[String]) -> Result<Vec<String>, Denial> {
    let form = |given: &str, allowed| Denial::Form {
        subject: subject.clone(),
        field: "one of args",
        given: shown(given),
        allowed,
    };
    if given.first().is_none_or(String::is_empty) {
        return Err(form("", "a program's name first"));
    }
    match given.iter().find(|arg| arg.contains('\0')) {
        Some(arg) => Err(form(arg, "any text without a NUL character")),
        None => Ok(given.to_vec()),
    }
}

fn same_args(subject: &Subject, given: &[String], allowed: &[String]) -> Result<(), Denial> {
    for index in 0..given.len().max(allowed.len()) {
        let denial = match (given.get(index), allowed.get(index)) {
            (Some(given), Some(allowed)) if given == allowed => continue,
            (Some(given), Some(allowed)) => Denial::Argument {
                subject: subject.clone(),
                index,
                given: shown(given),
                allowed: shown(allowed),
            },
            (Some(given), None) => Denial::ExtraArgument {
                subject: subject.clone(),
                index,
                given: shown(given),
            },
            (None, Some(allowed)) => Denial::MissingArgument {
                subject: subject.clone(),
                index,
                allowed: shown(allowed),
            },
            (None, None) => continue,
        };
        return Err(denial);
    }
    Ok(())
}

/// The policy's variables with the policy's values, then those that the host may choose.
fn env(container: &ContainerPolicy, subject: &Subject, request: &ProcessRequest) -> Result<Vec<String>, Denial> {
    let exact: BTreeMap<&str, &str> = container.env.iter().map(|entry| variable(entry)).collect();
    let mut env = container.env.clone();
    let mut seen = BTreeSet::new();
    for entry in &request.env {
        let (name, value) = variable(entry);
        if !seen.insert(name) {
            return Err(Denial::RepeatedVariable {
                subject: subject.clone(),
                name: shown(name),
            });
        }
        match exact.get(name) {
            Some(allowed) if entry.contains('=') && *allowed == value => {}
            Some(allowed) => {
                return Err(Denial::Variable {
                    subject: subject.clone(),
                    name: shown(name),
                    given: shown(value),
                    allowed: shown(allowed),
                });
            }
            None if is_free(container, request, entry) => {
                if name.is_empty() || !entry.contains('=') || entry.contains('\0') {
                    return Err(Denial::Form {
                        subject: subject.clone(),
                        field: "one of env",
                        given: shown(entry),
                        allowed: "NAME=value without a NUL character",
                    });
                }
                env.push(entry.clone());
            }
            None => {
                if let Some(form) = named_form(container, name) {
                    return Err(Denial::VariableForm {
                        subject: subject.clone(),
                        name: shown(name),
                        given: shown(value),
                        allowed: form,
                    });
                }
                let patterns = container.env_allow.iter().map(ToString::to_string);
                return Err(Denial::ExtraVariable {
                    subject: subject.clone(),
                    name: shown(name),
                    allowed: shown_list(exact.keys().map(ToString::to_string).chain(patterns)),
                });
            }
        }
    }
    match exact.iter().find(|(name, _)| !seen.contains(**name)) {
        Some((name, allowed)) => Err(Denial::MissingVariable {
            subject: subject.clone(),
            name: shown(name),
            allowed: shown(allowed),
        }),
        None => Ok(env),
    }
}

/// A variable whose value the host chooses, or the one that comes with a terminal.
fn is_free(container: &ContainerPolicy, request: &ProcessRequest, entry: &str) -> bool {
    let (name, value) = variable(entry);
    container.env_allow.iter().any(|pattern| pattern.allows(name, value))
        || (request.terminal && entry == TERMINAL_TYPE)
}

/// The form that `env-allow` wants of the variable, if it names it.
fn named_form(container: &ContainerPolicy, name: &str) -> Option<Form> {
    let mut named = container.env_allow.iter().filter(|pattern| pattern.allows_name(name));
    named.find_map(EnvPattern::form)
}

fn variable(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}

fn cwd(container: &ContainerPolicy, subject: &Subject, given: &str) -> Result<String, Denial> {
    let allowed = match &container.cwd {
        Rule::Any if given.is_empty() => return Ok("/".to_owned()),
        Rule::Any if is_plain_path(given) => return Ok(given.to_owned()),
        Rule::Any => "any absolute path without .. and control characters".to_owned(),
        Rule::Only(cwd) if given == cwd.as_str() => return Ok(given.to_owned()),
        Rule::Only(cwd) => shown(cwd.as_str()),
    };
    Err(Denial::WorkingDirectory {
        subject: subject.clone(),
        given: shown(given),
        allowed,
    })
}

fn user(container: &ContainerPolicy, subject: &Subject, request: &ProcessRequest) -> Result<AdmittedUser, Denial> {
    match &container.user {
        UserPolicy::Ids(user) => same_user(subject, request, user).map(|()| AdmittedUser::Ids(user.clone())),
        UserPolicy::Image => Ok(AdmittedUser::Image),
        UserPolicy::Any => any_user(subject, request),
    }
}

fn same_user(subject: &Subject, request: &ProcessRequest, user: &User) -> Result<(), Denial> {
    if !request.user_name.is_empty() {
        return Err(Denial::UserName {
            subject: subject.clone(),
            given: shown(&request.user_name),
            allowed: user.uid,
        });
    }
    for (field, given, allowed) in [("uid", request.uid, user.uid), ("gid", request.gid, user.gid)] {
        if given != allowed {
            return Err(Denial::User {
                subject: subject.clone(),
                field,
                given,
                allowed,
            });
        }
    }
    let given = request.additional_gids.iter().copied().filter(|gid| *gid != user.gid);
    let given: BTreeSet<u32> = given.collect();
    if given == user.additional_gids {
        return Ok(());
    }
    Err(Denial::Groups {
        subject: subject.clone(),
        given: given.into_iter().take(MAX_SHOWN_GROUPS).collect(),
        allowed: user.additional_gids.iter().copied().collect(),
    })
}

fn any_user(subject: &Subject, request: &ProcessRequest) -> Result<AdmittedUser, Denial> {
    let ids = [request.uid, request.gid];
    // All ones means "leave it as it is" to setresuid and setresgid.
    if let Some(id) = ids.iter().chain(&request.additional_gids).find(|id| **id == u32::MAX) {
        return Err(Denial::Form {
            subject: subject.clone(),
            field: "an id of user",
            given: id.to_string(),
            allowed: "0 to 4294967294",
        });
    }
    let is_name = |c: char| !c.is_control() && !"/\n".contains(c);
    if request.user_name.len() > MAX_USER_NAME || !request.user_name.chars().all(is_name) {
        return Err(Denial::Form {
            subject: subject.clone(),
            field: "the name of user",
            given: shown(&request.user_name),
            allowed: "up to 256 printable characters without /",
        });
    }
    Ok(AdmittedUser::Host {
        uid: request.uid,
        gid: request.gid,
        additional_gids: request.additional_gids.clone(),
        name: request.user_name.clone(),
    })
}

/// The policy's set, whatever was asked within it; as asked where the policy or privilege leaves it to the host.
fn capabilities(
    container: &ContainerPolicy,
    subject: &Subject,
    given: &[String],
    privileged: bool,
) -> Result<BTreeSet<Capability>, Denial> {
    let free = match &container.capabilities {
        Rule::Only(allowed) if !privileged => Some(allowed),
        _ => None,
    };
    let mut asked = BTreeSet::new();
    for text in given {
        match (text.parse::<Capability>(), free) {
            (Ok(capability), None) => {
                asked.insert(capability);
            }
            (Ok(capability), Some(allowed)) if capability.is_containerd_default() || allowed.contains(&capability) => {}
            (Err(_), None) => {
                return Err(Denial::NoCapability {
                    subject: subject.clone(),
                    given: shown(text),
                });
            }
            (_, Some(allowed)) => {
                return Err(Denial::Capability {
                    subject: subject.clone(),
                    given: shown(text),
                    allowed: shown_list(allowed.iter().map(ToString::to_string)),
                });
            }
        }
    }
    Ok(free.cloned().unwrap_or(asked))
}

/// containerd's default and the policy's, over them what the policy leaves to the host.
fn rlimits(
    container: &ContainerPolicy,
    subject: &Subject,
    given: &[RequestedRlimit],
) -> Result<Vec<RequestedRlimit>, Denial> {
    let memlock = container.memlock.limit();
    let mut limits: BTreeMap<&str, (u64, u64)> = BTreeMap::from([
        ("RLIMIT_NOFILE", (DEFAULT_NOFILE, DEFAULT_NOFILE)),
        ("RLIMIT_MEMLOCK", (memlock, memlock)),
    ]);
    for limit in given {
        let asked = (limit.soft, limit.hard);
        let is_allowed = match container.rlimits {
            Rlimits::Named => limits.get(limit.kind.as_str()) == Some(&asked),
            Rlimits::Any => RLIMITS.contains(&limit.kind.as_str()) && limit.soft <= limit.hard,
        };
        if !is_allowed {
            let allowed = match container.rlimits {
                Rlimits::Named => shown_list(
                    limits
                        .iter()
                        .map(|(kind, (soft, hard))| format!("{kind}={soft}:{hard}")),
                ),
                Rlimits::Any => "any limit of Linux, soft not above hard".to_owned(),
            };
            return Err(Denial::Rlimit {
                subject: subject.clone(),
                kind: shown(&limit.kind),
                soft: limit.soft,
                hard: limit.hard,
                allowed,
            });
        }
        limits.insert(&limit.kind, asked);
    }
    let admitted = limits.into_iter().map(|(kind, (soft, hard))| RequestedRlimit {
        kind: kind.to_owned(),
        soft,
        hard,
    });
    Ok(admitted.collect())
}

/// What container engines add to the environment of a process with a terminal.
const TERMINAL_TYPE: &str = "TERM=xterm";
const MAX_SHOWN_GROUPS: usize = 16;
const MAX_USER_NAME: usize = 256;

/// The limits of getrlimit(2).
const RLIMITS: [&str; 16] = [
    "RLIMIT_AS",
    "RLIMIT_CORE",
    "RLIMIT_CPU",
    "RLIMIT_DATA",
    "RLIMIT_FSIZE",
    "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "RLIMIT_RSS",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
    "RLIMIT_SIGPENDING",
    "RLIMIT_STACK",
];
