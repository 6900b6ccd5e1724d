//! From the validated policy to its serialised form.

use super::{ContainerPolicy, Kbs, Memlock, ModelPolicy, Policy, Registry, Signals, Stdio};
use crate::POLICY_VERSION;
use crate::file::{
    ContainerFile, KbsFile, MemlockFile, ModelFile, MountFile, PolicyFile, RegistryFile, SignalsFile, StdioFile,
    TmpfsFile, UserFile,
};

pub(super) fn toml(policy: &Policy) -> String {
    // Serialising strings, integers below 2^63 and tables cannot fail; `from_file` bounds every integer.
    toml::to_string_pretty(&self::policy(policy)).unwrap_or_default()
}

pub(super) fn policy(policy: &Policy) -> PolicyFile {
    PolicyFile {
        version: POLICY_VERSION,
        kbs: kbs(&policy.kbs),
        registry: policy.registries.iter().map(registry).collect(),
        container: policy.containers.iter().map(container).collect(),
        model: policy.models.iter().map(model).collect(),
    }
}

fn kbs(kbs: &Kbs) -> KbsFile {
    KbsFile {
        url: kbs.url.to_string(),
        ca: Some(kbs.ca.as_str().to_owned()),
    }
}

fn registry(registry: &Registry) -> RegistryFile {
    RegistryFile {
        name: registry.name.to_string(),
        endpoint: Some(registry.endpoint.to_string()),
        ca: registry.ca.as_ref().map(|ca| ca.as_str().to_owned()),
    }
}

fn container(container: &ContainerPolicy) -> ContainerFile {
    ContainerFile {
        name: container.name.clone(),
        image: container.image.to_string(),
        image_keys: container.image_keys.iter().map(ToString::to_string).collect(),
        require_encrypted: Some(container.require_encrypted),
        args: container.args.clone(),
        env: container.env.clone(),
        cwd: container.cwd.to_string(),
        capabilities: container.capabilities.iter().map(ToString::to_string).collect(),
        terminal: container.terminal,
        readonly_rootfs: container.readonly_rootfs,
        hostname: container.hostname.clone().unwrap_or_default(),
        stdio: match container.stdio {
            Stdio::Allow => StdioFile::Allow,
            Stdio::Deny => StdioFile::Deny,
        },
        memlock_bytes: match container.memlock {
            Memlock::Bytes(bytes) => MemlockFile::Bytes(bytes),
            Memlock::Unlimited => MemlockFile::Word("unlimited".to_owned()),
        },
        signals: match &container.signals {
            Signals::Any => SignalsFile::Word("any".to_owned()),
            Signals::Only(list) => SignalsFile::List(list.iter().map(ToString::to_string).collect()),
        },
        user: UserFile {
            uid: container.user.uid,
            gid: container.user.gid,
            additional_gids: container.user.additional_gids.iter().copied().collect(),
        },
        mount: container
            .mounts
            .iter()
            .map(|mount| MountFile {
                destination: mount.destination.to_string(),
                model: mount.model.clone(),
            })
            .collect(),
        tmpfs: container
            .tmpfs
            .iter()
            .map(|tmpfs| TmpfsFile {
                destination: tmpfs.destination.to_string(),
                size_mib: tmpfs.size_mib,
            })
            .collect(),
    }
}

fn model(model: &ModelPolicy) -> ModelFile {
    ModelFile {
        name: model.name.clone(),
        version: model.version,
        artifact: model.artifact.to_string(),
        keys: model.keys.iter().map(ToString::to_string).collect(),
        bytes: model.bytes,
    }
}
