//! `cellactl policy from-pod`: the policy of a pod, from the YAML that Kubernetes gets and from the configurations of its images.
//!
//! What the YAML says is pinned: images by digest, command lines, variables, users, capabilities, volumes, ports, probes,
//! the order of containers. What only the cluster knows is let through in the form that it must have. What the host could
//! read or change is refused by its line and field, unless it is the author's to accept (`--accept`).
//!
//! ```text
//! YAML ─▶ yaml ─▶ objects ─▶ pod, container, … ─▶ workload ─▶ resolve (registry, image configurations) ─▶ policy
//! ```

mod container;
mod env;
mod objects;
mod pod;
mod probes;
mod refusal;
mod security;
#[cfg(test)]
mod tests;
mod volumes;
mod yaml;

use std::collections::BTreeSet;
use std::path::PathBuf;

use cella_policy::file::{Choice, VolumeFile};

pub(crate) use refusal::PodError;

use self::container::Container;
use self::pod::Pod;
use self::yaml::Node;
use super::workload::{ContainerWork, KubernetesWork, WorkloadFile};

/// `cellactl policy from-pod`.
#[derive(Debug, clap::Args)]
pub(crate) struct FromPodArgs {
    /// The YAML: a Pod, or a Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob. ConfigMaps and Services in the same
    /// file are used.
    pub(super) yaml: PathBuf,
    /// A workload file that says what the YAML cannot: kbs, registry, model, pod, network; of its containers, by name, the
    /// mounts of models, tmpfs, stdio, keys and what else the YAML has no word for.
    #[arg(long, value_name = "FILE")]
    pub(super) with: Option<PathBuf>,
    /// Which workload, where the file has several: NAME or KIND/NAME.
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Take upon yourself what is the host's to choose: volume/NAME or env/NAME, as the refusal says. Repeat for more.
    #[arg(long, value_name = "WHAT")]
    pub(super) accept: Vec<String>,
    /// A Service of the namespace whose variables the pod gets (enableServiceLinks). Repeat for more.
    #[arg(long, value_name = "NAME")]
    pub(super) service: Vec<String>,
    #[command(flatten)]
    pub(super) out: super::OutArgs,
}

/// What the author has taken upon themselves, and whether it was needed.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    names: BTreeSet<String>,
    used: BTreeSet<String>,
}

impl Accepted {
    fn new(names: &[String]) -> Self {
        Self {
            names: names.iter().cloned().collect(),
            used: BTreeSet::new(),
        }
    }

    fn takes(&mut self, name: &str) -> bool {
        let accepted = self.names.contains(name);
        if accepted {
            self.used.insert(name.to_owned());
        }
        accepted
    }

    fn check(&self) -> Result<(), PodError> {
        match self.names.difference(&self.used).next() {
            Some(name) => Err(PodError::NothingToAccept { name: name.clone() }),
            None => Ok(()),
        }
    }
}

/// What the author should know and need not do anything about.
#[derive(Debug, Default)]
pub(super) struct Notes(pub(super) Vec<String>);

impl Notes {
    fn add(&mut self, note: String) {
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }
}

/// The workload that the YAML comes to, on top of `base`, and notes for its author.
pub(super) fn workload(
    yaml: &str,
    base: WorkloadFile,
    args: &FromPodArgs,
) -> Result<(WorkloadFile, Vec<String>), PodError> {
    let documents = yaml::parse(yaml)?;
    let (found, mut context) = objects::find(&documents, args.name.as_deref())?;
    context.services.extend(args.service.iter().cloned());
    let (mut accepted, mut notes) = (Accepted::new(&args.accept), Notes::default());
    for (kind, name, line) in &context.ignored {
        notes.add(format!(
            "line {line}: {kind} {name:?} says nothing about the pod and is not looked at"
        ));
    }
    let pod = pod::read(&found, &context, &mut accepted, &mut notes)?;
    accepted.check()?;
    merged(base, pod).map(|workload| (workload, notes.0))
}

/// The pod over the base file, whose containers add to the pod's.
fn merged(mut base: WorkloadFile, pod: Pod) -> Result<WorkloadFile, PodError> {
    let mut extras = std::mem::take(&mut base.container);
    for container in pod.containers {
        let extra = extras.iter().position(|extra| extra.name == container.name);
        let extra = extra.map(|index| extras.swap_remove(index));
        base.container.push(one(container, extra)?);
    }
    if let Some(stray) = extras.pop() {
        return Err(PodError::Stray { name: stray.name });
    }
    base.pod.sysctl.extend(pod.sysctl);
    base.pod.share_process_namespace |= pod.share_process_namespace;
    if let Choice::Value(ports) = &mut base.network.ingress {
        for port in pod.ports {
            let text = format!("{}/{}", port.number, port.protocol);
            if !ports.contains(&text) {
                ports.push(text);
            }
        }
    }
    Ok(base)
}

fn one(container: Container, extra: Option<ContainerWork>) -> Result<ContainerWork, PodError> {
    let mut work = extra.unwrap_or_else(|| ContainerWork::named(&container.name));
    for (key, is_said) in [
        ("image", !work.image.is_empty()),
        ("args", work.args.is_some()),
        ("cwd", work.cwd.is_some()),
        ("user", work.user.is_some()),
    ] {
        if is_said {
            return Err(PodError::Said {
                name: container.name,
                key,
            });
        }
    }
    work.image = normal_image(&container.image);
    work.presence = container.presence;
    work.after = container.after;
    work.cwd = container.cwd;
    work.env.extend(container.env);
    work.env_allow.extend(container.env_allow);
    work.terminal |= container.terminal;
    if let Choice::Value(exec) = &mut work.exec {
        exec.extend(container.exec);
    }
    work.readonly_rootfs = Choice::Value(container.security.readonly_rootfs);
    work.new_privileges |= container.security.new_privileges;
    if container.security.host_seccomp {
        work.seccomp = cella_policy::file::SeccompFile::Host;
    }
    for volume in container.volumes {
        work.volume.push(VolumeFile {
            destination: volume.destination,
            kind: volume.kind.to_owned(),
            read_only: Some(volume.read_only),
            files: volume.files.map(pinned).unwrap_or_default(),
        });
    }
    work.kubernetes = Some(KubernetesWork {
        line: container.line,
        command: container.command,
        args: container.args,
        stop_signal: container.stop_signal,
        user: container.security.user,
        group: container.security.group,
        groups: container.security.groups,
        not_root: container.security.not_root,
        add: container.security.add,
        drop: container.security.drop,
    });
    Ok(work)
}

/// Paths and digests of files.
fn pinned(files: Vec<(String, String)>) -> std::collections::BTreeMap<String, String> {
    let digest = |content: String| cella_oci::Digest::of(content.as_bytes()).to_string();
    files
        .into_iter()
        .map(|(path, content)| (path, digest(content)))
        .collect()
}

/// A reference with its registry, as container engines understand short ones.
fn normal_image(text: &str) -> String {
    let (first, rest) = text.split_once('/').unwrap_or(("", text));
    let is_host = first == "localhost" || first.contains(['.', ':']);
    let name = match (is_host, first) {
        (true, _) => text.to_owned(),
        (false, "") => format!("docker.io/library/{rest}"),
        (false, _) => format!("docker.io/{text}"),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        name
    } else {
        format!("{name}:latest")
    }
}

/// A field that must be there.
fn field<'y>(node: &'y Node, name: &str, place: &str) -> Result<&'y Node, PodError> {
    node.get(name)
        .ok_or_else(|| PodError::missing(node, format!("{place}: {name}")))
}
