//! What CRI says about a pod, `runtime.v1.PodSandboxConfig`, made into the bundle that a sandbox container would have had.
//!
//! The message is containerd's and is decoded as far as it is used; the field numbers are those of the CRI API. A malformed
//! message is an error, never a default. No message at all is a pod that nobody says anything about, as `ctr sandboxes run`
//! makes it.

use std::collections::HashMap;
use std::path::PathBuf;

use containerd_shim::protos::protobuf::well_known_types::any::Any;
use prost::Message;

use crate::bundle::Bundle;
use crate::bundle::oci::{Namespace, Spec};
use crate::task::{Dns, TaskError};

/// The message's name.
const TYPE: &str = "runtime.v1.PodSandboxConfig";
/// Longest message, in bytes: what fits into one ttrpc frame.
const MAX_CONFIG: usize = 4 << 20;
/// `NamespaceMode` of CRI for the host's namespace.
const NODE: i32 = 2;

/// The part of `runtime.v1.PodSandboxConfig` that is used.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxConfig {
    /// Who the pod is.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<PodSandboxMetadata>,
    /// Its host name.
    #[prost(string, tag = "2")]
    pub hostname: String,
    /// Its name service.
    #[prost(message, optional, tag = "4")]
    pub dns_config: Option<DnsConfig>,
    /// Its annotations.
    #[prost(map = "string, string", tag = "7")]
    pub annotations: HashMap<String, String>,
    /// What only Linux has.
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandboxConfig>,
}

/// `PodSandboxMetadata`.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxMetadata {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Unique id.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// Kubernetes' namespace.
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// `DNSConfig`.
#[derive(Clone, PartialEq, Message)]
pub struct DnsConfig {
    /// Addresses.
    #[prost(string, repeated, tag = "1")]
    pub servers: Vec<String>,
    /// Search domains.
    #[prost(string, repeated, tag = "2")]
    pub searches: Vec<String>,
    /// Options.
    #[prost(string, repeated, tag = "3")]
    pub options: Vec<String>,
}

/// `LinuxPodSandboxConfig`.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxPodSandboxConfig {
    /// Namespaces and the like.
    #[prost(message, optional, tag = "2")]
    pub security_context: Option<LinuxSandboxSecurityContext>,
    /// Kernel parameters.
    #[prost(map = "string, string", tag = "3")]
    pub sysctls: HashMap<String, String>,
    /// What the runtime class costs.
    #[prost(message, optional, tag = "4")]
    pub overhead: Option<LinuxContainerResources>,
    /// What the containers may use together.
    #[prost(message, optional, tag = "5")]
    pub resources: Option<LinuxContainerResources>,
}

/// `LinuxSandboxSecurityContext`.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxSandboxSecurityContext {
    /// Whose namespaces.
    #[prost(message, optional, tag = "1")]
    pub namespace_options: Option<NamespaceOption>,
}

/// `NamespaceOption`.
#[derive(Clone, PartialEq, Message)]
pub struct NamespaceOption {
    /// 0 pod, 1 container, 2 node.
    #[prost(int32, tag = "1")]
    pub network: i32,
    /// Likewise.
    #[prost(int32, tag = "2")]
    pub pid: i32,
    /// Likewise.
    #[prost(int32, tag = "3")]
    pub ipc: i32,
}

/// `LinuxContainerResources`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct LinuxContainerResources {
    /// Microseconds.
    #[prost(int64, tag = "1")]
    pub cpu_period: i64,
    /// Microseconds.
    #[prost(int64, tag = "2")]
    pub cpu_quota: i64,
    /// Relative weight.
    #[prost(int64, tag = "3")]
    pub cpu_shares: i64,
    /// Bytes.
    #[prost(int64, tag = "4")]
    pub memory_limit: i64,
}

/// Decodes the options of a CreateSandbox request.
///
/// # Errors
/// Another message, one that is too long or does not decode.
pub fn decode(options: Option<&Any>) -> Result<PodSandboxConfig, TaskError> {
    const WHAT: &str = "the sandbox's configuration";
    let Some(any) = options.filter(|any| !any.type_url.is_empty()) else {
        return Ok(PodSandboxConfig::default());
    };
    if any.type_url.rsplit('/').next() != Some(TYPE) {
        return Err(TaskError::Type {
            what: WHAT,
            type_url: crate::untrusted::printable(&any.type_url, 128),
        });
    }
    if any.value.len() > MAX_CONFIG {
        return Err(TaskError::TooLong {
            what: WHAT,
            max: MAX_CONFIG,
        });
    }
    PodSandboxConfig::decode(any.value.as_slice()).map_err(|source| TaskError::SandboxConfig { source })
}

/// The pod's DNS settings.
pub fn dns(pod: &PodSandboxConfig) -> Dns {
    let config = pod.dns_config.clone().unwrap_or_default();
    Dns {
        servers: config.servers,
        search: config.searches,
        options: config.options,
    }
}

/// The bundle that a sandbox container would have had: annotations as CRI writes them, host name, parameters, namespaces.
pub fn bundle(
    dir: PathBuf,
    id: &str,
    netns: &str,
    pod: PodSandboxConfig,
    annotations: HashMap<String, String>,
) -> Bundle {
    let linux = pod.linux.unwrap_or_default();
    let metadata = pod.metadata.unwrap_or_default();
    let limits = linux.resources.unwrap_or_default();
    let mut spec = Spec {
        hostname: pod.hostname,
        ..Default::default()
    };
    spec.annotations.extend(pod.annotations);
    spec.annotations.extend(annotations);
    for (key, value) in [
        ("container-type", "sandbox".to_owned()),
        ("sandbox-id", id.to_owned()),
        ("sandbox-name", metadata.name),
        ("sandbox-namespace", metadata.namespace),
        ("sandbox-uid", metadata.uid),
        ("sandbox-cpu-period", limits.cpu_period.to_string()),
        ("sandbox-cpu-quota", limits.cpu_quota.to_string()),
        ("sandbox-cpu-shares", limits.cpu_shares.to_string()),
        ("sandbox-memory", limits.memory_limit.to_string()),
    ] {
        spec.annotations.insert(format!("io.kubernetes.cri.{key}"), value);
    }
    spec.linux.sysctl.extend(linux.sysctls);
    let asked = linux.security_context.and_then(|context| context.namespace_options);
    spec.linux.namespaces = namespaces(netns, &asked.unwrap_or_default());
    Bundle { dir, spec }
}

fn namespaces(netns: &str, asked: &NamespaceOption) -> Vec<Namespace> {
    let of_the_host = |kind: &str| match kind {
        "network" | "uts" => asked.network == NODE,
        "pid" => asked.pid == NODE,
        "ipc" => asked.ipc == NODE,
        _ => false,
    };
    let kinds = ["ipc", "mount", "network", "pid", "uts"].into_iter();
    kinds
        .filter(|kind| !of_the_host(kind))
        .map(|kind| Namespace {
            kind: kind.to_owned(),
            path: if kind == "network" { netns } else { "" }.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{NetworkNamespace, Role};
    use crate::container_spec::host_namespaces;

    fn any(type_url: &str, value: Vec<u8>) -> Any {
        Any {
            type_url: type_url.into(),
            value,
            ..Default::default()
        }
    }

    fn pod() -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "p".into(),
                uid: "u".into(),
                namespace: "n".into(),
            }),
            hostname: "h".into(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.0.0.1".into()],
                ..Default::default()
            }),
            annotations: [("io.cella.x".to_owned(), "y".to_owned())].into(),
            linux: Some(LinuxPodSandboxConfig {
                sysctls: [("net.x".to_owned(), "1".to_owned())].into(),
                resources: Some(LinuxContainerResources {
                    memory_limit: 7,
                    ..Default::default()
                }),
                ..Default::default()
            }),
        }
    }

    #[test]
    fn a_pod_becomes_the_bundle_of_a_sandbox() {
        let encoded = any(
            "types.googleapis.com/runtime.v1.PodSandboxConfig",
            pod().encode_to_vec(),
        );
        let decoded = decode(Some(&encoded)).unwrap();
        assert_eq!(dns(&decoded).servers, ["10.0.0.1"]);
        let bundle = bundle("/b".into(), "s", "/run/netns/x", decoded, HashMap::new());
        assert_eq!(bundle.role().unwrap(), Role::Sandbox);
        assert_eq!(bundle.annotation("io.cella.x"), Some("y"));
        assert_eq!(bundle.annotation("io.kubernetes.cri.sandbox-memory"), Some("7"));
        assert_eq!(
            (bundle.pod_name().name.as_str(), bundle.spec.hostname.as_str()),
            ("p", "h")
        );
        assert_eq!(bundle.spec.linux.sysctl.get("net.x").map(String::as_str), Some("1"));
        let NetworkNamespace::At(path) = bundle.network_namespace() else {
            panic!("no namespace")
        };
        assert_eq!(path.to_str(), Some("/run/netns/x"));
        assert!(host_namespaces(&bundle.spec).is_empty());
    }

    #[test]
    fn the_hosts_namespaces_are_left_out_as_cri_does() {
        let mut pod = pod();
        let options = NamespaceOption {
            network: NODE,
            pid: 1,
            ipc: NODE,
        };
        let linux = pod.linux.get_or_insert_default();
        linux.security_context = Some(LinuxSandboxSecurityContext {
            namespace_options: Some(options),
        });
        let bundle = bundle("/b".into(), "s", "", pod, HashMap::new());
        assert_eq!(host_namespaces(&bundle.spec), ["ipc", "network", "uts"]);
    }

    #[test]
    fn other_and_broken_messages_are_refused_and_none_is_an_empty_pod() {
        assert_eq!(decode(None).unwrap(), PodSandboxConfig::default());
        assert!(matches!(
            decode(Some(&any("x.Windows", vec![]))),
            Err(TaskError::Type { .. })
        ));
        let whole = pod().encode_to_vec();
        let broken = any(TYPE, whole[..whole.len() - 1].to_vec());
        assert!(matches!(decode(Some(&broken)), Err(TaskError::SandboxConfig { .. })));
        let long = any(TYPE, vec![0; MAX_CONFIG + 1]);
        assert!(matches!(decode(Some(&long)), Err(TaskError::TooLong { .. })));
    }
}
