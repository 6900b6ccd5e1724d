//! Each denial names the field of the policy that decides, for the operator who reads it and for the owner who wrote the policy.

use super::*;
use crate::form::Form;
use crate::policy::{Port, Protocol};

/// What a denial's words must have in them: the policy's own key, or, for what no policy can allow, what it is about. Whoever adds a
/// denial has to say it here.
fn key(denial: &Denial) -> &'static str {
    match denial {
        Denial::UnknownContainer { .. } => "container",
        Denial::UnknownImage { .. } | Denial::NoImage => "image",
        Denial::TooMany { field, .. } | Denial::Form { field, .. } => field,
        Denial::Argument { .. } | Denial::ExtraArgument { .. } | Denial::MissingArgument { .. } => "args[",
        Denial::Command { .. } | Denial::ExecShut { .. } => "exec",
        Denial::Variable { .. } | Denial::MissingVariable { .. } | Denial::RepeatedVariable { .. } => " env",
        Denial::VariableForm { .. } | Denial::ExtraVariable { .. } => "env-allow",
        Denial::WorkingDirectory { .. } => "cwd",
        Denial::User { .. } | Denial::UserName { .. } => "user",
        Denial::Groups { .. } => "additional-gids",
        Denial::Mount { .. } | Denial::Volume { .. } | Denial::VolumeKind { .. } => " volume of ",
        Denial::MissingVolume { .. } => " volume",
        Denial::HostPath { .. } | Denial::Covers { .. } | Denial::MountTwice { .. } => "mount",
        Denial::File { .. } => "files",
        Denial::Capability { .. } | Denial::NoCapability { .. } => "capabilities",
        Denial::Privileged { .. } => "privileged",
        Denial::Rlimit { .. } => "rlimits",
        Denial::Hostname { .. } => "hostname",
        Denial::Terminal { .. } => "terminal",
        Denial::ReadonlyRootfs { .. } => "readonly-rootfs",
        Denial::Order { .. } => "after",
        Denial::Signal { .. } => "signals",
        Denial::Forward { .. } => "[pod] forward-ports",
        Denial::Shut { .. } | Denial::ClientShut { .. } => "presence",
        Denial::Call { .. } => "[pod] calls",
        Denial::Stats => "[pod] stats",
        Denial::Connect { .. } | Denial::Egress { .. } => "[network] egress",
        Denial::Client { .. } | Denial::Ingress { .. } => "[network] ingress",
        Denial::SharedPid { .. } => "share-process-namespace",
        Denial::HostNamespace { .. } => "namespace",
        Denial::Sysctl { .. } => "[pod] sysctl",
        Denial::SysctlValue { .. } => "sysctl",
        Denial::Extra { what, .. } => what,
    }
}

fn text() -> String {
    "x".to_owned()
}

/// One of each.
fn all() -> Vec<Denial> {
    let (subject, allowed, given, destination, kind) = (server, text, text, text, text);
    let port = Port {
        port: 22,
        protocol: Protocol::Tcp,
    };
    vec![
        Denial::UnknownContainer {
            name: text(),
            allowed: allowed(),
        },
        Denial::UnknownImage {
            image: text(),
            allowed: allowed(),
        },
        Denial::NoImage,
        Denial::TooMany {
            subject: subject(),
            field: "sysctl",
            found: 9,
            limit: 8,
        },
        Denial::Argument {
            subject: subject(),
            index: 1,
            given: given(),
            allowed: allowed(),
        },
        Denial::ExtraArgument {
            subject: subject(),
            index: 1,
            given: given(),
        },
        Denial::MissingArgument {
            subject: subject(),
            index: 1,
            allowed: allowed(),
        },
        Denial::Command {
            subject: subject(),
            given: given(),
            allowed: allowed(),
        },
        Denial::ExecShut {
            subject: subject(),
            missing: text(),
        },
        Denial::Variable {
            subject: subject(),
            name: text(),
            given: given(),
            allowed: allowed(),
        },
        Denial::VariableForm {
            subject: subject(),
            name: text(),
            given: given(),
            allowed: Form::Ip,
        },
        Denial::ExtraVariable {
            subject: subject(),
            name: text(),
            allowed: allowed(),
        },
        Denial::MissingVariable {
            subject: subject(),
            name: text(),
            allowed: allowed(),
        },
        Denial::RepeatedVariable {
            subject: subject(),
            name: text(),
        },
        Denial::Form {
            subject: subject(),
            field: "one of args",
            given: given(),
            allowed: "y",
        },
        Denial::WorkingDirectory {
            subject: subject(),
            given: given(),
            allowed: allowed(),
        },
        Denial::User {
            subject: subject(),
            field: "uid",
            given: 1,
            allowed: 2,
        },
        Denial::UserName {
            subject: subject(),
            given: given(),
            allowed: 2,
        },
        Denial::Groups {
            subject: subject(),
            given: vec![1],
            allowed: vec![],
        },
        Denial::Mount {
            subject: subject(),
            destination: destination(),
            kind: kind(),
            allowed: allowed(),
        },
        Denial::HostPath {
            subject: subject(),
            destination: destination(),
            kind: kind(),
            allowed: allowed(),
        },
        Denial::Volume {
            subject: subject(),
            destination: destination(),
            kind: "secret",
            allowed: allowed(),
        },
        Denial::MissingVolume {
            subject: subject(),
            destination: destination(),
            kind: "secret",
        },
        Denial::File {
            volume: text(),
            path: text(),
            given: given(),
            allowed: allowed(),
        },
        Denial::Covers {
            subject: subject(),
            destination: destination(),
            other: text(),
        },
        Denial::MountTwice {
            subject: subject(),
            destination: destination(),
        },
        Denial::VolumeKind {
            kind: "secret",
            allowed: allowed(),
        },
        Denial::Capability {
            subject: subject(),
            given: given(),
            allowed: allowed(),
        },
        Denial::NoCapability {
            subject: subject(),
            given: given(),
        },
        Denial::Privileged { subject: subject() },
        Denial::Rlimit {
            subject: subject(),
            kind: kind(),
            soft: 1,
            hard: 2,
            allowed: allowed(),
        },
        Denial::Hostname {
            subject: subject(),
            given: given(),
            allowed: allowed(),
        },
        Denial::Terminal { subject: subject() },
        Denial::ReadonlyRootfs { subject: subject() },
        Denial::Order {
            subject: subject(),
            other: text(),
            needed: "runs",
        },
        Denial::Signal {
            subject: subject(),
            given: given(),
            allowed: allowed(),
        },
        Denial::Forward {
            port: 22,
            allowed: allowed(),
        },
        Denial::Shut {
            port: 22,
            missing: text(),
        },
        Denial::Call {
            call: "pause",
            allowed: allowed(),
        },
        Denial::Stats,
        Denial::Connect {
            to: [10, 0, 0, 1].into(),
            protocol: Protocol::Tcp,
            port: 22,
            allowed: allowed(),
        },
        Denial::Client {
            port,
            allowed: allowed(),
        },
        Denial::ClientShut { port, missing: text() },
        Denial::Egress { packets: 8 },
        Denial::Ingress { packets: 8 },
        Denial::SharedPid { subject: subject() },
        Denial::HostNamespace {
            subject: subject(),
            given: given(),
        },
        Denial::Sysctl {
            name: text(),
            allowed: allowed(),
        },
        Denial::SysctlValue {
            name: text(),
            given: given(),
        },
        Denial::Extra {
            subject: subject(),
            what: "hook",
            given: given(),
            allowed: "none",
        },
    ]
}

#[test]
fn each_denial_names_the_field_that_decides() {
    let all = all();
    let kinds: std::collections::HashSet<_> = all.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), all.len());
    // As many as `key` has.
    assert_eq!(all.len(), 50);
    for denial in all {
        let words = denial.to_string();
        assert!(words.starts_with("policy denies "), "{words}");
        assert!(words.contains(key(&denial)), "{words}: {}", key(&denial));
    }
}
