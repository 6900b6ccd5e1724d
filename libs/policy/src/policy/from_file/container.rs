//! The rules of `[[container]]`.

use std::collections::{BTreeSet, HashSet};

use super::mounts::{self, Mounts};
use super::{
    Checked, MAX_INTEGER, MAX_KEYS, MAX_PATTERNS, MAX_TABLES, any_or, count, keys, listed, name, range, reference,
};
use crate::capability::Capability;
use crate::choice::{ANY, Choice};
use crate::error::{Place, PolicyError};
use crate::file::{
    ContainerFile, MaskedPathsFile, MatchFile, PresenceFile, RlimitsFile, SeccompFile, StdioFile, StreamFile, UserFile,
};
use crate::names::{NameError, is_container_name, is_hostname};
use crate::policy::{
    ContainerPolicy, MaskedPaths, Match, Memlock, ModelPolicy, Output, Presence, Registry, Rlimits, Rule, Seccomp,
    Signals, Stdio, User, UserPolicy,
};

/// `sealed`: models and datasets; `output`: where the policy's output is in this container.
pub(super) fn container(
    file: ContainerFile,
    registries: &[Registry],
    sealed: (&[ModelPolicy], &[ModelPolicy]),
    output: Option<&str>,
) -> Checked<ContainerPolicy> {
    let place = Place::new(format!("container {:?}", file.name));
    if !is_container_name(&file.name) {
        let error = NameError::new(
            "container",
            &file.name,
            "must be 1 to 63 of A-Z a-z 0-9 . _ - and begin with a letter or digit",
        );
        return Err(PolicyError::Name { place, error });
    }
    let image = reference(&place.with("image"), &file.image, registries)?;
    count(&place.with("image-keys"), file.image_keys.len(), 0, MAX_KEYS)?;
    let image_keys = keys(&place, "image-keys", &file.image_keys)?;
    let require_encrypted = file.require_encrypted.unwrap_or(!image_keys.is_empty());
    if require_encrypted && image_keys.is_empty() {
        return Err(PolicyError::EncryptedWithoutKey { place });
    }
    environment(&place, &file.env)?;
    count(&place.with("env-allow"), file.env_allow.len(), 0, MAX_PATTERNS)?;
    let env_allow = file
        .env_allow
        .iter()
        .enumerate()
        .map(|(index, text)| name(&place.at("env-allow", index), text))
        .collect::<Checked<_>>()?;
    let args = lines_or_any(&place, "args", &file.args, |list| arguments(&place.with("args"), list))?;
    let exec = lines_or_any(&place, "exec", &file.exec, |lists| commands(&place, lists))?;
    let Mounts {
        mounts,
        tmpfs,
        volumes,
        output,
    } = mounts::mounts(&place, &file, sealed, output)?;
    Ok(ContainerPolicy {
        matching: match file.matching {
            MatchFile::Name => Match::Name,
            MatchFile::Image => Match::Image,
        },
        image,
        image_keys,
        require_encrypted,
        instances: instances(&place, &file.instances)?,
        presence: match file.presence {
            PresenceFile::Running => Presence::Running,
            PresenceFile::Completed => Presence::Completed,
            PresenceFile::Optional => Presence::Optional,
        },
        after: file.after,
        args,
        env_allow,
        cwd: match file.cwd.as_str() {
            ANY => Rule::Any,
            cwd => Rule::Only(name(&place.with("cwd"), cwd)?),
        },
        user: user(&place, &file.user)?,
        capabilities: capabilities(&place, &file.capabilities)?,
        privileged: file.privileged,
        new_privileges: file.new_privileges,
        exec,
        terminal: file.terminal,
        readonly_rootfs: any_or(
            &place.with("readonly-rootfs"),
            &file.readonly_rootfs,
            "true, false or \"any\"",
        )?
        .copied(),
        hostname: hostname(&place, &file.hostname)?,
        stdio: stdio(&place, &file.stdio)?,
        memlock: memlock(&place, &file.memlock_bytes)?,
        rlimits: match file.rlimits {
            RlimitsFile::Named => Rlimits::Named,
            RlimitsFile::Any => Rlimits::Any,
        },
        seccomp: match file.seccomp {
            SeccompFile::Agent => Seccomp::Agent,
            SeccompFile::Host => Seccomp::Host,
            SeccompFile::Any => Seccomp::Any,
        },
        masked_paths: match file.masked_paths {
            MaskedPathsFile::Agent => MaskedPaths::Agent,
            MaskedPathsFile::Any => MaskedPaths::Any,
        },
        signals: signals(&place, &file.signals)?,
        volumes,
        mounts,
        tmpfs,
        output,
        name: file.name,
        env: file.env,
    })
}

/// `"any"`, or lines that `check` finds good.
fn lines_or_any<T: Clone>(
    place: &Place,
    field: &str,
    choice: &Choice<T>,
    check: impl FnOnce(&T) -> Checked<()>,
) -> Checked<Rule<T>> {
    match any_or(&place.with(field), choice, "\"any\" or a list")? {
        Rule::Any => Ok(Rule::Any),
        Rule::Only(value) => check(value).map(|()| Rule::Only(value.clone())),
    }
}

fn commands(place: &Place, lists: &[Vec<String>]) -> Checked<()> {
    count(&place.with("exec"), lists.len(), 0, MAX_TABLES)?;
    for (index, list) in lists.iter().enumerate() {
        arguments(&place.at("exec", index), list)?;
    }
    Ok(())
}

/// `place` is the list's.
fn arguments(place: &Place, args: &[String]) -> Checked<()> {
    count(place, args.len(), 1, MAX_STRINGS)?;
    for (index, arg) in args.iter().enumerate() {
        if arg.contains('\0') {
            return Err(PolicyError::Text {
                place: place.index(index),
                rule: "holds a NUL character",
            });
        }
    }
    if args.first().is_some_and(String::is_empty) {
        return Err(PolicyError::Text {
            place: place.index(0),
            rule: "the program's name is empty",
        });
    }
    Ok(())
}

fn environment(place: &Place, env: &[String]) -> Checked<()> {
    count(&place.with("env"), env.len(), 0, MAX_STRINGS)?;
    let mut seen = HashSet::new();
    for (index, entry) in env.iter().enumerate() {
        let place = place.at("env", index);
        if entry.contains('\0') {
            return Err(PolicyError::Text {
                place,
                rule: "holds a NUL character",
            });
        }
        let variable = match entry.split_once('=') {
            Some((variable, _)) if !variable.is_empty() => variable,
            _ => {
                return Err(PolicyError::Text {
                    place,
                    rule: "must be NAME=value",
                });
            }
        };
        if !seen.insert(variable) {
            return Err(PolicyError::Duplicate {
                place,
                what: "variable",
                name: variable.to_owned(),
            });
        }
    }
    Ok(())
}

fn instances(place: &Place, choice: &Choice<u32>) -> Checked<Rule<u32>> {
    let place = place.with("instances");
    let rule = any_or(&place, choice, "\"any\" or a number")?.copied();
    if let Rule::Only(number) = rule {
        range(&place, u64::from(number), 1, MAX_INSTANCES)?;
    }
    Ok(rule)
}

fn capabilities(place: &Place, choice: &Choice<Vec<String>>) -> Checked<Rule<BTreeSet<Capability>>> {
    match any_or(&place.with("capabilities"), choice, "\"any\" or a list of names")? {
        Rule::Any => Ok(Rule::Any),
        Rule::Only(list) => listed(list, |index, text: &String| {
            text.parse().map_err(|error| PolicyError::Capability {
                place: place.at("capabilities", index),
                error,
            })
        })
        .map(Rule::Only),
    }
}

fn user(place: &Place, choice: &Choice<UserFile>) -> Checked<UserPolicy> {
    match choice {
        Choice::Word(word) if word == ANY => Ok(UserPolicy::Any),
        Choice::Word(word) if word == IMAGE => Ok(UserPolicy::Image),
        Choice::Word(word) => Err(PolicyError::Choice {
            place: place.with("user"),
            found: word.clone(),
            expected: "\"image\", \"any\" or a table of uid, gid and additional-gids",
        }),
        Choice::Value(file) => ids(place, file).map(UserPolicy::Ids),
    }
}

fn ids(place: &Place, file: &UserFile) -> Checked<User> {
    count(
        &place.with("user additional-gids"),
        file.additional_gids.len(),
        0,
        MAX_GROUPS,
    )?;
    for id in [file.uid, file.gid].iter().chain(&file.additional_gids) {
        // All ones means "leave it as it is" to setresuid and setresgid.
        range(&place.with("user"), u64::from(*id), 0, u64::from(u32::MAX) - 1)?;
    }
    let additional_gids = file
        .additional_gids
        .iter()
        .copied()
        .filter(|gid| *gid != file.gid)
        .collect();
    Ok(User {
        uid: file.uid,
        gid: file.gid,
        additional_gids,
    })
}

/// One word for all streams, or one for each. Of what is typed there is nothing to be told in a redacted form.
fn stdio(place: &Place, choice: &Choice<StdioFile>) -> Checked<Stdio> {
    let place = place.with("stdio");
    let file = match choice {
        Choice::Value(file) => *file,
        Choice::Word(word) => {
            let output = match word.as_str() {
                "deny" => StreamFile::Deny,
                "redact" => StreamFile::Redact,
                "allow" => StreamFile::Allow,
                _ => {
                    return Err(PolicyError::Choice {
                        place,
                        found: word.clone(),
                        expected: "\"deny\", \"redact\", \"allow\" or a table of stdin, stdout and stderr",
                    });
                }
            };
            let stdin = if output == StreamFile::Allow {
                output
            } else {
                StreamFile::Deny
            };
            StdioFile {
                stdin,
                stdout: output,
                stderr: output,
            }
        }
    };
    let output = |stream| match stream {
        StreamFile::Deny => Output::Deny,
        StreamFile::Redact => Output::Redact,
        StreamFile::Allow => Output::Allow,
    };
    if file.stdin == StreamFile::Redact {
        return Err(PolicyError::Choice {
            place: place.with("stdin"),
            found: "redact".to_owned(),
            expected: "\"deny\" or \"allow\"",
        });
    }
    Ok(Stdio {
        stdin: file.stdin == StreamFile::Allow,
        stdout: output(file.stdout),
        stderr: output(file.stderr),
    })
}

fn hostname(place: &Place, text: &str) -> Checked<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    if !is_hostname(text) {
        let error = NameError::new("host name", text, "must be 1 to 64 of A-Z a-z 0-9 . -");
        return Err(PolicyError::Name {
            place: place.with("hostname"),
            error,
        });
    }
    Ok(Some(text.to_owned()))
}

fn memlock(place: &Place, choice: &Choice<u64>) -> Checked<Memlock> {
    let place = place.with("memlock-bytes");
    match choice {
        Choice::Value(bytes) => range(&place, *bytes, 0, MAX_INTEGER).map(|()| Memlock::Bytes(*bytes)),
        Choice::Word(word) if word == "unlimited" => Ok(Memlock::Unlimited),
        Choice::Word(word) => Err(PolicyError::Choice {
            place,
            found: word.clone(),
            expected: "a number or \"unlimited\"",
        }),
    }
}

fn signals(place: &Place, choice: &Choice<Vec<String>>) -> Checked<Signals> {
    match any_or(&place.with("signals"), choice, "\"any\" or a list of names")? {
        Rule::Any => Ok(Signals::Any),
        Rule::Only(list) => listed(list, |index, text: &String| {
            text.parse().map_err(|error| PolicyError::Signal {
                place: place.at("signals", index),
                error,
            })
        })
        .map(Signals::Only),
    }
}

/// The word for the image's own user.
const IMAGE: &str = "image";
const MAX_STRINGS: u64 = 1024;
const MAX_GROUPS: u64 = 64;
/// Beyond any pod: the agent's own bound on containers is lower.
const MAX_INSTANCES: u64 = 1024;
