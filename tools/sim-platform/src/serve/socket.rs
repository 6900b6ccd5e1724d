//! A listening socket with a name in the file system.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

/// A Unix socket, which is removed when this is dropped.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds a name that nothing has. It appears when connections are accepted, so its presence means readiness.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut staging = OsString::from(path);
        staging.push(".new");
        let listener = UnixListener::bind(&staging)?;
        if let Err(error) = fs::rename(&staging, path) {
            // The name is of no use to anybody; the error that matters is the one above.
            let _ = fs::remove_file(&staging);
            return Err(error);
        }
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Whoever made the folder may have removed it.
        let _ = fs::remove_file(&self.path);
    }
}
