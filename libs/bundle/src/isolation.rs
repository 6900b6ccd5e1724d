//! What a container asks to share with others: with its pod, which has one VM, or with the host, which it cannot.
//!
//! containerd names the pod's namespaces by a process of the sandbox, `/proc/<pid>/ns/ipc`, and that process is QEMU: the path
//! itself says nothing. Whether a namespace is the pod's or the host's is told by the sandbox's own specification.

use crate::oci::Spec;

/// Namespaces that a container has of its own or of its pod; those of type cgroup, time and user are the agent's business.
const NAMESPACES: [&str; 5] = ["ipc", "mount", "network", "pid", "uts"];
/// Capabilities by which a container that may do everything is known.
const EVERYTHING: [&str; 5] = [
    "CAP_SYS_ADMIN",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_NET_ADMIN",
    "CAP_MKNOD",
];

/// Whom a container shares its VM with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// Nobody.
    None,
    /// The other containers of its pod.
    Pod {
        /// Namespaces of the host that the pod's sandbox was given.
        of_the_host: Vec<String>,
    },
}

/// What comes of a specification's namespaces.
#[derive(Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// It wants the pod's process namespace.
    pub shared_pid: bool,
    /// Types of namespaces of the host that it wants.
    pub of_the_host: Vec<String>,
}

/// The host's namespaces that a sandbox was given: those that its specification does not name.
pub fn host_namespaces(sandbox: &Spec) -> Vec<String> {
    let missing = NAMESPACES.into_iter().filter(|kind| path(sandbox, kind).is_none());
    missing.map(str::to_owned).collect()
}

/// Whose namespaces the container asks for.
pub fn namespaces(spec: &Spec, neighbours: &Neighbours) -> Namespaces {
    let of_the_host = NAMESPACES
        .into_iter()
        .filter(|kind| match (path(spec, kind), neighbours) {
            (None, _) => true,
            // A new one.
            (Some(""), _) => false,
            // Which network it is, is looked at when the VM is launched.
            (Some(_), Neighbours::None) => *kind != "network",
            (Some(_), Neighbours::Pod { of_the_host }) => {
                *kind == "mount" || of_the_host.iter().any(|host| host == kind)
            }
        });
    let of_the_host: Vec<String> = of_the_host.map(str::to_owned).collect();
    let joins = path(spec, "pid").is_some_and(|path| !path.is_empty());
    Namespaces {
        shared_pid: joins && !of_the_host.iter().any(|kind| kind == "pid"),
        of_the_host,
    }
}

/// Whether the container is what CRI calls privileged: OCI has no word for it, but its parts are there.
pub fn privileged(spec: &Spec) -> bool {
    let bounding = &spec.process.capabilities.bounding;
    EVERYTHING.iter().all(|name| bounding.iter().any(|has| has == name))
        && spec.linux.masked_paths.is_empty()
        && spec.linux.readonly_paths.is_empty()
}

/// The path of a namespace, empty for a new one; none where the specification does not name the type.
fn path<'a>(spec: &'a Spec, kind: &str) -> Option<&'a str> {
    let mut namespaces = spec.linux.namespaces.iter();
    let found = namespaces.find(|namespace| namespace.kind == kind)?;
    Some(&found.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaces: &str) -> Spec {
        serde_json::from_str(&format!("{{\"linux\": {{\"namespaces\": {namespaces}}}}}")).unwrap()
    }

    const OWN: &str = r#"[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"network"}]"#;
    const IN_POD: &str = r#"[{"type":"pid"},{"type":"ipc","path":"/proc/7/ns/ipc"},{"type":"uts","path":"/proc/7/ns/uts"},
        {"type":"mount"},{"type":"network","path":"/proc/7/ns/net"}]"#;
    const SHARED_PID: &str = r#"[{"type":"pid","path":"/proc/7/ns/pid"},{"type":"ipc","path":"/proc/7/ns/ipc"},
        {"type":"uts","path":"/proc/7/ns/uts"},{"type":"mount"},{"type":"network","path":"/proc/7/ns/net"}]"#;

    fn in_pod(of_the_host: &[&str]) -> Neighbours {
        Neighbours::Pod {
            of_the_host: of_the_host.iter().map(|kind| (*kind).to_owned()).collect(),
        }
    }

    #[test]
    fn a_container_of_its_own_shares_nothing() {
        let expected = Namespaces {
            shared_pid: false,
            of_the_host: vec![],
        };
        assert_eq!(namespaces(&spec(OWN), &Neighbours::None), expected);
        assert_eq!(namespaces(&spec(IN_POD), &in_pod(&[])), expected);
    }

    #[test]
    fn a_path_is_the_pods_or_the_hosts_as_the_sandbox_has_it() {
        assert!(namespaces(&spec(SHARED_PID), &in_pod(&[])).shared_pid);
        let sandbox =
            spec(r#"[{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"network","path":"/run/netns/x"}]"#);
        let of_the_host = host_namespaces(&sandbox);
        assert_eq!(of_the_host, ["pid"]);
        let found = namespaces(&spec(SHARED_PID), &Neighbours::Pod { of_the_host });
        assert_eq!((found.shared_pid, found.of_the_host), (false, vec!["pid".to_owned()]));
    }

    #[test]
    fn what_is_not_named_is_the_hosts() {
        let found = namespaces(&spec("[{\"type\":\"mount\"}]"), &Neighbours::None);
        assert_eq!(found.of_the_host, ["ipc", "network", "pid", "uts"]);
    }

    #[test]
    fn a_lone_container_can_join_nothing_but_a_network() {
        let found = namespaces(&spec(SHARED_PID), &Neighbours::None);
        assert_eq!(found.of_the_host, ["ipc", "pid", "uts"]);
        assert!(!found.shared_pid);
    }

    #[test]
    fn privileged_is_everything_and_nothing_hidden() {
        let all = EVERYTHING.map(|name| format!("\"{name}\"")).join(",");
        let text = |masked: &str| {
            format!(
                "{{\"process\":{{\"capabilities\":{{\"bounding\":[{all}]}}}},\"linux\":{{\"maskedPaths\":{masked}}}}}"
            )
        };
        let parse = |text: &str| serde_json::from_str::<Spec>(text).unwrap();
        assert!(privileged(&parse(&text("[]"))));
        assert!(!privileged(&parse(&text("[\"/proc/kcore\"]"))));
        assert!(!privileged(&parse("{}")));
    }
}
