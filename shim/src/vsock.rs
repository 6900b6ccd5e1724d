//! Host → guest connections, behind one trait.
//!
//! | transport | where | how |
//! |---|---|---|
//! | [`Hybrid`] | `sim`; no kernel module needed | `vhost-device-vsock` on a Unix socket, `CONNECT <port>` / `OK <port>` |
//! | [`Kernel`] | `snp`, `/dev/vhost-vsock` | `AF_VSOCK` to the guest's CID |
//!
//! A confidential guest's memory cannot be mapped by another process, so `snp` cannot use a vhost-user backend; and the
//! simulated platform listens on a Unix socket, so `sim` always does.

mod handshake;
mod hybrid;
mod kernel;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

pub use handshake::{Handshake, HandshakeError, Progress};
pub use hybrid::Hybrid;
pub use kernel::Kernel;

/// A byte stream to a port of the guest. Dropping it ends the stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// A way to the guest.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Connects to `port` of the guest, within `deadline` from now. Cancelling is safe: the connection is dropped.
    ///
    /// # Errors
    /// No backend, nobody listening in the guest, a malformed handshake, or too late.
    async fn connect(&self, port: u32, deadline: Duration) -> Result<Box<dyn Stream>, VsockError>;
}

/// A guest's vsock address. 0 to 2 are reserved (virtio 1.2, 5.10.4) and the top bit marks other meanings, so they cannot be
/// built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestCid(u32);

impl GuestCid {
    /// The address `cid`, if a guest may have it.
    pub fn new(cid: u32) -> Option<Self> {
        (3..1 << 31).contains(&cid).then_some(Self(cid))
    }

    /// Any address. The kernel refuses one that another VM has; the chance is the number of VMs in 2^31.
    ///
    /// # Errors
    /// The host gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        loop {
            if let Some(cid) = Self::new(getrandom::u32()? >> 1) {
                return Ok(cid);
            }
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for GuestCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A connection that was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VsockError {
    /// The backend or the guest's kernel cannot be reached.
    #[error("connecting to vsock port {port} of the guest")]
    Connect {
        /// The guest's port.
        port: u32,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The backend closed the connection: nobody listens on the port.
    #[error("nothing listens on vsock port {port} of the guest")]
    NoListener {
        /// The guest's port.
        port: u32,
    },
    /// The backend does not speak the hybrid protocol.
    #[error("the vsock backend's answer for port {port} is malformed")]
    Handshake {
        /// The guest's port.
        port: u32,
        /// What is wrong with it.
        #[source]
        source: HandshakeError,
    },
    /// No answer in time.
    #[error("vsock port {port} of the guest did not answer within {after:?}")]
    Timeout {
        /// The guest's port.
        port: u32,
        /// How long was waited.
        after: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_addresses_cannot_be_built() {
        for reserved in [0, 1, 2, 1 << 31, u32::MAX] {
            assert_eq!(GuestCid::new(reserved), None);
        }
        assert_eq!(GuestCid::new(3).map(GuestCid::get), Some(3));
        assert!(GuestCid::random().unwrap().get() >= 3);
    }
}
