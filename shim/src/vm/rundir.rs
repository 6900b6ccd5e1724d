//! The run directory: one for each VM, mode 0700, named so that every socket path in it is short.
//!
//! It holds sockets, the initdata device, the console log and `state.json`, which says what runs on behalf of the VM; a
//! symlink in the bundle leads to it, for `delete` after the shim's own death. Removed when dropped.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::network::{NetNsId, detach};
use crate::process::Identity;
use crate::vsock::GuestCid;

/// Name of the bundle's symlink.
const BUNDLE_LINK: &str = "cella-run-dir";
const STATE_FILE: &str = "state.json";
/// Longest state file that is read, in bytes.
const MAX_STATE: u64 = 16 * 1024;

/// Whose run directory: the same for the shim and for `delete`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDirKey {
    /// containerd's socket; two instances may use the same ids.
    pub containerd: String,
    /// containerd's namespace.
    pub namespace: String,
    /// The container or sandbox that brought the VM up.
    pub id: String,
}

/// `state.json`: what must be killed if the shim cannot do it any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StateFile {
    /// Version of this form: 1.
    pub version: u32,
    /// containerd's namespace.
    pub namespace: String,
    /// The container or sandbox.
    pub id: String,
    /// In the order in which they were started.
    pub processes: Vec<Identity>,
    /// For people and `cellactl ps`; nothing is decided by it.
    #[serde(default)]
    pub about: About,
    /// The pod's network namespace that the VM is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetNsId>,
}

/// What a state file tells people about a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct About {
    /// Whose VM it is.
    pub pod: PodName,
    /// "snp", "sim".
    pub tee: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Guest memory.
    pub memory_mib: u32,
    /// When the launch began, in seconds since 1970.
    pub created_unix_s: u64,
    /// The guest's vsock address; none where the vsock is the socket `vsock` beside this file.
    pub cid: Option<u32>,
    /// Whether the agent has answered.
    pub ready: bool,
}

/// CRI's name of a pod; empty for a lone container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct PodName {
    /// Kubernetes' namespace, not containerd's.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
}

impl About {
    /// Of a launch that begins now.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            created_unix_s: since.as_secs(),
            ..Self::default()
        }
    }
}

/// The directory and what was written about it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    link: PathBuf,
    state: StateFile,
}

/// A run directory that cannot be made, or read after a shim's death.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunDirError {
    /// The file system says no.
    #[error("cannot {action} {path}")]
    Io {
        /// "create", "write", …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another shim serves the same container.
    #[error("{path} belongs to a VM that still runs ({program}, process {pid})")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Which of its programs runs.
        program: String,
        /// Its number.
        pid: i32,
    },
    /// `state.json` is not ours.
    #[error("{path} is not a state file of this shim")]
    State {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
}

impl RunDirKey {
    /// At most 24 characters: the beginning of the id for people, a hash for uniqueness.
    pub fn dir_name(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.containerd, &self.namespace, &self.id] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let readable: String = self.id.chars().filter(char::is_ascii_alphanumeric).take(11).collect();
        let hash = hex::encode(hash.finalize());
        format!("{readable}-{}", hash.get(..12).unwrap_or(&hash))
    }
}

impl RunDir {
    /// Makes the directory under `parent` and the link in `bundle`. Remains of a VM whose programs have all ended are removed.
    ///
    /// # Errors
    /// See [`RunDirError`].
    pub fn create(parent: &Path, key: &RunDirKey, bundle: &Path) -> Result<Self, RunDirError> {
        let path = parent.join(key.dir_name());
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| RunDirError::Io { action, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(io("create", parent))?;
        remove_remains(&path)?;
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(io("create", &path))?;
        let link = bundle.join(BUNDLE_LINK);
        let state = StateFile {
            version: 1,
            namespace: key.namespace.clone(),
            id: key.id.clone(),
            processes: Vec::new(),
            about: About::default(),
            network: None,
        };
        // From here on a failure removes what was made.
        let dir = Self { path, link, state };
        dir.write_state()?;
        let _ = fs::remove_file(&dir.link);
        symlink(&dir.path, &dir.link).map_err(io("create", &dir.link))?;
        Ok(dir)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Notes what the VM is.
    ///
    /// # Errors
    /// The state file could not be written.
    pub fn describe(&mut self, about: About) -> Result<(), RunDirError> {
        self.state.about = about;
        self.write_state()
    }

    /// Notes the guest's vsock address.
    ///
    /// # Errors
    /// The state file could not be written.
    pub fn note_cid(&mut self, cid: GuestCid) -> Result<(), RunDirError> {
        self.state.about.cid = Some(cid.get());
        self.write_state()
    }

    /// Notes that the agent has answered.
    ///
    /// # Errors
    /// The state file could not be written.
    pub fn note_ready(&mut self) -> Result<(), RunDirError> {
        self.state.about.ready = true;
        self.write_state()
    }

    /// Notes a program that was started.
    ///
    /// # Errors
    /// The state file could not be written.
    pub fn record(&mut self, process: &Identity) -> Result<(), RunDirError> {
        self.state.processes.push(process.clone());
        self.write_state()
    }

    /// Notes the pod's network namespace, before anything is changed there.
    ///
    /// # Errors
    /// The state file could not be written.
    pub fn record_network(&mut self, netns: &NetNsId) -> Result<(), RunDirError> {
        self.state.network = Some(netns.clone());
        self.write_state()
    }

    fn write_state(&self) -> Result<(), RunDirError> {
        let path = self.file(STATE_FILE);
        let text = serde_json::to_vec_pretty(&self.state).map_err(|source| RunDirError::State {
            path: path.clone(),
            source,
        })?;
        let new = self.file("state.json.new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
        written.map_err(|source| RunDirError::Io {
            action: "write",
            path,
            source,
        })
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(&self.link);
    }
}

impl StateFile {
    /// The state file of the run directory that `bundle` links to, and that directory; none if the VM was taken down.
    ///
    /// # Errors
    /// The link or the file is there but cannot be read, or is not ours.
    pub fn of_bundle(bundle: &Path) -> Result<Option<(PathBuf, Self)>, RunDirError> {
        let link = bundle.join(BUNDLE_LINK);
        match fs::read_link(&link) {
            Ok(dir) => Ok(Self::read(&dir)?.map(|state| (dir, state))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RunDirError::Io {
                action: "read",
                path: link,
                source,
            }),
        }
    }

    /// The state file in `dir`; none if it does not exist.
    ///
    /// # Errors
    /// It is there but cannot be read, or is not ours.
    pub fn read(dir: &Path) -> Result<Option<Self>, RunDirError> {
        use io::Read;
        let path = dir.join(STATE_FILE);
        let mut text = Vec::new();
        match fs::File::open(&path).and_then(|file| file.take(MAX_STATE).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(RunDirError::Io {
                    action: "read",
                    path,
                    source,
                });
            }
        }
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| RunDirError::State { path, source })
    }
}

fn remove_remains(path: &Path) -> Result<(), RunDirError> {
    if !path.exists() {
        return Ok(());
    }
    let state = StateFile::read(path)?.unwrap_or_default();
    if let Some(alive) = state.processes.iter().find(|process| process.is_alive()) {
        return Err(RunDirError::InUse {
            path: path.to_owned(),
            program: alive.name.clone(),
            pid: alive.pid,
        });
    }
    if let Some(netns) = &state.network {
        // Best effort: it is most often the one that the new VM is connected to, which looks again.
        let _ = detach(netns);
    }
    fs::remove_dir_all(path).map_err(|source| RunDirError::Io {
        action: "remove",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(id: &str) -> RunDirKey {
        RunDirKey {
            containerd: "/run/c.sock".into(),
            namespace: "default".into(),
            id: id.into(),
        }
    }

    #[test]
    fn names_are_short_readable_and_distinct() {
        let long = key(&"f".repeat(64)).dir_name();
        assert_eq!((long.len(), &long[..12]), (24, "fffffffffff-"));
        assert_ne!(key("a").dir_name(), key("b").dir_name());
        let other = RunDirKey {
            namespace: "defaul".into(),
            id: "ta".into(),
            ..key("x")
        };
        assert_ne!(
            RunDirKey {
                id: "a".into(),
                ..key("x")
            }
            .dir_name(),
            other.dir_name()
        );
        assert!(key("../../etc").dir_name().starts_with("etc-"));
    }

    #[test]
    fn it_is_private_linked_and_removed() {
        let temp = tempfile::tempdir().unwrap();
        let mut dir = RunDir::create(&temp.path().join("run"), &key("c1"), temp.path()).unwrap();
        let path = dir.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let me = Identity::of("me", std::process::id().try_into().unwrap()).unwrap();
        dir.record(&me).unwrap();
        let (linked, state) = StateFile::of_bundle(temp.path()).unwrap().unwrap();
        assert_eq!(
            (linked.as_path(), state.processes.as_slice()),
            (path.as_path(), [me].as_slice())
        );
        drop(dir);
        assert!(!path.exists());
        assert_eq!(StateFile::of_bundle(temp.path()).unwrap(), None);
    }

    #[test]
    fn remains_are_replaced_unless_something_lives() {
        let temp = tempfile::tempdir().unwrap();
        let parent = temp.path().join("run");
        let mut first = RunDir::create(&parent, &key("c1"), temp.path()).unwrap();
        let me = Identity::of("me", std::process::id().try_into().unwrap()).unwrap();
        first.record(&me).unwrap();
        let again = RunDir::create(&parent, &key("c1"), temp.path());
        assert!(matches!(again, Err(RunDirError::InUse { .. })), "{again:?}");
        first.state.processes = vec![Identity {
            start_ticks: me.start_ticks + 1,
            ..me
        }];
        first.write_state().unwrap();
        fs::write(first.file("vsock"), "").unwrap();
        let second = RunDir::create(&parent, &key("c1"), temp.path()).unwrap();
        assert!(!second.file("vsock").exists());
    }

    #[test]
    fn a_foreign_state_file_is_not_ours_to_remove() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join(key("c1").dir_name());
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(STATE_FILE), "{\"version\": 1}").unwrap();
        assert!(matches!(
            RunDir::create(temp.path(), &key("c1"), temp.path()),
            Err(RunDirError::State { .. })
        ));
        assert!(dir.exists());
    }
}
