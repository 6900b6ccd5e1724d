//! A policy in plain words, for whoever signs it off.

use std::fmt::Write as _;

use cella_policy::initdata;
use cella_policy::{ContainerPolicy, Memlock, ModelPolicy, Policy, Registry, Signals, Stdio};

use crate::units;

/// Everything that the document allows.
pub(super) fn describe(policy: &Policy, document: &[u8]) -> String {
    let mut out = Out(String::new());
    out.line("This guest may do the following, and nothing else.");
    out.field(
        "keys from",
        &format!("{}, by an authority of its own", policy.kbs().url),
    );
    for registry in policy.registries() {
        describe_registry(&mut out, registry);
    }
    for container in policy.containers() {
        describe_container(&mut out, container);
    }
    for model in policy.models() {
        describe_model(&mut out, model);
    }
    let digests = initdata::digests(document);
    out.line(&format!(
        "\ninitdata: {} bytes, sha256 {}",
        units::grouped(document.len() as u64),
        hex::encode(digests.sha256)
    ));
    out.0
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
}

fn describe_container(out: &mut Out, container: &ContainerPolicy) {
    out.line(&format!("\nContainer {:?}", container.name));
    out.field("image", &container.image.to_string());
    out.field(
        "layers",
        &match (container.require_encrypted, container.image_keys.as_slice()) {
            (_, []) => "plain only".to_owned(),
            (true, keys) => format!("all encrypted, keys {}", list(keys)),
            (false, keys) => format!("plain or encrypted, keys {}", list(keys)),
        },
    );
    out.field(
        "runs",
        &container
            .args
            .iter()
            .map(|arg| quoted(arg))
            .collect::<Vec<_>>()
            .join(" "),
    );
    out.field("in", container.cwd.as_str());
    out.field(
        "variables",
        &or_none(
            &container
                .env
                .iter()
                .map(|pair| quoted(pair))
                .collect::<Vec<_>>()
                .join(" "),
        ),
    );
    let user = &container.user;
    let groups = if user.additional_gids.is_empty() {
        String::new()
    } else {
        format!(", groups {}", list(&user.additional_gids))
    };
    out.field("as", &format!("uid {}, gid {}{groups}", user.uid, user.gid));
    out.field("capabilities", &or_none(&list(&container.capabilities)));
    out.field(
        "root",
        if container.readonly_rootfs {
            "read-only"
        } else {
            "writable"
        },
    );
    for mount in &container.mounts {
        out.field(
            "model",
            &format!("{:?} at {}, read-only, locked memory", mount.model, mount.destination),
        );
    }
    for tmpfs in &container.tmpfs {
        out.field("memory", &format!("{} MiB at {}", tmpfs.size_mib, tmpfs.destination));
    }
    out.field(
        "memory lock",
        &match container.memlock {
            Memlock::Bytes(0) => "none of its own".to_owned(),
            Memlock::Bytes(bytes) => format!("up to {} bytes", units::grouped(bytes)),
            Memlock::Unlimited => "unlimited".to_owned(),
        },
    );
    out.field(
        "host name",
        container.hostname.as_deref().unwrap_or("as the host likes"),
    );
    out.field(
        "host sees",
        match container.stdio {
            Stdio::Allow => "stdout and stderr, and may write to stdin",
            Stdio::Deny => "no output, and cannot write to stdin",
        },
    );
    if container.terminal {
        out.field("terminal", "the host may ask for one");
    }
    out.field(
        "host signals",
        &match &container.signals {
            Signals::Any => "any".to_owned(),
            Signals::Only(signals) => format!("{} and SIGKILL", or_none(&list(signals))),
        },
    );
}

fn describe_model(out: &mut Out, model: &ModelPolicy) {
    out.line(&format!("\nModel {:?} version {}", model.name, model.version));
    out.field("artifact", &model.artifact.to_string());
    out.field("keys", &list(&model.keys));
    out.field(
        "size",
        &format!("{} bytes ({})", units::grouped(model.bytes), units::bytes(model.bytes)),
    );
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

/// Plain words as they are, everything else in quotes.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("{text:?}")
    }
}
