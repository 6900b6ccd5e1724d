//! Reads the launcher's reports: bounded lines, and one descriptor at most.
#![allow(unsafe_code)] // descriptors that come out of a socket

use std::{
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream as StdUnixStream,
    },
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::UnixStream,
};

use super::report::{ACK, MAX_REPORTS, Report};

/// The agent's end of a launch's socket.
pub(super) struct Reports {
    socket: UnixStream,
    received: Vec<u8>,
    total: usize,
    descriptor: Option<OwnedFd>,
}

impl Reports {
    /// Needs a runtime.
    pub(super) fn new(socket: StdUnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixStream::from_std(socket)?,
            received: Vec::new(),
            total: 0,
            descriptor: None,
        })
    }

    /// The next report; `None` when the socket is closed, as `exec` does it, or holds what is no report.
    pub(super) async fn next(&mut self) -> io::Result<Option<Report>> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let line = line.strip_suffix(b"\n").unwrap_or_default();
                return Ok(std::str::from_utf8(line).ok().and_then(Report::parse));
            }
            if self.total >= MAX_REPORTS || !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// The descriptor that came with a report.
    pub(super) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Lets the launcher go on.
    pub(super) async fn acknowledge(&mut self) -> io::Result<()> {
        self.socket.write_all(ACK).await
    }

    /// Reads once; whether there was anything.
    async fn fill(&mut self) -> io::Result<bool> {
        let socket = self.socket.as_raw_fd();
        let received = self.socket.async_io(Interest::READABLE, || receive(socket)).await;
        let (bytes, descriptor) = match received {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            other => other?,
        };
        self.total = self.total.saturating_add(bytes.len());
        self.descriptor = descriptor.or(self.descriptor.take());
        self.received.extend_from_slice(&bytes);
        Ok(!bytes.is_empty())
    }
}

fn receive(socket: RawFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = [0; 1024];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket, &mut slices, Some(&mut space), flags)?;
    let mut descriptor = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for number in numbers {
                // SAFETY: the kernel has just put this descriptor into our table; nobody else knows of it.
                descriptor = Some(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    let count = message.bytes;
    Ok((bytes.get(..count).unwrap_or_default().to_vec(), descriptor))
}
