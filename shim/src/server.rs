//! The server itself: containerd's Task and Sandbox services on one ttrpc socket.
//!
//! `containerd-shim` serves the Task service alone, so this stands in for its server; the actions `start`, `delete` and
//! `-info`, which speak containerd's bootstrap protocol, are still its own. As there: `start` waits until this process closes
//! its stdout, a second server for one pod leaves the field to the first, and SIGTERM and SIGINT end nothing, since a pod's end
//! is containerd's to say.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim::protos::sandbox_async::create_sandbox;
use containerd_shim::protos::shim_async::create_task;
use containerd_shim::{Flags, Shim};
use containerd_shim_protos::ttrpc;
use slog::{Logger, error, info};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use crate::shim::{ADDRESS_FILE, CellaShim, RUNTIME, shim_config};

/// Variable with containerd's own ttrpc socket, which takes events.
const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";
/// How long a server that has the socket may take to answer.
const OTHER_SERVER: Duration = Duration::from_secs(1);
/// For an answer that is ready to be written.
const LAST_ANSWER: Duration = Duration::from_millis(100);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(5);

/// A server that cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Not started by containerd.
    #[error("{what} is missing: this program is started by containerd")]
    Missing {
        /// The flag or variable.
        what: &'static str,
    },
    /// The socket.
    #[error("cannot listen on {address}")]
    Listen {
        /// containerd-shim's name for it.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The server.
    #[error("cannot serve")]
    Serve {
        /// Why not.
        #[source]
        source: ttrpc::Error,
    },
    /// The process's own resources.
    #[error("cannot set the server up")]
    Setup {
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Serves until the pod is over.
pub async fn run(flags: Flags) -> ExitCode {
    let mut shim = CellaShim::new(RUNTIME, &flags, &mut shim_config()).await;
    let log = shim.log().clone();
    match serve(&mut shim, &flags, &log).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let mut text = problem.to_string();
            let mut cause = std::error::Error::source(&problem);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            error!(log, "the server cannot run"; "error" => &text);
            eprintln!("{RUNTIME}: {text}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(shim: &mut CellaShim, flags: &Flags, log: &Logger) -> Result<(), ServeError> {
    let setup = |source| ServeError::Setup { source };
    // Held for their effect: while they live, these signals do not end the process.
    let _terminate = signal(SignalKind::terminate()).map_err(setup)?;
    let _interrupt = signal(SignalKind::interrupt()).map_err(setup)?;
    if flags.socket.is_empty() {
        return Err(ServeError::Missing { what: "-socket" });
    }
    let events = std::env::var(TTRPC_ADDRESS).map_err(|_| ServeError::Missing { what: TTRPC_ADDRESS })?;
    let Some(listener) = listen(&flags.socket).await? else {
        info!(log, "another server has the pod's socket");
        close_stdout().map_err(setup)?;
        return Ok(());
    };
    let (task, sandbox) = shim.services(&events).map_err(setup)?;
    let mut server = Server::new()
        .add_listener(Listener::try_from(listener).map_err(setup)?)
        .register_service(create_task(Arc::new(task)))
        .register_service(create_sandbox(Arc::new(sandbox)));
    let serving = |source| ServeError::Serve { source };
    server.start().await.map_err(serving)?;
    close_stdout().map_err(setup)?;
    shim.wait().await;
    let _ = server.shutdown().await;
    // The answer to the request that ended all this is written by a task of ttrpc's, which nobody can wait for. containerd
    // takes a connection that closes before it for a failure of ShutdownSandbox.
    tokio::time::sleep(LAST_ANSWER).await;
    Ok(())
}

/// The pod's socket; none where another server has it and answers.
async fn listen(address: &str) -> Result<Option<UnixListener>, ServeError> {
    let path = Path::new(address.strip_prefix("unix://").unwrap_or(address));
    let failed = |source| ServeError::Listen {
        address: address.to_owned(),
        source,
    };
    match bind(path) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if answers(path).await {
                let _ = std::fs::write(ADDRESS_FILE, address);
                return Ok(None);
            }
            std::fs::remove_file(path).map_err(failed)?;
            bind(path).map(Some).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let listener = UnixListener::bind(path)?;
    // Whoever may talk to it is as good as containerd.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answers(path: &Path) -> bool {
    let tries = async {
        while UnixStream::connect(path).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(OTHER_SERVER, tries).await.is_ok()
}

/// Tells `start`, which reads our stdout, that the socket is there.
fn close_stdout() -> io::Result<()> {
    rustix::stdio::dup2_stdout(std::io::stderr()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("unix://{}", dir.path().join("s/socket").display());
        let first = listen(&address).await.unwrap().unwrap();
        drop(first);
        // Nobody listens any more, but the file is there.
        let second = listen(&address).await.unwrap();
        assert!(second.is_some());
        let path = dir.path().join("s/socket");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(answers(&path).await);
    }

    #[tokio::test]
    async fn without_containerd_it_says_so() {
        let failed = listen("unix:///proc/nonexistent/socket").await;
        assert!(matches!(failed, Err(ServeError::Listen { .. })));
    }
}
