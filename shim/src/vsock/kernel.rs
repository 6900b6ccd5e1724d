//! Connections through the host kernel's `vhost-vsock`. Not run on a machine that has it yet (`vsock.md`).

use std::io::ErrorKind;
use std::time::Duration;

use async_trait::async_trait;
use tokio_vsock::{VsockAddr, VsockStream};

use super::{GuestCid, Stream, Transport, VsockError};

/// `AF_VSOCK` to one guest.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    cid: GuestCid,
}

impl Kernel {
    /// Connects to the guest with this address.
    pub fn new(cid: GuestCid) -> Self {
        Self { cid }
    }
}

#[async_trait]
impl Transport for Kernel {
    async fn connect(&self, port: u32, deadline: Duration) -> Result<Box<dyn Stream>, VsockError> {
        let connect = VsockStream::connect(VsockAddr::new(self.cid.get(), port));
        match tokio::time::timeout(deadline, connect).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(e)) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused) => {
                Err(VsockError::NoListener { port })
            }
            Ok(Err(source)) => Err(VsockError::Connect { port, source }),
            Err(_) => Err(VsockError::Timeout { port, after: deadline }),
        }
    }
}
