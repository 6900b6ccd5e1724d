//! Talking to the kernel: one socket, one request at a time, every answer waited for with a deadline and bounded.

mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink as kernel};

pub(crate) use self::wire::{Attributes, attribute, text, u8_at, u16_at, u32_at};

/// The kernel answers at once; it waits for its own locks only.
const PATIENCE: Duration = Duration::from_secs(10);
/// What one datagram of the kernel's may have; a dump's are at most 32 KiB.
const DATAGRAM: usize = 64 * 1024;
/// Most messages of one dump that are looked at: a pod's namespace has a few dozen links, addresses and routes.
const MAX_DUMP: usize = 8192;
/// How often a dump is repeated that something changed under.
const DUMP_TRIES: usize = 3;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const DUMP_INTERRUPTED: u16 = 0x10;

/// Refuse if it exists already.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// Make it if it does not exist.
pub(crate) const CREATE: u16 = 0x400;

/// A request that the kernel did not grant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// It said no, or nothing.
    #[error("the kernel does not {action}")]
    Refused {
        /// "list interfaces", "add an ingress qdisc", …
        action: &'static str,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// Its answer is too short, or there is no end of them.
    #[error("the kernel's answer to \"{action}\" cannot be read")]
    Malformed {
        /// What was asked.
        action: &'static str,
    },
}

impl NetlinkError {
    /// Whether the thing that was to be removed is not there.
    pub(crate) fn is_absence(&self) -> bool {
        let Self::Refused { source, .. } = self else {
            return false;
        };
        // ENOENT, ENODEV; a qdisc that is not there is EINVAL or ENOENT, by the kernel's age.
        matches!(source.raw_os_error(), Some(2 | 19 | 22))
    }
}

/// A request without its numbers.
pub(crate) struct Request<'a> {
    /// What it is for, in words.
    pub(crate) action: &'static str,
    /// The message's type.
    pub(crate) kind: u16,
    /// Flags besides REQUEST and ACK.
    pub(crate) flags: u16,
    /// The type's fixed part.
    pub(crate) fixed: &'a [u8],
    /// The rest.
    pub(crate) attributes: Attributes,
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    /// None: routing.
    protocol: Option<Protocol>,
    sequence: u32,
}

impl Netlink {
    /// For links, addresses, routes, queueing.
    pub(crate) fn route() -> Result<Self, NetlinkError> {
        // The family's default protocol.
        Self::open(None)
    }

    /// For nftables.
    pub(crate) fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(Some(kernel::NETFILTER))
    }

    /// Has one request done.
    pub(crate) fn done(&mut self, request: Request<'_>) -> Result<(), NetlinkError> {
        self.all_done(vec![request])
    }

    /// Has several requests done that are sent as one (nftables takes or refuses a batch as a whole).
    pub(crate) fn all_done(&mut self, requests: Vec<Request<'_>>) -> Result<(), NetlinkError> {
        let Some(action) = requests.first().map(|request| request.action) else {
            return Ok(());
        };
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        let mut unanswered = 0_usize;
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let answered = self.protocol.is_none() || !is_batch_mark(request.kind);
            unanswered += usize::from(answered);
            let flags = REQUEST | request.flags | if answered { ACK } else { 0 };
            datagram.extend(wire::message(
                request.kind,
                flags,
                self.sequence,
                request.fixed,
                &request.attributes,
            ));
        }
        self.send(action, &datagram)?;
        let ours = first..=self.sequence;
        let mut buffer = vec![0; DATAGRAM];
        while unanswered > 0 {
            for message in wire::messages(self.receive(action, &mut buffer)?) {
                if message.kind != NLMSG_ERROR || !ours.contains(&message.sequence) {
                    continue;
                }
                verdict(action, message.payload)?;
                unanswered = unanswered.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// Lists things: `read` makes something of a message, without its header, or passes it over.
    pub(crate) fn list<T>(
        &mut self,
        request: &Request<'_>,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            if let Some(items) = self.dump(request, &read)? {
                return Ok(items);
            }
        }
        Err(NetlinkError::Malformed { action: request.action })
    }

    /// Nothing if something changed meanwhile.
    fn dump<T>(
        &mut self,
        request: &Request<'_>,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        let action = request.action;
        self.sequence = self.sequence.wrapping_add(1);
        let flags = REQUEST | DUMP | request.flags;
        let bytes = wire::message(request.kind, flags, self.sequence, request.fixed, &request.attributes);
        self.send(action, &bytes)?;
        let (mut items, mut seen, mut interrupted) = (Vec::new(), 0, false);
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let before = seen;
            for message in wire::messages(self.receive(action, &mut buffer)?) {
                seen += 1;
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & DUMP_INTERRUPTED != 0;
                match message.kind {
                    NLMSG_DONE => return Ok((!interrupted).then_some(items)),
                    NLMSG_ERROR => verdict(action, message.payload)?,
                    _ => items.extend(read(message.payload)),
                }
            }
            if seen == before || seen > MAX_DUMP {
                return Err(NetlinkError::Malformed { action });
            }
        }
    }

    fn open(protocol: Option<Protocol>) -> Result<Self, NetlinkError> {
        let opened = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .and_then(|socket| {
                set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
                rustix::net::bind(&socket, &kernel::SocketAddrNetlink::new(0, 0))?;
                Ok(socket)
            });
        let socket = opened.map_err(|source| NetlinkError::Refused {
            action: "open a netlink socket",
            source: source.into(),
        })?;
        Ok(Self {
            socket,
            protocol,
            sequence: 0,
        })
    }

    fn send(&self, action: &'static str, bytes: &[u8]) -> Result<(), NetlinkError> {
        let sent = rustix::net::send(&self.socket, bytes, SendFlags::empty());
        sent.map(drop).map_err(|source| NetlinkError::Refused {
            action,
            source: source.into(),
        })
    }

    fn receive<'b>(&self, action: &'static str, buffer: &'b mut [u8]) -> Result<&'b [u8], NetlinkError> {
        let received = rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty());
        let (length, _) = received.map_err(|source| NetlinkError::Refused {
            action,
            source: source.into(),
        })?;
        buffer.get(..length).ok_or(NetlinkError::Malformed { action })
    }
}

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`, which netfilter answers only if they are wrong.
fn is_batch_mark(kind: u16) -> bool {
    matches!(kind, 0x10 | 0x11)
}

/// The number in an NLMSG_ERROR: 0 or a negative errno.
fn verdict(action: &'static str, payload: &[u8]) -> Result<(), NetlinkError> {
    let number = u32_at(payload, 0)
        .ok_or(NetlinkError::Malformed { action })?
        .cast_signed();
    if number == 0 {
        return Ok(());
    }
    Err(NetlinkError::Refused {
        action,
        source: io::Error::from_raw_os_error(number.wrapping_neg()),
    })
}
