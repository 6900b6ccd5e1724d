//! What a volume may be.

use std::{fmt, str::FromStr};

/// The kinds that make sense without a file system in common with the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VolumeKind {
    /// Memory, empty at first, shared by the pod's containers.
    EmptyDir,
    /// Files of a ConfigMap.
    ConfigMap,
    /// Files of a Secret.
    Secret,
    /// Files of several sources.
    Projected,
    /// Files about the pod itself.
    DownwardApi,
    /// `/etc/hosts`.
    Hosts,
    /// `/etc/hostname`.
    Hostname,
    /// `/etc/resolv.conf`.
    ResolvConf,
    /// A file for a program's last words.
    TerminationLog,
}

impl VolumeKind {
    /// As the API and policies call it.
    pub fn as_str(self) -> &'static str {
        NAMES
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, name)| *name)
    }
}

impl fmt::Display for VolumeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for VolumeKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        NAMES
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(kind, _)| *kind)
            .ok_or(())
    }
}

const NAMES: [(VolumeKind, &str); 9] = [
    (VolumeKind::EmptyDir, "empty-dir"),
    (VolumeKind::ConfigMap, "config-map"),
    (VolumeKind::Secret, "secret"),
    (VolumeKind::Projected, "projected"),
    (VolumeKind::DownwardApi, "downward-api"),
    (VolumeKind::Hosts, "hosts"),
    (VolumeKind::Hostname, "hostname"),
    (VolumeKind::ResolvConf, "resolv-conf"),
    (VolumeKind::TerminationLog, "termination-log"),
];
