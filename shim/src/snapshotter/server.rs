//! The Unix socket and its connections, from the first to the last.
//!
//! ```text
//! bind ─▶ serving ──stop──▶ draining ──all calls answered, or 5 s──▶ socket removed
//! ```
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, pin};

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use slog::{Logger, debug, info, warn};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::snapshotter::grpc::Service;
use crate::snapshotter::lookup::Lookup;
use crate::snapshotter::service::Snapshotter;

/// A socket that is listened on. Dropping it removes the file.
pub struct Server {
    listener: UnixListener,
    socket: SocketFile,
}

impl Server {
    /// Listens on `address` with mode 0600, in a folder that only its owner can write to and that is made with mode 0700
    /// if it is not there. A socket that a dead process left is replaced. To be called when [`Snapshotter::open`] has
    /// shown that no other process serves the same root.
    ///
    /// # Errors
    /// When the folder is open to others, somebody listens there, or the system fails.
    pub fn bind(address: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Io {
            path: address.to_owned(),
            source,
        };
        let folder = address.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        if fs::metadata(folder).map_err(failed)?.mode() & 0o022 != 0 {
            return Err(BindError::OpenFolder {
                path: folder.to_owned(),
            });
        }
        match fs::symlink_metadata(address) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(BindError::NotASocket {
                    path: address.to_owned(),
                });
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(address).is_ok() => {
                return Err(BindError::InUse {
                    path: address.to_owned(),
                });
            }
            Ok(_) => fs::remove_file(address).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(address).map_err(failed)?;
        let socket = SocketFile(address.to_owned());
        fs::set_permissions(address, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, socket })
    }

    /// Serves until `stop` is ready and the calls in progress are answered, for which they have 5 seconds. `containerd` is
    /// containerd's own socket.
    pub async fn serve(self, snapshotter: Snapshotter, containerd: &Path, log: Logger, stop: impl Future<Output = ()>) {
        let lookup = Lookup::new(containerd, log.clone());
        let service = Service::new(snapshotter, lookup, log.clone());
        let (graceful, places) = (GracefulShutdown::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
        let mut connections = JoinSet::new();
        let mut stop = pin::pin!(stop);
        info!(log, "listening"; "address" => %self.socket.0.display());
        loop {
            let stream = tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                stream = self.listener.accept() => stream,
            };
            let (stream, _) = match stream {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: wait for one to come back instead of spinning.
                    warn!(log, "connection not accepted"; "error" => %error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                warn!(log, "connection refused: too many are open"; "limit" => MAX_CONNECTIONS);
                continue;
            };
            let connection = graceful.watch(connection(stream, service.clone()));
            let log = log.clone();
            connections.spawn(async move {
                if let Err(error) = connection.await {
                    debug!(log, "connection ended"; "error" => %error);
                }
                drop(place);
            });
        }
        info!(log, "stopping");
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            warn!(log, "calls were cut off"; "after_ms" => u64::try_from(DRAIN.as_millis()).unwrap_or(u64::MAX));
        }
        connections.shutdown().await;
    }
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The system failed.
    #[error("listening on {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Others could replace the socket.
    #[error("{path} can be written to by others: give the socket a folder of its own with mode 0700")]
    OpenFolder {
        /// The folder.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{path} exists and is not a socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A living process listens.
    #[error("another process listens on {path}")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
}

/// Removes the socket when it is no longer listened on.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If it is gone already, the aim is reached.
        drop(fs::remove_file(&self.0));
    }
}

fn connection(
    stream: UnixStream,
    service: Service,
) -> impl GracefulConnection<Error = hyper::Error, Output = Result<(), hyper::Error>> {
    let answer = service_fn(move |request| service.clone().answer(request));
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CALLS)
        .serve_connection(TokioIo::new(stream), answer)
}

const MAX_CONNECTIONS: usize = 32;
const MAX_CALLS: u32 = 64;
const DRAIN: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
