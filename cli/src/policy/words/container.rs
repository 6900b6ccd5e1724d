//! What a policy says of one container.

use cella_policy::{
    ContainerPolicy, MaskedPaths, Match, Memlock, Output, Presence, Rlimits, Rule, Seccomp, Signals, Stdio, UserPolicy,
    VolumeKind, VolumePolicy,
};

use super::facts::Subject;
use super::{list, words};
use crate::units;

pub(super) fn container(container: &ContainerPolicy) -> Subject {
    let mut subject = Subject::new(format!("Container {:?}", container.name));
    let out = &mut subject;
    if container.matching == Match::Image {
        out.grants("called", "by its name, and by any that the policy does not have");
    }
    match container.instances {
        Rule::Any => out.grants("at once", "ANY number"),
        Rule::Only(1) => {}
        Rule::Only(number) => out.grants("at once", number.to_string()),
    }
    match container.presence {
        Presence::Running => out.demands("presence", "no client comes in while it does not run"),
        Presence::Completed => out.demands("presence", "no client comes in before it has ended with status 0"),
        Presence::Optional => out.says("presence", "the host may leave it out"),
    }
    for other in &container.after {
        out.demands("starts after", other);
    }
    out.grants("image", container.image.to_string());
    match (container.require_encrypted, container.image_keys.as_slice()) {
        (_, []) => out.says("layers", "plain only"),
        (true, keys) => {
            out.demands("layers", "all encrypted");
            out.grants_each("layer keys", keys, "");
        }
        (false, keys) => {
            out.says("layers", "plain or encrypted");
            out.grants_each("layer keys", keys, "");
        }
    }
    process(out, container);
    files(out, container);
    match &container.hostname {
        Some(name) => out.demands("host name", name),
        None => out.says("host name", "as the host likes"),
    }
    streams(out, container.stdio);
    if container.terminal {
        out.grants("terminal", "the host may ask for one");
    }
    match &container.exec {
        Rule::Any => out.grants("host runs", "ANY program in it"),
        Rule::Only(lines) if lines.is_empty() => out.says("host runs", "nothing else in it"),
        Rule::Only(lines) => lines.iter().for_each(|line| out.grants("host runs", words(line))),
    }
    match &container.signals {
        Signals::Any => out.grants("host signals", "any"),
        Signals::Only(signals) => out.grants_each("host signals", signals, "SIGKILL only"),
    }
    subject
}

fn streams(out: &mut Subject, stdio: Stdio) {
    match stdio.stdin {
        true => out.grants("host writes", "to stdin"),
        false => out.says("host writes", "nothing to stdin"),
    }
    for (field, output) in [("reads stdout", stdio.stdout), ("reads stderr", stdio.stderr)] {
        match output {
            Output::Deny => out.says(field, "nothing of it"),
            Output::Redact => out.grants(field, "about how much, never what"),
            Output::Allow => out.grants(field, "every byte"),
        }
    }
}

fn process(out: &mut Subject, container: &ContainerPolicy) {
    match &container.args {
        Rule::Any => out.grants("runs", "ANY program"),
        Rule::Only(args) => out.grants("runs", words(args)),
    }
    match &container.cwd {
        Rule::Any => out.grants("in", "ANY directory"),
        Rule::Only(cwd) => out.grants("in", cwd.as_str()),
    }
    match container.env.as_slice() {
        [] => out.says("variables", "none"),
        env => out.grants("variables", words(env)),
    }
    out.grants_each("and the host's", &container.env_allow, "");
    match &container.user {
        UserPolicy::Any => out.grants("as", "ANY user"),
        UserPolicy::Image => out.grants("as", "the image's own user"),
        UserPolicy::Ids(user) if user.additional_gids.is_empty() => {
            out.grants("as", format!("uid {}, gid {}", user.uid, user.gid));
        }
        UserPolicy::Ids(user) => {
            let groups = list(&user.additional_gids);
            out.grants("as", format!("uid {}, gid {}, groups {groups}", user.uid, user.gid));
        }
    }
    match &container.capabilities {
        Rule::Any => out.grants("capabilities", "ANY"),
        Rule::Only(capabilities) => out.grants_each("capabilities", capabilities, "none"),
    }
    if container.privileged {
        out.grants("privileged", "if the host asks for it: EVERY power within the guest");
    }
    if container.new_privileges {
        out.grants("programs", "may GAIN privileges, by set-user-id files");
    }
    match container.memlock {
        Memlock::Bytes(0) => out.says("memory lock", "none of its own"),
        Memlock::Bytes(bytes) => out.grants("memory lock", format!("up to {} bytes", units::grouped(bytes))),
        Memlock::Unlimited => out.grants("memory lock", "unlimited"),
    }
    if container.rlimits == Rlimits::Any {
        out.grants("limits", "ANY that the host sets");
    }
    match container.seccomp {
        Seccomp::Agent => {}
        Seccomp::Host => out.says("system calls", "the agent's filter, and the host's on top of it"),
        Seccomp::Any => out.grants(
            "system calls",
            "ANY that the host's filter lets pass; where the host has none, vsock to the host too",
        ),
    }
}

fn files(out: &mut Subject, container: &ContainerPolicy) {
    match container.readonly_rootfs {
        Rule::Any => out.grants("root", "read-only or writable, AS THE HOST LIKES"),
        Rule::Only(true) => out.says("root", "read-only"),
        Rule::Only(false) => out.grants("root", "writable"),
    }
    if container.masked_paths == MaskedPaths::Any {
        out.grants("hidden paths", "AS THE HOST LIKES");
    }
    for mount in &container.mounts {
        out.grants(
            mount.kind.as_str(),
            format!("{:?} at {}, read-only, locked memory", mount.model, mount.destination),
        );
    }
    if let Some(destination) = &container.output {
        out.grants("output", format!("{destination}, writable: see below"));
    }
    for tmpfs in &container.tmpfs {
        out.grants("memory", format!("{} MiB at {}", tmpfs.size_mib, tmpfs.destination));
    }
    match &container.volumes {
        Rule::Any => out.grants("volumes", "ANY files of the host's, ANYWHERE"),
        Rule::Only(volumes) => volumes.iter().for_each(|one| out.grants("volume", volume(one))),
    }
}

fn volume(volume: &VolumePolicy) -> String {
    let access = if volume.read_only { "read-only" } else { "writable" };
    let origin = match volume.kind {
        VolumeKind::EmptyDir => "empty memory",
        VolumeKind::TerminationLog => "the host reads it at the end",
        _ if volume.files.is_empty() => "files of the host's",
        _ => "files of the host's, each by its digest",
    };
    let files = volume.files.iter().map(|(path, digest)| format!("; {path:?} {digest}"));
    format!(
        "{} at {}, {access}: {origin}{}",
        volume.kind,
        volume.destination,
        files.collect::<String>()
    )
}
