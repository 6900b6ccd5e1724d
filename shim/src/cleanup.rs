//! `containerd-shim-cella-v2 delete`: what containerd runs when a shim has died.
//!
//! The shim's children die with it, so what is left is mostly files; but a program may be stuck in the kernel, or the shim may
//! have died between two steps. Only what the run directory's `state.json` names is killed, and only if number and start
//! time both agree; then the pod's network namespace, if it still exists, is left as CNI made it. Nothing is unmounted, since
//! the shim mounts nothing. A container of a pod whose bundle has no link to a
//! run directory had no VM of its own, and nothing is done for it.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use slog::{Logger, info, warn};

use crate::network::{NetworkError, detach};
use crate::process::{IdentityError, KillOutcome};
use crate::vm::{RunDirError, StateFile};

/// Exit status of a container whose shim has died: 128 + SIGKILL.
pub const EXIT_STATUS: u32 = 137;

/// For one program's end after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);

/// Remains that cannot be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CleanupError {
    /// The state file is unreadable.
    #[error("reading what the shim left behind")]
    State(#[from] RunDirError),
    /// The state file speaks of another container.
    #[error("{path} belongs to container {found:?} of namespace {namespace:?}: nothing is removed")]
    Foreign {
        /// The run directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// In which namespace.
        namespace: String,
    },
    /// A program cannot be killed.
    #[error("killing {program}")]
    Kill {
        /// Which.
        program: String,
        /// Why not.
        #[source]
        source: IdentityError,
    },
    /// A program is stuck in the kernel.
    #[error("{program} (process {pid}) was killed and has not ended after {PATIENCE:?}")]
    Lingers {
        /// Which.
        program: String,
        /// Its number.
        pid: i32,
    },
    /// The pod's network namespace is still connected to taps.
    #[error("restoring the pod's network namespace")]
    Network(#[from] NetworkError),
    /// The directory stays.
    #[error("cannot remove {path}")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Removes what the shim of container `id` in `namespace` left behind, by the link in `bundle`. Blocking, up to 5 s for each
/// program; may be repeated.
///
/// # Errors
/// See [`CleanupError`]; every program has been sent SIGKILL then, unless the state file itself was unusable.
pub fn clean_up(bundle: &Path, namespace: &str, id: &str, log: &Logger) -> Result<(), CleanupError> {
    let Some((dir, state)) = StateFile::of_bundle(bundle)? else {
        return Ok(());
    };
    if state.id != id || state.namespace != namespace {
        return Err(CleanupError::Foreign {
            path: dir,
            found: state.id,
            namespace: state.namespace,
        });
    }
    let mut failure = None;
    // The reverse of the order in which they were started: QEMU first.
    for process in state.processes.iter().rev() {
        let program = process.name.clone();
        match process.kill(PATIENCE) {
            Ok(KillOutcome::Gone) => {}
            Ok(KillOutcome::Killed) => {
                info!(log, "killed what the shim left behind"; "program" => program, "pid" => process.pid)
            }
            Ok(KillOutcome::Lingers) => {
                failure = Some(CleanupError::Lingers {
                    program,
                    pid: process.pid,
                })
            }
            Err(source) => failure = Some(CleanupError::Kill { program, source }),
        }
    }
    if let Some(failure) = failure {
        // The directory stays, so that a later try finds what is left.
        return Err(failure);
    }
    if let Some(netns) = &state.network {
        detach(netns)?;
    }
    match fs::remove_dir_all(&dir) {
        Ok(()) => info!(log, "removed the run directory"; "path" => dir.display().to_string()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => {
            warn!(log, "the run directory stays"; "error" => %source);
            return Err(CleanupError::Remove { path: dir, source });
        }
    }
    Ok(())
}

/// Removes the socket at `address` (`unix://…`), if nobody listens on it any more.
pub fn remove_dead_socket(address: &str) {
    let Some(path) = address.strip_prefix("unix://") else {
        return;
    };
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::Identity;
    use crate::vm::{RunDir, RunDirKey};

    fn log() -> Logger {
        Logger::root(slog::Discard, slog::o!())
    }

    /// A run directory of a shim that died without dropping anything.
    fn remains(bundle: &Path, processes: &[Identity]) -> PathBuf {
        let key = RunDirKey {
            containerd: "/c.sock".into(),
            namespace: "ns".into(),
            id: "c1".into(),
        };
        let mut dir = RunDir::create(&bundle.join("run"), &key, bundle).unwrap();
        for process in processes {
            dir.record(process).unwrap();
        }
        let path = dir.path().to_owned();
        std::mem::forget(dir);
        path
    }

    #[test]
    fn programs_are_killed_and_files_removed_and_it_may_be_repeated() {
        let bundle = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let qemu = Identity::of("qemu", child.id().try_into().unwrap()).unwrap();
        let dir = remains(bundle.path(), std::slice::from_ref(&qemu));
        clean_up(bundle.path(), "ns", "c1", &log()).unwrap();
        assert!(!dir.exists() && !qemu.is_alive());
        child.wait().unwrap();
        clean_up(bundle.path(), "ns", "c1", &log()).unwrap();
    }

    #[test]
    fn a_number_that_was_used_again_is_left_alone() {
        let bundle = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut other = Identity::of("qemu", child.id().try_into().unwrap()).unwrap();
        other.start_ticks -= 1;
        let dir = remains(bundle.path(), &[other]);
        clean_up(bundle.path(), "ns", "c1", &log()).unwrap();
        assert!(!dir.exists());
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn only_a_socket_without_listener_is_removed() {
        use std::os::unix::net::UnixListener;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let address = format!("unix://{}", socket.display());
        remove_dead_socket("");
        remove_dead_socket(&address);
        let listener = UnixListener::bind(&socket).unwrap();
        remove_dead_socket(&address);
        assert!(socket.exists());
        drop(listener);
        // A process that another test is about to start holds the listener until it has become its program.
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while socket.exists() && std::time::Instant::now() < end {
            remove_dead_socket(&address);
            std::thread::yield_now();
        }
        assert!(!socket.exists());
        // A file that is no socket refuses as well.
        fs::write(&socket, "x").unwrap();
        remove_dead_socket(&address);
        assert!(socket.exists());
    }

    #[test]
    fn another_containers_directory_is_not_touched() {
        let bundle = tempfile::tempdir().unwrap();
        let dir = remains(bundle.path(), &[]);
        let refused = clean_up(bundle.path(), "ns", "c2", &log());
        assert!(matches!(refused, Err(CleanupError::Foreign { .. })), "{refused:?}");
        assert!(dir.exists());
    }

    #[test]
    fn a_bundle_without_vm_has_nothing_to_clean() {
        let bundle = tempfile::tempdir().unwrap();
        clean_up(bundle.path(), "ns", "c1", &log()).unwrap();
    }
}
