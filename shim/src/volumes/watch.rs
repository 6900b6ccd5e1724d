//! Volumes that change while the pod runs.
//!
//! ```text
//! waiting ──inotify, or a minute──▶ settling ──quiet for 200 ms, or 2 s──▶ copying ──all copied──▶ waiting
//!    ▲                                                                        │ something failed
//!    └──────────────────────── 1 s, doubled up to a minute ◀──────────────────┘
//! ```
//! One inotify instance a pod: a node has few. Where none is left, the volumes are looked at every ten seconds. An event only
//! says that something has changed; what is copied is what differs from what the agent has, so that no event can be lost and
//! none does harm.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use slog::{Logger, info, warn};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep, timeout};

use super::{Known, Shared, Sink, digest, off_thread, put_files, read};

/// Without an event.
const LOOK: Duration = Duration::from_secs(60);
/// Without inotify.
const POLL: Duration = Duration::from_secs(10);
/// A change is over when nothing more happens for so long.
const QUIET: Duration = Duration::from_millis(200);
/// A change that does not end is copied all the same.
const PATIENCE: Duration = Duration::from_secs(2);
/// After the first failure.
const RETRY: Duration = Duration::from_secs(1);

/// What wakes the task: an inotify instance, read like a pipe.
pub(super) struct Watch(Option<Receiver>);

impl Watch {
    pub(super) fn new(log: &Logger) -> Self {
        let made = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(Into::into);
        match made.and_then(Receiver::from_owned_fd_unchecked) {
            Ok(fd) => Self(Some(fd)),
            Err(error) => {
                warn!(log, "no inotify: changes of volumes show after some seconds"; "error" => %error);
                Self(None)
            }
        }
    }

    pub(super) fn add(&self, folder: &Path, log: &Logger) {
        let Some(fd) = &self.0 else { return };
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        if let Err(error) = inotify::add_watch(fd, folder, flags) {
            warn!(log, "a volume cannot be watched: its changes show within a minute";
                "folder" => %folder.display(), "error" => %error);
        }
    }

    /// Waits for a change and its end, or for `at_most`.
    async fn changed(&self, at_most: Duration) {
        let Some(fd) = &self.0 else {
            return sleep(at_most.min(POLL)).await;
        };
        if timeout(at_most, drain(fd)).await.is_err() {
            return;
        }
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && timeout(QUIET, drain(fd)).await.is_ok() {}
    }
}

/// Waits for events and takes all that are there. What they say is not looked at.
async fn drain(events: &Receiver) {
    let mut buffer = [0; 4096];
    loop {
        if events.readable().await.is_err() {
            return sleep(POLL).await;
        }
        let mut some = false;
        while events.try_read(&mut buffer).is_ok_and(|length| length > 0) {
            some = true;
        }
        if some {
            return;
        }
    }
}

/// Copies what changes, until the task is aborted.
pub(super) async fn follow<S: Sink>(shared: Arc<Shared>, watch: Arc<Watch>, sink: S) {
    let mut pause = LOOK;
    loop {
        watch.changed(pause).await;
        pause = match copy_changed(&shared, &sink).await {
            true => LOOK,
            false if pause == LOOK => RETRY,
            false => (pause * 2).min(LOOK / 2),
        };
    }
}

/// Puts every followed volume that is not what the agent has; whether all went well.
async fn copy_changed<S: Sink>(shared: &Shared, sink: &S) -> bool {
    let followed = {
        let state = shared.state();
        let followed = state.known.iter().filter(|(_, known)| known.follow);
        followed
            .map(|(name, known)| (name.clone(), known.clone()))
            .collect::<Vec<_>>()
    };
    let mut good = true;
    for (name, known) in followed {
        match copy(shared, sink, &name, &known).await {
            Ok(true) => info!(shared.log, "volume updated"; "volume" => name),
            Ok(false) => {}
            // kubelet takes the volumes away before the pod's end.
            Err(_) if !known.source.exists() => {}
            Err(error) => {
                good = false;
                warn!(shared.log, "a volume was not updated, will be tried again";
                    "volume" => name, "error" => crate::task::TaskError::from(error).message());
            }
        }
    }
    good
}

async fn copy<S: Sink>(shared: &Shared, sink: &S, name: &str, known: &Known) -> Result<bool, super::VolumeError> {
    let path = known.source.clone();
    let files = off_thread(move || read(&path)).await?;
    let files = files.map_err(|source| super::VolumeError::Read {
        destination: name.to_owned(),
        source,
    })?;
    let digest = digest(&files);
    if digest == known.digest {
        return Ok(false);
    }
    sink.put(&put_files(name, known.kind, files)).await?;
    if let Some(known) = shared.state().known.get_mut(name) {
        known.digest = digest;
    }
    Ok(true)
}
