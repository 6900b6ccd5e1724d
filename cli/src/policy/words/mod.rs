//! A policy in plain words, for whoever signs it off.

mod freedom;

use std::fmt::Write as _;

use cella_policy::initdata;
use cella_policy::{
    ContainerPolicy, MaskedPaths, Match, Memlock, ModelPolicy, NetworkPolicy, Output, PodPolicy, Policy, Presence,
    Provenance, Registry, Rlimits, Rule, Seccomp, Signals, Stats, Stdio, UserPolicy, VolumeKind,
};

use crate::units;

/// Everything that the policy allows; of the document that carries it, the digest.
pub(super) fn describe(policy: &Policy, document: Option<&[u8]>) -> String {
    let mut out = Out(String::new());
    let freedoms = freedom::freedoms(policy);
    if !freedoms.is_empty() {
        out.line("DEVELOPMENT POLICY. The host decides what is listed under \"Left to the host\":");
        out.line("give it no key, model or prompt that matters.\n");
    }
    out.line("This guest may do the following, and nothing else.");
    out.field(
        "keys from",
        &match policy.kbs() {
            Some(kbs) if kbs.token_keys.is_empty() => format!("{}, by an authority of its own", kbs.url),
            Some(kbs) => format!(
                "{}, by an authority of its own; the time by tokens signed with {}",
                kbs.url,
                list(&kbs.token_keys)
            ),
            None => "nobody: it names no key and does not attest itself".to_owned(),
        },
    );
    for registry in policy.registries() {
        describe_registry(&mut out, registry);
    }
    describe_pod(&mut out, policy.pod());
    describe_network(&mut out, policy.network());
    for container in policy.containers() {
        describe_container(&mut out, container);
    }
    for model in policy.models() {
        describe_model(&mut out, model);
    }
    if !freedoms.is_empty() {
        out.line("\nLeft to the host: development freedoms");
        for freedom in freedoms {
            out.line(&format!("  {freedom}"));
        }
    }
    if let Some(document) = document {
        let digests = initdata::digests(document);
        out.line(&format!(
            "\ninitdata: {} bytes, sha256 {}",
            units::grouped(document.len() as u64),
            hex::encode(digests.sha256)
        ));
    }
    out.0
}

fn describe_pod(out: &mut Out, pod: &PodPolicy) {
    if !pod.sysctl.is_empty() {
        out.field("host may set", &format!("kernel parameters {}", list(&pod.sysctl)));
    }
    match &pod.forward_ports {
        Rule::Any => out.field("host reaches", "ANY TCP port"),
        Rule::Only(ports) if ports.is_empty() => {}
        Rule::Only(ports) => out.field("host reaches", &format!("TCP ports {} through the agent", list(ports))),
    }
    if !pod.calls.is_empty() {
        out.field("host may call", &list(&pod.calls));
    }
    match pod.stats {
        Stats::Deny => {}
        Stats::Coarse => out.field("host learns", "use of memory and CPU, coarse, once a minute"),
        Stats::Exact => out.field("host learns", "use of memory, CPU and network, exactly"),
    }
    if pod.share_process_namespace {
        out.field("processes", "containers may see and signal each other's");
    }
}

fn describe_network(out: &mut Out, network: &NetworkPolicy) {
    match &network.egress {
        Rule::Any => out.field("speaks to", "ANYBODY"),
        Rule::Only(list) if list.is_empty() => out.field("speaks to", "nobody beyond the pod"),
        Rule::Only(list) => list.iter().for_each(|one| out.field("speaks to", &one.to_string())),
    }
    match &network.ingress {
        Rule::Any => out.field("clients use", "ANY port"),
        Rule::Only(ports) => out.field("clients use", &or_none(&list(ports))),
    }
}

fn describe_registry(out: &mut Out, registry: &Registry) {
    let transport = match registry.ca {
        Some(_) => "by an authority of its own",
        None => "in the clear: every byte is checked against a digest",
    };
    out.field(
        "content from",
        &format!("{} at {}, {transport}", registry.name, registry.endpoint),
    );
    if !registry.mirrors.is_empty() {
        let mirrors = registry.mirrors.iter().map(|mirror| &mirror.endpoint);
        out.field("  or before", &list(mirrors));
    }
}

fn describe_container(out: &mut Out, container: &ContainerPolicy) {
    out.line(&format!("\nContainer {:?}", container.name));
    if container.matching == Match::Image {
        out.field("called", "by its name, and by any that the policy does not have");
    }
    match container.instances {
        Rule::Any => out.field("at once", "ANY number"),
        Rule::Only(1) => {}
        Rule::Only(number) => out.field("at once", &number.to_string()),
    }
    out.field(
        "presence",
        match container.presence {
            Presence::Running => "no client comes in while it does not run",
            Presence::Completed => "no client comes in before it has ended with status 0",
            Presence::Optional => "the host may leave it out",
        },
    );
    if !container.after.is_empty() {
        out.field("starts after", &list(&container.after));
    }
    out.field("image", &container.image.to_string());
    out.field(
        "layers",
        &match (container.require_encrypted, container.image_keys.as_slice()) {
            (_, []) => "plain only".to_owned(),
            (true, keys) => format!("all encrypted, keys {}", list(keys)),
            (false, keys) => format!("plain or encrypted, keys {}", list(keys)),
        },
    );
    describe_process(out, container);
    describe_files(out, container);
    out.field(
        "host name",
        container.hostname.as_deref().unwrap_or("as the host likes"),
    );
    let Stdio { stdin, stdout, stderr } = container.stdio;
    let output = |output| match output {
        Output::Deny => "nothing of it",
        Output::Redact => "about how much, never what",
        Output::Allow => "every byte",
    };
    out.field("host writes", if stdin { "to stdin" } else { "nothing to stdin" });
    out.field("reads stdout", output(stdout));
    out.field("reads stderr", output(stderr));
    if container.terminal {
        out.field("terminal", "the host may ask for one");
    }
    match &container.exec {
        Rule::Any => out.field("host runs", "ANY program in it"),
        Rule::Only(lines) if lines.is_empty() => out.field("host runs", "nothing else in it"),
        Rule::Only(lines) => lines.iter().for_each(|line| out.field("host runs", &words(line))),
    }
    out.field(
        "host signals",
        &match &container.signals {
            Signals::Any => "any".to_owned(),
            Signals::Only(signals) => format!("{} and SIGKILL", or_none(&list(signals))),
        },
    );
}

fn describe_process(out: &mut Out, container: &ContainerPolicy) {
    out.field(
        "runs",
        &container
            .args
            .only()
            .map_or("ANY program".to_owned(), |args| words(args)),
    );
    out.field("in", container.cwd.only().map_or("ANY directory", |cwd| cwd.as_str()));
    out.field("variables", &or_none(&words(&container.env)));
    if !container.env_allow.is_empty() {
        let names = list(&container.env_allow);
        out.field("and the host's", &format!("{names}, with values of its choice"));
    }
    out.field(
        "as",
        &match &container.user {
            UserPolicy::Any => "ANY user".to_owned(),
            UserPolicy::Image => "the image's own user".to_owned(),
            UserPolicy::Ids(user) if user.additional_gids.is_empty() => format!("uid {}, gid {}", user.uid, user.gid),
            UserPolicy::Ids(user) => {
                let groups = list(&user.additional_gids);
                format!("uid {}, gid {}, groups {groups}", user.uid, user.gid)
            }
        },
    );
    out.field(
        "capabilities",
        &match &container.capabilities {
            Rule::Any => "ANY".to_owned(),
            Rule::Only(capabilities) => or_none(&list(capabilities)),
        },
    );
    if container.privileged {
        out.field("privileged", "if the host asks for it: EVERY power within the guest");
    }
    if container.new_privileges {
        out.field("programs", "may GAIN privileges, by set-user-id files");
    }
    out.field(
        "memory lock",
        &match container.memlock {
            Memlock::Bytes(0) => "none of its own".to_owned(),
            Memlock::Bytes(bytes) => format!("up to {} bytes", units::grouped(bytes)),
            Memlock::Unlimited => "unlimited".to_owned(),
        },
    );
    if container.rlimits == Rlimits::Any {
        out.field("limits", "ANY that the host sets");
    }
    match container.seccomp {
        Seccomp::Agent => {}
        Seccomp::Host => out.field("system calls", "the agent's filter, and the host's on top of it"),
        Seccomp::Any => out.field(
            "system calls",
            "ANY that the host's filter lets pass; where the host has none, vsock to the host too",
        ),
    }
}

fn describe_files(out: &mut Out, container: &ContainerPolicy) {
    out.field(
        "root",
        match container.readonly_rootfs {
            Rule::Any => "read-only or writable, AS THE HOST LIKES",
            Rule::Only(true) => "read-only",
            Rule::Only(false) => "writable",
        },
    );
    if container.masked_paths == MaskedPaths::Any {
        out.field("hidden paths", "AS THE HOST LIKES");
    }
    for mount in &container.mounts {
        out.field(
            "model",
            &format!("{:?} at {}, read-only, locked memory", mount.model, mount.destination),
        );
    }
    for tmpfs in &container.tmpfs {
        out.field("memory", &format!("{} MiB at {}", tmpfs.size_mib, tmpfs.destination));
    }
    match &container.volumes {
        Rule::Any => out.field("volumes", "ANY files of the host's, ANYWHERE"),
        Rule::Only(volumes) => {
            for volume in volumes {
                let access = if volume.read_only { "read-only" } else { "writable" };
                let origin = match volume.kind {
                    VolumeKind::EmptyDir => "empty memory",
                    VolumeKind::TerminationLog => "the host reads it at the end",
                    _ => "files of the host's",
                };
                out.field(
                    "volume",
                    &format!("{} at {}, {access}: {origin}", volume.kind, volume.destination),
                );
            }
        }
    }
}

fn describe_model(out: &mut Out, model: &ModelPolicy) {
    out.line(&format!("\nModel {:?} version {}", model.name, model.version));
    out.field("artifact", &model.artifact.to_string());
    out.field("keys", &list(&model.keys));
    out.field(
        "size",
        &format!("{} bytes ({})", units::grouped(model.bytes), units::bytes(model.bytes)),
    );
    match model.provenance {
        Provenance::Sealed => {}
        Provenance::Digest(None) => out.field("digest", "of the plaintext, computed and recorded"),
        Provenance::Digest(Some(digest)) => {
            out.field("digest", &format!("{digest} of the plaintext, or it does not run"))
        }
    }
}

struct Out(String);

impl Out {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn field(&mut self, name: &str, value: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "  {name:<13} {value}");
    }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

fn or_none(text: &str) -> String {
    if text.is_empty() {
        "none".to_owned()
    } else {
        text.to_owned()
    }
}

fn words(texts: &[String]) -> String {
    texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(" ")
}

/// Plain words as they are, everything else in quotes.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("{text:?}")
    }
}
