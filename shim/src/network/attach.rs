//! Connecting a guest to the interfaces of a namespace, and undoing it.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};
use slog::{Logger, warn};

use super::error::NetworkError;
use super::forward::Listeners;
use super::layout::{Mac, PodNetwork};
use super::link::{self, Link};
use super::netlink::{Netlink, NetlinkError};
use super::netns::{NetNs, NetNsId};
use super::{nat, tap, tc};

/// Most interfaces of one pod: more cards have no place on the machine's bus.
const MAX_INTERFACES: usize = 8;
/// What our taps are called, with a number: the first interface's is `cella0`.
const TAP: &str = "cella";
/// How long a tap may outlive its QEMU.
const TAP_LINGERS: Duration = Duration::from_secs(2);
/// Between two looks at it.
const RETRY: Duration = Duration::from_millis(10);

/// One NIC of the guest.
#[derive(Debug)]
pub struct Card {
    /// The tap, for QEMU alone: it exists as long as somebody holds it.
    pub tap: OwnedFd,
    /// `/dev/vhost-net`, where the kernel has it: packets then pass QEMU by.
    pub vhost: Option<OwnedFd>,
    /// The hardware address of the pod's interface.
    pub mac: Mac,
}

/// A namespace that is connected to a guest which is not there yet.
#[derive(Debug)]
pub struct Attachment {
    /// In the order of [`PodNetwork::interfaces`].
    pub cards: Vec<Card>,
    /// What the guest is told.
    pub network: PodNetwork,
    /// For port forwards; none where the kernel has no nftables.
    pub listeners: Option<Listeners>,
}

/// Connects every interface of `netns` to a tap of its own. Blocking, some milliseconds. What a killed shim left is replaced;
/// after an error nothing is left. The caller sees to [`detach`].
///
/// # Errors
/// See [`NetworkError`]. [`NetworkError::InUse`] may pass: QEMU of a killed shim takes a moment to end.
pub fn attach(netns: &NetNs, log: &Logger) -> Result<Attachment, NetworkError> {
    netns.run(|| {
        let mut netlink = Netlink::route()?;
        let all = link::links(&mut netlink)?;
        let links: Vec<Link> = all
            .iter()
            .filter(|l| l.is_for_guest() && !is_ours(l))
            .cloned()
            .collect();
        if links.is_empty() {
            let path = netns.id().path.clone();
            return Err(NetworkError::NoInterface { path });
        }
        if links.len() > MAX_INTERFACES {
            return Err(NetworkError::TooMany {
                what: "interfaces",
                limit: MAX_INTERFACES,
            });
        }
        // Before anything is changed: may it be, and does nobody else have it?
        let network = PodNetwork::read(&mut netlink, &links)?;
        let mut taps = Vec::new();
        for (number, link) in links.iter().enumerate() {
            taps.push(prepare(&mut netlink, link, &format!("{TAP}{number}"))?);
        }
        let connected = links
            .iter()
            .enumerate()
            .try_for_each(|(number, link)| cross(&mut netlink, link, &format!("{TAP}{number}")));
        if let Err(error) = connected {
            drop(taps);
            let _ = disconnect(&mut netlink);
            return Err(error);
        }
        if let Some(loopback) = all.iter().find(|link| link.is_loopback() && !link.is_up()) {
            link::set_up(&mut netlink, loopback.index, None)?;
        }
        let listeners = Listeners::open()
            .inspect_err(|error| {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                warn!(log, "no port forwards for this pod"; "error" => %error, "cause" => cause);
            })
            .ok();
        let cards = taps.into_iter().zip(&network.interfaces);
        let cards = cards
            .map(|(tap, interface)| Card {
                tap,
                vhost: open_vhost(),
                mac: interface.mac,
            })
            .collect();
        Ok(Attachment {
            cards,
            network,
            listeners,
        })
    })
}

/// Removes what [`attach`] made, whoever ran it, once its VM has ended. Blocking; may be repeated. A namespace that is gone,
/// another one at its path, or one that another VM is connected to, is left alone.
///
/// # Errors
/// The namespace is there and the kernel does not do it.
pub fn detach(id: &NetNsId) -> Result<(), NetworkError> {
    let Some(netns) = NetNs::find(id)? else {
        return Ok(());
    };
    netns.run(|| {
        let mut netlink = Netlink::route()?;
        let end = Instant::now() + TAP_LINGERS;
        // QEMU polls its taps with io_uring, and the kernel lets go of what a ring held a moment after the process has ended.
        while !disconnect(&mut netlink)? && Instant::now() < end {
            std::thread::park_timeout(RETRY);
        }
        Ok(())
    })
}

/// Makes the tap for `link`, after a look at whether anything stands in the way.
fn prepare(netlink: &mut Netlink, link: &Link, name: &str) -> Result<OwnedFd, NetworkError> {
    let interface = || link.name.clone();
    let failed = |source| NetworkError::Interface {
        interface: interface(),
        source,
    };
    if let tc::Ingress::Foreign(what) = tc::ingress(netlink, link.index).map_err(failed)? {
        return Err(NetworkError::Foreign {
            interface: interface(),
            what,
        });
    }
    let driver = tap::open().map_err(|source| NetworkError::Tap {
        action: "open /dev/net/tun",
        interface: interface(),
        source,
    })?;
    tap::make(&driver, name).map_err(|source| {
        if source.kind() == std::io::ErrorKind::ResourceBusy {
            return NetworkError::InUse {
                interface: interface(),
                tap: name.to_owned(),
            };
        }
        NetworkError::Tap {
            action: "make a tap",
            interface: interface(),
            source,
        }
    })?;
    Ok(driver)
}

/// Crosses `link` and its tap: what comes in at one goes out at the other.
fn cross(netlink: &mut Netlink, link: &Link, tap: &str) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Interface {
        interface: link.name.clone(),
        source,
    };
    let index = index_of(netlink, tap).map_err(failed)?;
    for end in [link.index, index] {
        tc::remove(netlink, end).map_err(failed)?;
    }
    let _ = link::silence(netlink, index);
    link::set_up(netlink, index, Some(link.mtu)).map_err(failed)?;
    for (from, to) in [(link.index, index), (index, link.index)] {
        tc::redirect(netlink, from, to).map_err(|source| NetworkError::Redirect {
            interface: link.name.clone(),
            source,
        })?;
    }
    Ok(())
}

fn index_of(netlink: &mut Netlink, name: &str) -> Result<u32, NetlinkError> {
    let links = link::links(netlink)?;
    let found = links.into_iter().find(|link| link.name == name);
    found.map(|link| link.index).ok_or(NetlinkError::Malformed {
        action: "list interfaces",
    })
}

fn disconnect(netlink: &mut Netlink) -> Result<bool, NetworkError> {
    let links = link::links(netlink)?;
    for tap in links.iter().filter(|link| is_ours(link)) {
        // Whoever holds one that was left over ends its life; one that is held belongs to a VM that runs.
        if prepare(netlink, tap, &tap.name).is_err_and(|error| matches!(error, NetworkError::InUse { .. })) {
            return Ok(false);
        }
    }
    for link in links.iter().filter(|link| link.is_for_guest() && !is_ours(link)) {
        let failed = |source| NetworkError::Interface {
            interface: link.name.clone(),
            source,
        };
        if tc::ingress(netlink, link.index).map_err(failed)? == tc::Ingress::Ours {
            tc::remove(netlink, link.index).map_err(failed)?;
        }
    }
    nat::remove(&mut Netlink::netfilter()?)?;
    Ok(true)
}

fn is_ours(link: &Link) -> bool {
    let number = link.name.strip_prefix(TAP).unwrap_or_default();
    link.is_tap && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn open_vhost() -> Option<OwnedFd> {
    openat(CWD, "/dev/vhost-net", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()
}
