//! The pod as a whole: what it shares with the host, its volumes, its containers and their order.

use std::collections::BTreeMap;

use cella_policy::file::PresenceFile;

use super::container::{Container, Port, Surroundings};
use super::objects::{Context, Workload};
use super::refusal::PodError;
use super::volumes::{self, Volume};
use super::yaml::Node;
use super::{Accepted, Notes};

/// What a pod's YAML comes to.
#[derive(Debug, Default)]
pub(super) struct Pod {
    pub(super) containers: Vec<Container>,
    pub(super) sysctl: Vec<String>,
    pub(super) share_process_namespace: bool,
    /// What clients may connect to.
    pub(super) ports: Vec<Port>,
}

/// Reads the pod of a workload.
pub(super) fn read(
    workload: &Workload<'_>,
    context: &Context<'_>,
    accepted: &mut Accepted,
    notes: &mut Notes,
) -> Result<Pod, PodError> {
    let spec = workload.spec;
    refuse_the_hosts(spec)?;
    look_at_all(spec, notes)?;
    let volumes = volumes::read(spec, context, accepted)?;
    let security = spec.get("securityContext");
    let mut pod = Pod {
        sysctl: sysctls(security)?,
        share_process_namespace: truth(spec, "shareProcessNamespace")?,
        ..Pod::default()
    };
    let surroundings = Surroundings {
        workload,
        context,
        security,
        volumes: &volumes,
        has_token: has_token(spec, workload)?,
    };
    let mut before = Vec::new();
    for node in list(spec, "initContainers")? {
        let stays = match node.get("restartPolicy") {
            None => false,
            Some(policy) => match policy.text()? {
                "Always" => true,
                other => return Err(PodError::value(policy, "initContainers restartPolicy", other, "Always")),
            },
        };
        let mut container = Container::read(node, &surroundings, accepted, &mut pod.ports)?;
        container.presence = if stays {
            PresenceFile::Running
        } else {
            PresenceFile::Completed
        };
        container.after.clone_from(&before);
        // Each waits for the one before it, which has waited for the others.
        before = vec![container.name.clone()];
        pod.containers.push(container);
    }
    for node in list(spec, "containers")? {
        let mut container = Container::read(node, &surroundings, accepted, &mut pod.ports)?;
        container.after.clone_from(&before);
        pod.containers.push(container);
    }
    if pod.containers.is_empty() {
        return Err(PodError::missing(spec, "containers"));
    }
    unused(&volumes, &pod, notes);
    services(spec, &mut pod, context, notes)?;
    Ok(pod)
}

/// Namespaces of the host, and what is put into a pod that runs.
fn refuse_the_hosts(spec: &Node) -> Result<(), PodError> {
    for (field, why) in [
        (
            "hostNetwork",
            "the guest has a network of its own, and the node's is the host's",
        ),
        (
            "hostPID",
            "the host's processes are not in the guest, and its own are the host's to see",
        ),
        ("hostIPC", "the host's shared memory is the host's to read"),
    ] {
        if let Some(node) = spec.get(field)
            && node.truth()?
        {
            return Err(PodError::secret_for_nobody(node, field, why));
        }
    }
    if let Some(node) = spec.get("ephemeralContainers") {
        let why = "a container that is put into a running pod could read all that it holds";
        return Err(PodError::secret_for_nobody(node, "ephemeralContainers", why));
    }
    if let Some(node) = spec.get("hostAliases") {
        let why = "the guest writes its own /etc/hosts; ask for the addresses themselves";
        return Err(PodError::secret_for_nobody(node, "hostAliases", why));
    }
    Ok(())
}

/// Fields that change nothing about what a policy must say, and those that nobody here knows.
fn look_at_all(spec: &Node, notes: &mut Notes) -> Result<(), PodError> {
    for (name, node) in spec.entries()? {
        if name == "imagePullSecrets" {
            notes.add(format!(
                "line {}: imagePullSecrets are for the host; the guest pulls without credentials",
                node.line
            ));
        } else if !READ.contains(&name.as_str()) && !HARMLESS.contains(&name.as_str()) {
            notes.add(format!(
                "line {}: {name} is not known here and not looked at",
                node.line
            ));
        }
    }
    Ok(())
}

fn sysctls(security: Option<&Node>) -> Result<Vec<String>, PodError> {
    let Some(list) = security.and_then(|security| security.get("sysctls")) else {
        return Ok(Vec::new());
    };
    let name = |one: &Node| Ok(super::field(one, "name", "sysctls")?.text()?.to_owned());
    list.items()?.iter().map(name).collect()
}

/// Whether the kubelet mounts a service account's token, which it does unless it is told not to.
fn has_token(spec: &Node, _workload: &Workload<'_>) -> Result<bool, PodError> {
    Ok(spec
        .get("automountServiceAccountToken")
        .map(Node::truth)
        .transpose()?
        .unwrap_or(true))
}

/// Variables for services: those of the cluster itself always, those of the namespace unless they are turned off.
fn services(spec: &Node, pod: &mut Pod, context: &Context<'_>, notes: &mut Notes) -> Result<(), PodError> {
    let links = spec.get("enableServiceLinks");
    let linked = links.map(Node::truth).transpose()?.unwrap_or(true);
    let mut prefixes = vec!["KUBERNETES".to_owned()];
    if linked {
        prefixes.extend(context.services.iter().map(|name| super::env::service_prefix(name)));
        notes.add(
            "enableServiceLinks is not false: variables of Services that are not in this file are denied, and the pod with \
             them; set it to false, or say --service NAME for each"
                .to_owned(),
        );
    }
    for container in &mut pod.containers {
        for prefix in &prefixes {
            container.env_allow.push(format!("{prefix}_*=<service>"));
        }
    }
    Ok(())
}

fn unused(volumes: &BTreeMap<String, Volume>, pod: &Pod, notes: &mut Notes) {
    for name in volumes.keys() {
        if !pod.containers.iter().any(|container| container.mounts.contains(name)) {
            notes.add(format!("volume {name:?} is mounted nowhere"));
        }
    }
}

fn truth(spec: &Node, field: &str) -> Result<bool, PodError> {
    Ok(spec.get(field).map(Node::truth).transpose()?.unwrap_or(false))
}

pub(super) fn list<'y>(node: &'y Node, field: &str) -> Result<&'y [Node], PodError> {
    Ok(node.get(field).map(Node::items).transpose()?.unwrap_or_default())
}

/// Fields of a pod that this program reads.
const READ: [&str; 11] = [
    "containers",
    "initContainers",
    "volumes",
    "securityContext",
    "shareProcessNamespace",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "runtimeClassName",
];

/// Where, when and how often a pod runs: nothing of it reaches into the guest.
const HARMLESS: [&str; 27] = [
    "activeDeadlineSeconds",
    "affinity",
    "dnsConfig",
    "dnsPolicy",
    "hostUsers",
    "hostname",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "restartPolicy",
    "schedulerName",
    "schedulingGates",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "workloadRef",
];
