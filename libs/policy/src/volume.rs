//! The kinds of volumes that a pod can have.
//!
//! A volume lives in the guest's memory; the host sends its files through the agent. Kinds that would need a file system of
//! the host are not here, so no policy can name them.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::names::shown;

/// What a volume is, in the words of the agent's API and of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeKind {
    /// Empty memory that the pod's containers share.
    EmptyDir,
    /// Files from a ConfigMap: from the host.
    ConfigMap,
    /// Files from a Secret: from the host, which has read them too.
    Secret,
    /// Files from several sources, a service account's token among them: from the host.
    Projected,
    /// Facts about the pod as files: from the host.
    DownwardApi,
    /// `/etc/hosts` as the kubelet writes it.
    Hosts,
    /// `/etc/hostname` as the container engine writes it.
    Hostname,
    /// `/etc/resolv.conf` as the container engine writes it.
    ResolvConf,
    /// One file that the container writes and the host reads when the container has ended.
    TerminationLog,
}

impl VolumeKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::EmptyDir,
        Self::ConfigMap,
        Self::Secret,
        Self::Projected,
        Self::DownwardApi,
        Self::Hosts,
        Self::Hostname,
        Self::ResolvConf,
        Self::TerminationLog,
    ];

    /// Its name in policies and in the agent's API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmptyDir => "empty-dir",
            Self::ConfigMap => "config-map",
            Self::Secret => "secret",
            Self::Projected => "projected",
            Self::DownwardApi => "downward-api",
            Self::Hosts => "hosts",
            Self::Hostname => "hostname",
            Self::ResolvConf => "resolv-conf",
            Self::TerminationLog => "termination-log",
        }
    }

    /// Whether the container only reads it, unless its policy says otherwise.
    pub const fn is_read_only(self) -> bool {
        !matches!(self, Self::EmptyDir | Self::TerminationLog)
    }

    /// Whether the agent has a file of its own in its place: the host's is an offer that a policy may take.
    pub const fn is_served(self) -> bool {
        matches!(
            self,
            Self::Hosts | Self::Hostname | Self::ResolvConf | Self::TerminationLog
        )
    }
}

impl FromStr for VolumeKind {
    type Err = VolumeKindError;

    fn from_str(text: &str) -> Result<Self, VolumeKindError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| VolumeKindError { given: shown(text) })
    }
}

impl fmt::Display for VolumeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no kind of volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given} is no kind of volume; there are empty-dir, config-map, secret, projected, downward-api, hosts, hostname, \
     resolv-conf and termination-log"
)]
pub struct VolumeKindError {
    given: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_back_from_its_name() {
        for kind in VolumeKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(
                serde_json::from_str::<VolumeKind>(&format!("\"{kind}\"")).unwrap(),
                kind
            );
        }
    }

    #[test]
    fn a_host_path_is_no_kind_and_the_message_lists_those_that_are() {
        let message = "host-path".parse::<VolumeKind>().unwrap_err().to_string();
        assert!(message.starts_with("\"host-path\" is no kind of volume"), "{message}");
        for kind in VolumeKind::ALL {
            assert!(message.contains(kind.as_str()), "{message}");
        }
    }
}
