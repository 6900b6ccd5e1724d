//! T1: one change in each field of what the host asks for, one denial for each.

mod bounds;
mod bytes;
mod calls;
mod denials;
mod entries;
mod exec;
mod freedom;
mod presence;
mod question;
mod volumes;

use super::*;
use crate::capability::Capability;
use crate::policy::tests::EXAMPLE;
use crate::volume::VolumeKind;

fn policy() -> Policy {
    Policy::parse(EXAMPLE).unwrap()
}

fn with(from: &str, to: &str) -> Policy {
    let text = EXAMPLE.replacen(from, to, 1);
    assert_ne!(text, EXAMPLE);
    Policy::parse(&text).unwrap()
}

/// The example with more lines in its container's table.
fn plus(lines: &str) -> Policy {
    with("name = \"server\"", &format!("name = \"server\"\n{lines}"))
}

/// The example with a table of what the pod may have.
fn pod(lines: &str) -> Policy {
    Policy::parse(&format!("{EXAMPLE}\n[pod]\n{lines}")).unwrap()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn admitted<'p>(policy: &'p Policy, change: impl FnOnce(&mut ContainerRequest)) -> Admission<'p> {
    let mut request = request();
    change(&mut request);
    check_container(policy, &request).unwrap()
}

/// What containerd asks for when `ctr run` starts the example's image.
fn request() -> ContainerRequest {
    ContainerRequest {
        images: vec![format!("localhost:5000/demo/llama-server@sha256:{}", "11".repeat(32))],
        process: ProcessRequest {
            args: strings(&["/usr/bin/llama-server", "-m", "/models/demo/model.gguf"]),
            env: strings(&["HOME=/tmp", "PATH=/usr/bin"]),
            cwd: "/".to_owned(),
            uid: 65534,
            gid: 65534,
            additional_gids: vec![65534],
            capabilities: strings(&["CAP_CHOWN", "CAP_KILL", "CAP_AUDIT_WRITE", "CAP_CHOWN"]),
            rlimits: vec![RequestedRlimit {
                kind: "RLIMIT_NOFILE".to_owned(),
                soft: 1024,
                hard: 1024,
            }],
            ..ProcessRequest::default()
        },
        mounts: DEFAULT_MOUNTS
            .iter()
            .map(|(destination, kind)| RequestedMount {
                destination: destination.to_string(),
                kind: kind.to_string(),
                ..RequestedMount::default()
            })
            .collect(),
        hostname: "node".to_owned(),
        ..ContainerRequest::default()
    }
}

fn denied(change: impl FnOnce(&mut ContainerRequest)) -> Denial {
    denied_by(&policy(), change)
}

fn denied_by(policy: &Policy, change: impl FnOnce(&mut ContainerRequest)) -> Denial {
    let mut request = request();
    change(&mut request);
    check_container(policy, &request).expect_err("denied")
}

fn name() -> String {
    "server".to_owned()
}

fn server() -> Subject {
    Subject::Container(name())
}

#[test]
fn t1_what_containerd_asks_for_is_allowed() {
    let policy = policy();
    assert_eq!(check_container(&policy, &request()).unwrap().policy.name, "server");
    let named = ContainerRequest {
        name: name(),
        ..request()
    };
    assert_eq!(check_container(&policy, &named).unwrap().policy.name, "server");
    let bare = ContainerRequest {
        images: vec![format!("sha256:{}", "11".repeat(32))],
        ..request()
    };
    assert!(check_container(&policy, &bare).is_ok());
    let several = ContainerRequest {
        images: vec!["junk".to_owned(), request().images[0].clone()],
        ..request()
    };
    assert!(check_container(&policy, &several).is_ok());
}

#[test]
fn t1_container_and_image() {
    assert_eq!(
        denied(|r| r.name = "other".to_owned()).to_string(),
        r#"policy denies container "other": it names no such container, allowed is "server""#
    );
    let other = format!("localhost:5000/demo/llama-server@sha256:{}", "12".repeat(32));
    assert_eq!(
        denied(|r| r.images = vec![other.clone()]),
        Denial::UnknownImage {
            image: format!("{other:?}"),
            allowed: format!("{:?}", request().images[0]),
        }
    );
    assert_eq!(denied(|r| r.images.clear()), Denial::NoImage);
}

#[test]
fn t1_arguments() {
    let changed = denied(|r| r.process.args[1] = "--x".to_owned());
    assert_eq!(
        changed.to_string(),
        r#"policy denies container "server": args[1] is "--x", allowed is "-m""#
    );
    assert!(matches!(
        denied(|r| r.process.args.push("-v".to_owned())),
        Denial::ExtraArgument { index: 3, .. }
    ));
    assert!(matches!(
        denied(|r| r.process.args.truncate(2)),
        Denial::MissingArgument { index: 2, .. }
    ));
    assert!(matches!(
        denied(|r| r.process.args.clear()),
        Denial::MissingArgument { index: 0, .. }
    ));
    assert!(matches!(
        denied(|r| r.process.args.swap(1, 2)),
        Denial::Argument { index: 1, .. }
    ));
}

#[test]
fn t1_environment() {
    let changed = denied(|r| r.process.env[0] = "HOME=/root".to_owned());
    assert_eq!(
        changed.to_string(),
        r#"policy denies container "server": variable "HOME" is "/root", allowed by env is "/tmp""#
    );
    assert!(matches!(
        denied(|r| r.process.env.push("LD_PRELOAD=/x".to_owned())),
        Denial::ExtraVariable { .. }
    ));
    assert!(matches!(
        denied(|r| r.process.env.push("HOME=/tmp".to_owned())),
        Denial::RepeatedVariable { .. }
    ));
    assert!(matches!(
        denied(|r| r.process.env.truncate(1)),
        Denial::MissingVariable { .. }
    ));
    assert!(matches!(
        denied(|r| r.process.env.clear()),
        Denial::MissingVariable { .. }
    ));
    let empty = with("\"HOME=/tmp\"", "\"HOME=\"");
    assert!(matches!(
        denied_by(&empty, |r| r.process.env[0] = "HOME".to_owned()),
        Denial::Variable { .. }
    ));
}

#[test]
fn t1_directory_and_user() {
    assert!(matches!(
        denied(|r| r.process.cwd = "/tmp".to_owned()),
        Denial::WorkingDirectory { .. }
    ));
    assert!(matches!(
        denied(|r| r.process.cwd.clear()),
        Denial::WorkingDirectory { .. }
    ));
    assert_eq!(
        denied(|r| r.process.uid = 0),
        Denial::User {
            subject: server(),
            field: "uid",
            given: 0,
            allowed: 65534
        }
    );
    assert_eq!(
        denied(|r| r.process.gid = 0),
        Denial::User {
            subject: server(),
            field: "gid",
            given: 0,
            allowed: 65534
        }
    );
    assert_eq!(
        denied(|r| r.process.additional_gids.push(0)),
        Denial::Groups {
            subject: server(),
            given: vec![0],
            allowed: vec![]
        }
    );
    let groups = with("additional-gids = []", "additional-gids = [10, 65534]");
    assert!(matches!(denied_by(&groups, |_| {}), Denial::Groups { .. }));
    admitted(&groups, |r| r.process.additional_gids = vec![65534, 10]);
}

#[test]
fn t1_mounts() {
    let mount = |destination: &str, kind: &str| RequestedMount {
        destination: destination.into(),
        kind: kind.into(),
        ..RequestedMount::default()
    };
    let host = denied(|r| r.mounts.push(mount("/host", "bind")));
    assert_eq!(
        host.to_string(),
        r#"policy denies mount "/host" of type "bind": it is a path of the host, which container "server" can never see; allowed is nothing"#
    );
    assert!(matches!(
        denied(|r| r.mounts.push(mount("/proc", "bind"))),
        Denial::HostPath { .. }
    ));
    assert!(matches!(
        denied(|r| r.mounts.push(mount("/proc/", "proc"))),
        Denial::Mount { .. }
    ));
    let model = denied(|r| r.mounts.push(mount("/models/demo", "bind")));
    assert!(
        matches!(model, Denial::HostPath { .. }),
        "models are mounted by the agent, never asked for"
    );
    let none = ContainerRequest {
        mounts: vec![],
        ..request()
    };
    assert!(check_container(&policy(), &none).is_ok());
}

#[test]
fn t1_capabilities_and_limits() {
    assert!(matches!(
        denied(|r| r.process.capabilities.push("CAP_SYS_ADMIN".to_owned())),
        Denial::Capability { .. }
    ));
    assert!(matches!(
        denied(|r| r.process.capabilities.push("CAP_NONSENSE".to_owned())),
        Denial::Capability { .. }
    ));
    let named = with("capabilities = []", "capabilities = [\"SYS_NICE\"]");
    admitted(&named, |r| r.process.capabilities = vec!["CAP_SYS_NICE".to_owned()]);
    let limit = |kind: &str, value: u64| RequestedRlimit {
        kind: kind.to_owned(),
        soft: value,
        hard: value,
    };
    assert!(matches!(
        denied(|r| r.process.rlimits.push(limit("RLIMIT_CORE", 1))),
        Denial::Rlimit { .. }
    ));
    assert!(matches!(
        denied(|r| r.process.rlimits[0].hard = 2048),
        Denial::Rlimit { .. }
    ));
    assert!(matches!(
        denied(|r| r.process.rlimits.push(limit("RLIMIT_MEMLOCK", 1))),
        Denial::Rlimit { .. }
    ));
    let locked = with("memlock-bytes = 0", "memlock-bytes = \"unlimited\"");
    admitted(&locked, |r| r.process.rlimits = vec![limit("RLIMIT_MEMLOCK", u64::MAX)]);
}

#[test]
fn t1_hostname_and_switches() {
    assert!(matches!(
        denied(|r| r.hostname = "a b".to_owned()),
        Denial::Hostname { .. }
    ));
    let exact = with("hostname = \"\"", "hostname = \"cell\"");
    assert!(matches!(denied_by(&exact, |_| {}), Denial::Hostname { .. }));
    assert!(
        check_container(
            &exact,
            &ContainerRequest {
                hostname: "cell".to_owned(),
                ..request()
            }
        )
        .is_ok()
    );
    assert_eq!(
        denied(|r| r.process.terminal = true),
        Denial::Terminal { subject: server() }
    );
    let readonly = ContainerRequest {
        readonly_rootfs: true,
        ..request()
    };
    assert!(check_container(&policy(), &readonly).is_ok());
    let writable = with("readonly-rootfs = true", "readonly-rootfs = false");
    let message = denied_by(&writable, |r| r.readonly_rootfs = true).to_string();
    assert!(
        message.starts_with(
            "policy denies container \"server\": readonly-rootfs is asked to be true, allowed is false: the policy makes \
             the root file system writable"
        ),
        "{message}"
    );
    assert!(
        admitted(&policy(), |r| r.readonly_rootfs = false).readonly_rootfs,
        "the policy's"
    );
    assert!(!admitted(&writable, |_| {}).readonly_rootfs);
}

#[test]
fn t1_extras() {
    let what = |denial: Denial| match denial {
        Denial::Extra { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(what(denied(|r| r.devices.push("/dev/kmsg".to_owned()))), "device");
    assert_eq!(what(denied(|r| r.devices.push("/dev/null".to_owned()))), "device");
    assert_eq!(what(denied(|r| r.hooks.push("/bin/sh".to_owned()))), "hook");
}

#[test]
fn messages_hold_no_control_characters() {
    for text in ["\u{1b}[31m", "a\nb", "\0"] {
        let message = denied(|r| r.process.args[0] = text.to_owned()).to_string();
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
    let long = denied(|r| r.process.args[0] = "x".repeat(100_000)).to_string();
    assert!(long.len() < 400, "{}", long.len());
}

#[test]
fn t1_powers_beyond_the_container() {
    assert_eq!(
        denied(|r| r.privileged = true),
        Denial::Privileged { subject: server() }
    );
    assert_eq!(denied(|r| r.shared_pid = true), Denial::SharedPid { subject: server() });
    assert_eq!(
        denied(|r| r.host_namespaces = strings(&["network", "pid"])).to_string(),
        r#"policy denies container "server": it asks for the host's "network" namespace, allowed is the pod's own"#
    );
    let name = denied(|r| r.process.user_name = "nobody".to_owned()).to_string();
    assert!(
        name.contains("user is \"nobody\", a name; allowed is uid 65534"),
        "{name}"
    );
    let sysctl = denied(|r| drop(r.sysctl.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned())));
    assert_eq!(
        sysctl.to_string(),
        r#"policy denies sysctl "net.ipv4.ip_forward": not named by [pod] sysctl, allowed is nothing"#
    );
}

#[test]
fn t1_what_runs_is_the_policys_whatever_is_asked_within_it() {
    let policy = policy();
    let admission = admitted(&policy, |r| {
        r.masked_paths = strings(&["/usr/bin"]);
        r.readonly_paths = vec![];
    });
    let process = &admission.process;
    assert_eq!(process.args, request().process.args);
    assert_eq!(process.env, ["PATH=/usr/bin", "HOME=/tmp"], "in the policy's order");
    assert_eq!(process.cwd, "/");
    assert!(matches!(&process.user, AdmittedUser::Ids(user) if user.uid == 65534));
    assert!(
        process.capabilities.is_empty(),
        "containerd's default set is not what the policy names"
    );
    let limits: Vec<_> = process
        .rlimits
        .iter()
        .map(|limit| (limit.kind.as_str(), limit.soft, limit.hard))
        .collect();
    assert_eq!(limits, [("RLIMIT_MEMLOCK", 0, 0), ("RLIMIT_NOFILE", 1024, 1024)]);
    assert!(process.no_new_privileges, "although the host has not asked for it");
    assert!(!process.terminal && admission.readonly_rootfs && admission.masked);
    assert!(admission.masked_paths.is_empty() && admission.readonly_paths.is_empty());
    assert!(!admission.privileged && !admission.shared_pid && !admission.host_seccomp && admission.agent_seccomp);
    assert!(admission.volumes.is_empty() && admission.devices.is_empty());
    assert_eq!((admission.hostname.as_str(), admission.image_offered), ("node", true));
}
