//! From the validated policy to its serialised form.

use super::{
    ContainerPolicy, Destination, Kbs, MaskedPaths, Match, Memlock, Mirror, ModelMount, ModelPolicy, NetworkPolicy,
    Output, OutputPolicy, PodPolicy, Policy, Presence, Protocol, Registry, Rlimits, Rule, SealedKind, Seccomp, Signals,
    Stats, UserPolicy, VolumePolicy,
};
use crate::POLICY_VERSION;
use crate::choice::{ANY, Choice};
use crate::file::{
    ContainerFile, EgressFile, KbsFile, MaskedPathsFile, MatchFile, MirrorFile, ModelFile, MountFile, NetworkFile,
    OutputFile, PodFile, PolicyFile, PresenceFile, ProvenanceFile, RegistryFile, RlimitsFile, SeccompFile, StatsFile,
    StdioFile, StreamFile, TmpfsFile, UserFile, VolumeFile, VolumesFile,
};
use crate::provenance::Provenance;

pub(super) fn toml(policy: &Policy) -> String {
    // Serialising strings, integers below 2^63 and tables cannot fail; `from_file` bounds every integer.
    toml::to_string_pretty(&self::policy(policy)).unwrap_or_default()
}

pub(super) fn policy(policy: &Policy) -> PolicyFile {
    PolicyFile {
        version: POLICY_VERSION,
        name: policy.revision.as_ref().map(|(name, _)| name.clone()),
        revision: policy.revision.as_ref().map(|(_, revision)| *revision),
        kbs: policy.kbs.as_ref().map(kbs),
        pod: pod(&policy.pod),
        network: network(&policy.network),
        registry: policy.registries.iter().map(registry).collect(),
        container: policy.containers.iter().map(container).collect(),
        model: policy.models.iter().map(model).collect(),
        dataset: policy.datasets.iter().map(model).collect(),
        output: policy.output.as_ref().map(output),
    }
}

fn kbs(kbs: &Kbs) -> KbsFile {
    KbsFile {
        url: kbs.url.to_string(),
        ca: Some(kbs.ca.as_str().to_owned()),
        token_keys: kbs.token_keys.iter().map(ToString::to_string).collect(),
    }
}

fn pod(pod: &PodPolicy) -> PodFile {
    PodFile {
        sysctl: strings(&pod.sysctl),
        forward_ports: choice(&pod.forward_ports, |ports| ports.iter().copied().collect()),
        share_process_namespace: pod.share_process_namespace,
        calls: strings(&pod.calls),
        stats: match pod.stats {
            Stats::Deny => StatsFile::Deny,
            Stats::Coarse => StatsFile::Coarse,
            Stats::Exact => StatsFile::Exact,
        },
    }
}

fn network(network: &NetworkPolicy) -> NetworkFile {
    NetworkFile {
        egress: choice(&network.egress, |list| list.iter().map(destination).collect()),
        ingress: choice(&network.ingress, |ports| strings(ports)),
    }
}

fn destination(destination: &Destination) -> EgressFile {
    EgressFile {
        to: format!("{}/{}", destination.address, destination.prefix),
        protocol: destination.protocol.to_string(),
        ports: match destination.protocol {
            Protocol::Icmp => None,
            Protocol::Tcp | Protocol::Udp => Some(choice(&destination.ports, |ports| ports.iter().copied().collect())),
        },
    }
}

fn registry(registry: &Registry) -> RegistryFile {
    RegistryFile {
        name: registry.name.to_string(),
        endpoint: Some(registry.endpoint.to_string()),
        ca: registry.ca.as_ref().map(|ca| ca.as_str().to_owned()),
        mirror: registry.mirrors.iter().map(mirror).collect(),
    }
}

fn mirror(mirror: &Mirror) -> MirrorFile {
    MirrorFile {
        endpoint: mirror.endpoint.to_string(),
        ca: mirror.ca.as_ref().map(|ca| ca.as_str().to_owned()),
    }
}

fn container(container: &ContainerPolicy) -> ContainerFile {
    ContainerFile {
        name: container.name.clone(),
        matching: match container.matching {
            Match::Name => MatchFile::Name,
            Match::Image => MatchFile::Image,
        },
        image: container.image.to_string(),
        image_keys: strings(&container.image_keys),
        require_encrypted: Some(container.require_encrypted),
        instances: choice(&container.instances, |number| *number),
        presence: match container.presence {
            Presence::Running => PresenceFile::Running,
            Presence::Completed => PresenceFile::Completed,
            Presence::Optional => PresenceFile::Optional,
        },
        after: container.after.clone(),
        args: choice(&container.args, Clone::clone),
        env: container.env.clone(),
        env_allow: strings(&container.env_allow),
        cwd: match &container.cwd {
            Rule::Any => ANY.to_owned(),
            Rule::Only(cwd) => cwd.to_string(),
        },
        capabilities: choice(&container.capabilities, |list| strings(list)),
        privileged: container.privileged,
        new_privileges: container.new_privileges,
        exec: choice(&container.exec, Clone::clone),
        terminal: container.terminal,
        readonly_rootfs: choice(&container.readonly_rootfs, |read_only| *read_only),
        hostname: container.hostname.clone().unwrap_or_default(),
        stdio: Choice::Value(StdioFile {
            stdin: if container.stdio.stdin {
                StreamFile::Allow
            } else {
                StreamFile::Deny
            },
            stdout: stream(container.stdio.stdout),
            stderr: stream(container.stdio.stderr),
        }),
        memlock_bytes: match container.memlock {
            Memlock::Bytes(bytes) => Choice::Value(bytes),
            Memlock::Unlimited => Choice::Word("unlimited".to_owned()),
        },
        rlimits: match container.rlimits {
            Rlimits::Named => RlimitsFile::Named,
            Rlimits::Any => RlimitsFile::Any,
        },
        seccomp: match container.seccomp {
            Seccomp::Agent => SeccompFile::Agent,
            Seccomp::Host => SeccompFile::Host,
            Seccomp::Any => SeccompFile::Any,
        },
        masked_paths: match container.masked_paths {
            MaskedPaths::Agent => MaskedPathsFile::Agent,
            MaskedPaths::Any => MaskedPathsFile::Any,
        },
        signals: match &container.signals {
            Signals::Any => Choice::any(),
            Signals::Only(list) => Choice::Value(strings(list)),
        },
        user: user(&container.user),
        volumes: match container.volumes {
            Rule::Any => VolumesFile::Any,
            Rule::Only(_) => VolumesFile::Named,
        },
        mount: container.mounts.iter().map(mount).collect(),
        tmpfs: container
            .tmpfs
            .iter()
            .map(|tmpfs| TmpfsFile {
                destination: tmpfs.destination.to_string(),
                size_mib: tmpfs.size_mib,
            })
            .collect(),
        volume: container.volumes.only().into_iter().flatten().map(volume).collect(),
    }
}

fn mount(mount: &ModelMount) -> MountFile {
    let name = |kind| (mount.kind == kind).then(|| mount.model.clone());
    MountFile {
        destination: mount.destination.to_string(),
        model: name(SealedKind::Model),
        dataset: name(SealedKind::Dataset),
    }
}

fn output(output: &OutputPolicy) -> OutputFile {
    OutputFile {
        container: output.container.clone(),
        destination: output.destination.to_string(),
        name: output.name.clone(),
        version: output.version,
        repository: format!("{}/{}", output.registry, output.repository),
        key: output.key.to_string(),
        max_bytes: output.max_bytes,
    }
}

const fn stream(output: Output) -> StreamFile {
    match output {
        Output::Deny => StreamFile::Deny,
        Output::Redact => StreamFile::Redact,
        Output::Allow => StreamFile::Allow,
    }
}

fn user(user: &UserPolicy) -> Choice<UserFile> {
    match user {
        UserPolicy::Ids(ids) => Choice::Value(UserFile {
            uid: ids.uid,
            gid: ids.gid,
            additional_gids: ids.additional_gids.iter().copied().collect(),
        }),
        UserPolicy::Image => Choice::Word("image".to_owned()),
        UserPolicy::Any => Choice::any(),
    }
}

fn volume(volume: &VolumePolicy) -> VolumeFile {
    VolumeFile {
        destination: volume.destination.to_string(),
        kind: volume.kind.to_string(),
        read_only: Some(volume.read_only),
        files: volume
            .files
            .iter()
            .map(|(path, digest)| (path.clone(), digest.to_string()))
            .collect(),
    }
}

fn choice<T, F>(rule: &Rule<T>, written: impl FnOnce(&T) -> F) -> Choice<F> {
    match rule {
        Rule::Any => Choice::any(),
        Rule::Only(value) => Choice::Value(written(value)),
    }
}

fn strings<'a, T: ToString + 'a>(items: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    items.into_iter().map(ToString::to_string).collect()
}

fn model(model: &ModelPolicy) -> ModelFile {
    ModelFile {
        name: model.name.clone(),
        version: model.version,
        artifact: model.artifact.to_string(),
        keys: model.keys.iter().map(ToString::to_string).collect(),
        bytes: model.bytes,
        provenance: match model.provenance {
            Provenance::Sealed => ProvenanceFile::Sealed,
            Provenance::Digest(_) => ProvenanceFile::Digest,
        },
        digest: match model.provenance {
            Provenance::Digest(Some(digest)) => Some(digest.to_string()),
            _ => None,
        },
    }
}
