//! A shim's state file, read by a program of any version.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

/// What is known of a VM; text is as the shim wrote it and may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// containerd's namespace.
    pub(crate) namespace: String,
    /// The sandbox, or the lone container.
    pub(crate) id: String,
    /// Kubernetes' namespace; "" outside of CRI.
    pub(crate) pod_namespace: String,
    /// The pod; "" outside of CRI.
    pub(crate) pod_name: String,
    /// "snp", "sim"; "" from an older shim.
    pub(crate) tee: String,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u32,
    /// Where the kernel's vsock reaches the guest; none where the socket `vsock` does.
    pub(crate) cid: Option<u32>,
    created_unix_s: u64,
    ready: bool,
    processes: Vec<Process>,
}

/// How far a VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No state file yet, or no more.
    Incomplete,
    /// A state file that is none.
    Unreadable,
    /// QEMU is to come, or the agent has not answered yet.
    Booting,
    /// The agent has answered and QEMU runs.
    Running,
    /// QEMU has ended and the files are still there.
    Dead,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    version: u32,
    namespace: String,
    id: String,
    #[serde(default)]
    processes: Vec<Process>,
    #[serde(default)]
    about: About,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Process {
    name: String,
    pid: i32,
    start_ticks: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct About {
    pod: PodName,
    tee: String,
    vcpus: u32,
    memory_mib: u32,
    created_unix_s: u64,
    cid: Option<u32>,
    ready: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct PodName {
    namespace: String,
    name: String,
}

impl State {
    /// Reads the state file in `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self, StateError> {
        let bytes = match read(&dir.join("state.json")) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StateError::Missing),
            Err(source) => return Err(StateError::Read { source }),
        };
        let file: File = serde_json::from_slice(&bytes).map_err(|source| StateError::Form { source })?;
        if file.version != VERSION {
            return Err(StateError::Version { version: file.version });
        }
        let about = file.about;
        Ok(Self {
            namespace: file.namespace,
            id: file.id,
            pod_namespace: about.pod.namespace,
            pod_name: about.pod.name,
            tee: about.tee,
            vcpus: about.vcpus,
            memory_mib: about.memory_mib,
            cid: about.cid,
            created_unix_s: about.created_unix_s,
            ready: about.ready,
            processes: file.processes,
        })
    }

    /// How far it is.
    pub(crate) fn phase(&self) -> Phase {
        match self.processes.iter().find(|process| process.name == "qemu") {
            Some(qemu) if !qemu.is_alive() => Phase::Dead,
            Some(_) if self.ready => Phase::Running,
            Some(_) => Phase::Booting,
            None if self.processes.iter().any(|process| !process.is_alive()) => Phase::Dead,
            None => Phase::Booting,
        }
    }

    /// QEMU's number.
    pub(crate) fn qemu_pid(&self) -> Option<i32> {
        self.processes
            .iter()
            .find(|process| process.name == "qemu")
            .map(|process| process.pid)
    }

    /// How long ago the launch began; none from an older shim.
    pub(crate) fn age(&self, now: SystemTime) -> Option<Duration> {
        let created = UNIX_EPOCH.checked_add(Duration::from_secs(self.created_unix_s))?;
        (self.created_unix_s != 0).then(|| now.duration_since(created).unwrap_or_default())
    }
}

impl Process {
    /// Whether the very process runs: its number may be another's by now.
    fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(") ") else {
            return false;
        };
        let mut fields = fields.split_ascii_whitespace();
        let ended = matches!(fields.next(), None | Some("Z" | "X"));
        !ended && fields.nth(18).and_then(|ticks| ticks.parse().ok()) == Some(self.start_ticks)
    }
}

impl Phase {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Unreadable => "unreadable",
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Dead => "dead",
        }
    }
}

/// A plain file of bounded length; not a link, and not a pipe that would be waited for.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a plain file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_STATE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_STATE {
        return Err(io::Error::other("longer than any state file"));
    }
    Ok(bytes)
}

/// Why a directory has no state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StateError {
    /// Half made, or half removed.
    #[error("no state file yet")]
    Missing,
    /// The file system says no.
    #[error("the state file cannot be read")]
    Read { source: io::Error },
    /// Not JSON, or another form.
    #[error("the state file is not one of a shim's")]
    Form { source: serde_json::Error },
    /// From a later shim.
    #[error("the state file has version {version}; use the cellactl of that release")]
    Version { version: u32 },
}

const VERSION: u32 = 1;
const MAX_STATE: u64 = 64 * 1024;
