//! One container of a pod.

use std::collections::BTreeMap;

use cella_policy::file::PresenceFile;

use super::env::{Environment, Known};
use super::objects::{Context, Workload};
use super::pod::list;
use super::refusal::PodError;
use super::security::{self, Security};
use super::volumes::Volume;
use super::yaml::Node;
use super::{Accepted, field, probes};

/// What a container's YAML comes to, as far as it can be said without its image.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) image: String,
    pub(super) presence: PresenceFile,
    pub(super) after: Vec<String>,
    /// In place of the image's entry point, and of its arguments.
    pub(super) command: Option<Vec<String>>,
    pub(super) args: Option<Vec<String>>,
    pub(super) cwd: Option<String>,
    pub(super) env: Vec<String>,
    pub(super) env_allow: Vec<String>,
    pub(super) terminal: bool,
    pub(super) exec: Vec<Vec<String>>,
    pub(super) stop_signal: Option<String>,
    pub(super) security: Security,
    pub(super) volumes: Vec<Mounted>,
    /// Names of the pod's volumes that it mounts.
    pub(super) mounts: Vec<String>,
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) destination: String,
    pub(super) kind: &'static str,
    pub(super) read_only: bool,
    pub(super) files: Option<Vec<(String, String)>>,
}

/// What clients may connect to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) number: u16,
    /// `tcp`, `udp`.
    pub(super) protocol: &'static str,
}

/// What containers of a pod have in common.
pub(super) struct Surroundings<'p> {
    pub(super) workload: &'p Workload<'p>,
    pub(super) context: &'p Context<'p>,
    pub(super) security: Option<&'p Node>,
    pub(super) volumes: &'p BTreeMap<String, Volume>,
    /// The kubelet mounts a service account's token.
    pub(super) has_token: bool,
}

impl Container {
    pub(super) fn read(
        node: &Node,
        around: &Surroundings<'_>,
        accepted: &mut Accepted,
        ports: &mut Vec<Port>,
    ) -> Result<Self, PodError> {
        let name = field(node, "name", "containers")?.text()?.to_owned();
        let place = format!("container {name:?}");
        let environment = Environment::read(node, &place, around.workload, around.context, accepted)?;
        let (env, mut env_allow) = environment.split();
        // containerd's own, for every container of a pod.
        if !env.iter().any(|pair| pair.starts_with("HOSTNAME=")) {
            env_allow.push("HOSTNAME=<host-name>".to_owned());
        }
        let line = |key| command_line(node, key, &place, &environment);
        let named = ports_of(node, &place, ports)?;
        let (volumes, mounts) = mounted(node, &place, around)?;
        if let Some(devices) = node.get("volumeDevices") {
            let why = "a block device is the host's to read and change";
            return Err(PodError::secret_for_nobody(
                devices,
                format!("{place} volumeDevices"),
                why,
            ));
        }
        let mut exec = Vec::new();
        probes::read(node, &place, &named, &mut exec, ports)?;
        Ok(Self {
            line: node.line,
            image: field(node, "image", &place)?.text()?.to_owned(),
            presence: PresenceFile::Running,
            after: Vec::new(),
            command: line("command")?,
            args: line("args")?,
            cwd: node.get("workingDir").map(Node::text).transpose()?.map(str::to_owned),
            env,
            env_allow,
            terminal: node.get("tty").map(Node::truth).transpose()?.unwrap_or(false),
            exec,
            stop_signal: node
                .at(&["lifecycle", "stopSignal"])
                .map(Node::text)
                .transpose()?
                .map(str::to_owned),
            security: security::read(node, around.security, &place)?,
            volumes,
            mounts,
            name,
        })
    }
}

/// `command` or `args`, variables expanded. What only the cluster knows cannot be in a command line that is pinned.
fn command_line(
    node: &Node,
    key: &'static str,
    place: &str,
    environment: &Environment,
) -> Result<Option<Vec<String>>, PodError> {
    let Some(list) = node.get(key) else {
        return Ok(None);
    };
    let mut line = Vec::new();
    for (index, item) in list.items()?.iter().enumerate() {
        match environment.expand(item.text()?) {
            Known::Exactly(text) => line.push(text),
            Known::Form(_) => {
                let why = "it refers to a variable whose value the cluster chooses; let the program read the variable";
                return Err(PodError::secret_for_nobody(
                    item,
                    format!("{place} {key}[{index}]"),
                    why,
                ));
            }
        }
    }
    Ok((!line.is_empty()).then_some(line))
}

/// The declared ports, by name for the probes.
fn ports_of(node: &Node, place: &str, ports: &mut Vec<Port>) -> Result<BTreeMap<String, u16>, PodError> {
    let mut named = BTreeMap::new();
    for port in list(node, "ports")? {
        let number = port_number(field(port, "containerPort", &format!("{place} ports"))?, place)?;
        let protocol = match port.get("protocol").map(Node::text).transpose()? {
            None | Some("TCP") => "tcp",
            Some("UDP") => "udp",
            Some(other) => {
                return Err(PodError::value(
                    port,
                    format!("{place} ports protocol"),
                    other,
                    "TCP or UDP",
                ));
            }
        };
        if let Some(name) = port.get("name") {
            named.insert(name.text()?.to_owned(), number);
        }
        add_port(ports, number, protocol);
    }
    Ok(named)
}

pub(super) fn add_port(ports: &mut Vec<Port>, number: u16, protocol: &'static str) {
    let port = Port { number, protocol };
    if !ports.contains(&port) {
        ports.push(port);
    }
}

pub(super) fn port_number(node: &Node, place: &str) -> Result<u16, PodError> {
    let number = u16::try_from(node.number()?).ok().filter(|number| *number > 0);
    number.ok_or_else(|| PodError::value(node, format!("{place} port"), node.word().unwrap_or(""), "1 to 65535"))
}

fn mounted(node: &Node, place: &str, around: &Surroundings<'_>) -> Result<(Vec<Mounted>, Vec<String>), PodError> {
    let (mut volumes, mut names) = (Vec::<Mounted>::new(), Vec::new());
    for mount in list(node, "volumeMounts")? {
        let at = format!("{place} volumeMounts");
        let name = field(mount, "name", &at)?;
        let text = name.text()?;
        let volume = around
            .volumes
            .get(text)
            .ok_or_else(|| PodError::value(name, format!("{at} name"), text, "a volume of the pod"))?;
        if let Some(propagation) = mount.get("mountPropagation") {
            let text = propagation.text()?;
            if text != "None" {
                return Err(PodError::secret_for_nobody(
                    propagation,
                    format!("{at} mountPropagation {text}"),
                    "mounts would pass between the host and the container",
                ));
            }
        }
        // A part of a volume is a volume of its own in the guest: one file without a path, where that is what it is.
        let part = |path: &str| {
            let files = volume.files.as_ref()?;
            let (_, content) = files.iter().find(|(name, _)| name == path)?;
            Some(vec![(String::new(), content.clone())])
        };
        let files = match (mount.get("subPath"), mount.get("subPathExpr")) {
            (None, None) => volume.files.clone(),
            (Some(path), _) => part(path.text()?),
            (None, Some(_)) => None,
        };
        if let (None, Some(_), Some(node)) = (&files, &volume.files, mount.get("subPath").or(mount.get("subPathExpr")))
        {
            let given = node.word().unwrap_or("").to_owned();
            return Err(PodError::value(
                node,
                format!("{at} subPath"),
                &given,
                "a file of the ConfigMap",
            ));
        }
        let path = field(mount, "mountPath", &at)?.text()?;
        volumes.push(Mounted {
            destination: normal(path),
            kind: volume.kind,
            read_only: volume.kind != "empty-dir"
                || mount.get("readOnly").map(Node::truth).transpose()?.unwrap_or(false),
            files,
        });
        names.push(text.to_owned());
    }
    if around.has_token && !volumes.iter().any(|volume| volume.destination == TOKEN) {
        volumes.push(Mounted {
            destination: TOKEN.to_owned(),
            kind: "projected",
            read_only: true,
            files: None,
        });
    }
    if let Some(path) = node.get("terminationMessagePath").map(Node::text).transpose()?
        && path != TERMINATION_LOG
    {
        volumes.push(Mounted {
            destination: normal(path),
            kind: "termination-log",
            read_only: false,
            files: None,
        });
    }
    Ok((volumes, names))
}

/// Without a slash at its end, as containerd has it.
fn normal(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        path => path.to_owned(),
    }
}

const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TERMINATION_LOG: &str = "/dev/termination-log";
