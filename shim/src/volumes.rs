//! Volumes, host half: bind mounts of a bundle → volumes of the agent.
//!
//! A confidential guest shares no file system with its host, so a volume is either memory of the guest (emptyDir) or a copy of
//! small files that the host may know anyway (ConfigMap, Secret, projected, downward API, the pod's hosts file). Every other
//! kind would let the host read or change what the container sees; it is refused, by its name.
//!
//! | bind mount from | becomes |
//! |---|---|
//! | `…/pods/<uid>/volumes/kubernetes.io~{configmap,secret,projected,downward-api}/<name>` | a copy, made again when it changes |
//! | `…/pods/<uid>/volume-subpaths/<name>/…` of one of these | a copy, made once |
//! | `…/pods/<uid>/volumes/kubernetes.io~empty-dir/<name>` | guest memory; what lies in it on the host stays there |
//! | `…/pods/<uid>/etc-hosts`, `…/sandboxes/<id>/{hosts,hostname,resolv.conf}` | a copy, or the agent's own file |
//! | `…/pods/<uid>/containers/<name>/<id>` | the termination log, copied back when the container ends |
//! | `…/sandboxes/<id>/shm` | nothing: the guest has its own |
//! | a `VOLUME` of the image | nothing, since the container's root holds it; guest memory if that is read-only |
//! | anything else | refused |
//!
//! How to use it: a pod has one [`Volumes`]. [`Volumes::prepare`] before a container is asked for gives the mounts to put into
//! the request; [`Volumes::message`] when it has ended; [`Volumes::forget`] when it is deleted; [`Volumes::close`], or
//! dropping it, when the VM goes.

mod error;
mod message;
mod read;
mod watch;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cella_bundle::derived_name;
use cella_protos::agent::{self, PutVolumeRequest, VolumeFile};
use sha2::{Digest, Sha256};
use slog::{Logger, debug, info};
use tokio::task::AbortHandle;

pub use cella_bundle::{Foreign, Source, classify};
pub use cella_policy::VolumeKind;
pub use error::VolumeError;
pub use message::MAX_MESSAGE;
pub use read::{MAX_BYTES, MAX_FILES, ReadError, read};

use crate::agent::{Agent, AgentError};
use crate::bundle::oci;
use watch::Watch;

/// Where volumes go: the agent, or a test's record.
pub trait Sink: Clone + Send + Sync + 'static {
    /// Makes a volume, or replaces its files.
    ///
    /// # Errors
    /// See [`AgentError`].
    fn put(&self, request: &PutVolumeRequest) -> impl Future<Output = Result<(), AgentError>> + Send;
}

impl Sink for Agent {
    fn put(&self, request: &PutVolumeRequest) -> impl Future<Output = Result<(), AgentError>> + Send {
        self.put_volume(request)
    }
}

/// The volumes of one pod.
pub struct Volumes {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    log: Logger,
}

#[derive(Default)]
struct State {
    /// What the agent has, by name.
    known: BTreeMap<String, Known>,
    /// Where each container's last words go.
    messages: BTreeMap<String, PathBuf>,
    watch: Option<(Arc<Watch>, AbortHandle)>,
}

#[derive(Clone)]
struct Known {
    kind: VolumeKind,
    source: PathBuf,
    digest: [u8; 32],
    follow: bool,
}

impl Volumes {
    /// A pod without volumes.
    pub fn new(log: Logger) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                log,
            }),
        }
    }

    /// Gives the agent the volumes that `spec` mounts into `container`, and follows them from then on; gives all mounts of the
    /// request.
    ///
    /// # Errors
    /// A mount that cannot be kept confidential, a volume that cannot be read, the agent's refusal. Volumes that the agent
    /// has by then stay for the pod's other containers.
    pub async fn prepare<S: Sink>(
        &self,
        sink: &S,
        container: &str,
        spec: &oci::Spec,
    ) -> Result<Vec<agent::Mount>, VolumeError> {
        let mut mounts = Vec::with_capacity(spec.mounts.len());
        for mount in &spec.mounts {
            if !is_bind(mount) {
                mounts.push(passed_on(mount));
                continue;
            }
            if let Some(option) = mount
                .options
                .iter()
                .find(|option| PROPAGATION.contains(&option.as_str()))
            {
                return Err(VolumeError::Propagation {
                    destination: mount.destination.clone(),
                    option: option.clone(),
                });
            }
            let (source, destination) = (mount.source.clone(), mount.destination.clone());
            let found = off_thread(move || classify(&source, &destination)).await?;
            let found = found.map_err(|foreign| VolumeError::foreign(mount, foreign))?;
            match found {
                Source::EmptyDir { volume } => {
                    let name = self.empty_dir(sink, &volume, &mount.source).await?;
                    mounts.push(on_volume(mount, name));
                }
                Source::Files { volume, kind, follow } => {
                    let name = self.files(sink, mount, &volume, kind, follow).await?;
                    mounts.push(on_volume(mount, name));
                }
                Source::Served { kind } => mounts.push(self.served(sink, mount, kind).await?),
                Source::TerminationLog => mounts.push(self.termination_log(sink, container, mount).await?),
                Source::SharedMemory => mounts.push(passed_on(mount)),
                Source::ImageDefined if spec.root.readonly => {
                    let volume = derived_name("image", &mount.source);
                    let name = self.empty_dir(sink, &volume, "").await?;
                    mounts.push(on_volume(mount, name));
                }
                Source::ImageDefined => debug!(self.shared.log, "a volume of the image stays in the container's root";
                    "container" => container, "destination" => &mount.destination),
            }
        }
        Ok(mounts)
    }

    /// Writes what `container` left in its termination log to the file that its bundle named, if it named one.
    pub async fn message(&self, container: &str, text: &[u8]) {
        let path = self.shared.state().messages.get(container).cloned();
        if let Some(path) = path.filter(|_| !text.is_empty()) {
            let (log, text, id) = (self.shared.log.clone(), text.to_vec(), container.to_owned());
            let written = off_thread(move || message::write(&path, &text)).await;
            if let Ok(Err(error)) = written {
                slog::warn!(log, "the termination message is lost"; "container" => id, "error" => %error);
            }
        }
    }

    /// Forgets a container. Its volumes are the pod's and stay.
    pub fn forget(&self, container: &str) {
        self.shared.state().messages.remove(container);
    }

    /// Forgets everything: the VM has gone, and its volumes with it.
    pub fn close(&self) {
        let state = std::mem::take(&mut *self.shared.state());
        if let Some((_, task)) = state.watch {
            task.abort();
        }
    }

    async fn empty_dir<S: Sink>(&self, sink: &S, volume: &str, source: &str) -> Result<String, VolumeError> {
        let name = agent_name(volume);
        if self.shared.state().known.contains_key(&name) {
            return Ok(name);
        }
        let path = PathBuf::from(source);
        let request = PutVolumeRequest {
            name: name.clone(),
            kind: VolumeKind::EmptyDir.as_str().to_owned(),
            size_limit_bytes: off_thread(move || memory_limit(&path)).await?,
            ..Default::default()
        };
        sink.put(&request).await?;
        self.shared.learn(&name, VolumeKind::EmptyDir, source, [0; 32], false);
        Ok(name)
    }

    async fn files<S: Sink>(
        &self,
        sink: &S,
        mount: &oci::Mount,
        volume: &str,
        kind: VolumeKind,
        follow: bool,
    ) -> Result<String, VolumeError> {
        let name = agent_name(volume);
        if follow {
            // Before it is read: a change in between shows as an event.
            self.follow(sink, Path::new(&mount.source));
        }
        let path = PathBuf::from(&mount.source);
        let files = off_thread(move || read(&path)).await?;
        let files = files.map_err(|source| VolumeError::Read {
            destination: mount.destination.clone(),
            source,
        })?;
        let digest = digest(&files);
        let same = |known: &Known| known.digest == digest && known.kind == kind;
        let is_known = self.shared.state().known.get(&name).is_some_and(same);
        if !is_known {
            sink.put(&put_files(&name, kind, files)).await?;
            self.shared.learn(&name, kind, &mount.source, digest, follow);
        }
        Ok(name)
    }

    /// A file that the agent can make itself: what goes wrong with the host's is no reason to refuse the container.
    async fn served<S: Sink>(
        &self,
        sink: &S,
        mount: &oci::Mount,
        kind: VolumeKind,
    ) -> Result<agent::Mount, VolumeError> {
        let name = format!("pod.{}", kind.as_str());
        let path = PathBuf::from(&mount.source);
        let request = match off_thread(move || read(&path)).await? {
            Ok(files) if matches!(files.as_slice(), [file] if file.path.is_empty()) => put_files(&name, kind, files),
            Ok(_) => return Ok(passed_on(mount)),
            Err(error) => {
                debug!(self.shared.log, "the agent makes its own file";
                    "destination" => &mount.destination, "error" => %error);
                return Ok(passed_on(mount));
            }
        };
        self.put_or_leave(sink, mount, request).await
    }

    async fn termination_log<S: Sink>(
        &self,
        sink: &S,
        container: &str,
        mount: &oci::Mount,
    ) -> Result<agent::Mount, VolumeError> {
        let source = PathBuf::from(&mount.source);
        // One for all lives of a container: kubelet names a file for each, in one folder.
        let folder = source.parent().unwrap_or(&source).to_string_lossy().into_owned();
        let file = VolumeFile {
            mode: 0o666,
            ..Default::default()
        };
        let request = put_files(&derived_name("log", &folder), VolumeKind::TerminationLog, vec![file]);
        let prepared = self.put_or_leave(sink, mount, request).await?;
        self.shared.state().messages.insert(container.to_owned(), source);
        Ok(prepared)
    }

    async fn put_or_leave<S: Sink>(
        &self,
        sink: &S,
        mount: &oci::Mount,
        request: PutVolumeRequest,
    ) -> Result<agent::Mount, VolumeError> {
        match sink.put(&request).await {
            Ok(()) => Ok(on_volume(mount, request.name)),
            // The policy does not want the host's, or the agent does not like its form.
            Err(AgentError::Refused { message, .. }) => {
                info!(self.shared.log, "the guest keeps its own file"; "destination" => &mount.destination, "why" => message);
                Ok(passed_on(mount))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Has changes in `folder` wake the task that copies, which is started with the first folder.
    fn follow<S: Sink>(&self, sink: &S, folder: &Path) {
        let mut state = self.shared.state();
        if state.watch.is_none() {
            let watch = Arc::new(Watch::new(&self.shared.log));
            let task = tokio::spawn(watch::follow(self.shared.clone(), watch.clone(), sink.clone()));
            state.watch = Some((watch, task.abort_handle()));
        }
        if let Some((watch, _)) = &state.watch {
            watch.add(folder, &self.shared.log);
        }
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, name: &str, kind: VolumeKind, source: &str, digest: [u8; 32], follow: bool) {
        let known = Known {
            kind,
            source: PathBuf::from(source),
            digest,
            follow,
        };
        self.state().known.insert(name.to_owned(), known);
    }
}

/// Mount options that ask for mounts to appear in the container later, or for the container's to appear on the host.
const PROPAGATION: [&str; 4] = ["shared", "rshared", "slave", "rslave"];

fn is_bind(mount: &oci::Mount) -> bool {
    mount.kind == "bind" || mount.options.iter().any(|option| option == "bind" || option == "rbind")
}

fn passed_on(mount: &oci::Mount) -> agent::Mount {
    agent::Mount {
        destination: mount.destination.clone(),
        type_: mount.kind.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
        ..Default::default()
    }
}

fn on_volume(mount: &oci::Mount, volume: String) -> agent::Mount {
    agent::Mount {
        volume,
        source: String::new(),
        ..passed_on(mount)
    }
}

fn put_files(name: &str, kind: VolumeKind, files: Vec<VolumeFile>) -> PutVolumeRequest {
    PutVolumeRequest {
        name: name.to_owned(),
        kind: kind.as_str().to_owned(),
        files,
        ..Default::default()
    }
}

/// The volume's own name where the agent takes it, else one made from it.
fn agent_name(volume: &str) -> String {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if (1..=64).contains(&volume.len()) && volume.bytes().all(allowed) && !volume.starts_with('.') {
        volume.to_owned()
    } else {
        derived_name("v", volume)
    }
}

fn digest(files: &[VolumeFile]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in files {
        for part in [file.path.as_bytes(), file.content.as_slice()] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        for number in [file.mode, file.uid, file.gid] {
            hash.update(number.to_le_bytes());
        }
    }
    hash.finalize().into()
}

/// The size of the memory file system that kubelet mounted for an emptyDir with `medium: Memory`; 0 if it is none.
fn memory_limit(path: &Path) -> u64 {
    const TMPFS: u64 = 0x0102_1994;
    let devices = path
        .parent()
        .and_then(|parent| parent.metadata().ok())
        .zip(path.metadata().ok());
    if devices.is_none_or(|(parent, own)| parent.dev() == own.dev()) {
        return 0;
    }
    match rustix::fs::statfs(path) {
        Ok(stat) if u64::try_from(stat.f_type) == Ok(TMPFS) => {
            stat.f_blocks.saturating_mul(u64::try_from(stat.f_bsize).unwrap_or(0))
        }
        _ => 0,
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, VolumeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| VolumeError::Interrupted)
}

#[cfg(test)]
mod tests;
