//! What a VM is connected to, from its launch to its end.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use slog::{Logger, info, warn};
use tokio::time::{Instant, sleep};

use super::launch::LaunchError;
use super::machine::Machine;
use crate::network::{Attachment, Listeners, NetNs, NetNsId, NetworkError, PodNetwork, attach, detach};
use crate::ports::PortForward;
use crate::qemu::{Backend, Nic, TapNetwork, UserNetwork};

/// The guest's NIC on the user-mode network; alone there, so any address does.
pub(crate) const GUEST_MAC: &str = "02:00:00:00:00:01";
/// How long QEMU of a killed shim may hold its tap.
const LEFT_OVER: Duration = Duration::from_secs(3);
/// Between two looks at it.
const RETRY: Duration = Duration::from_millis(20);

/// What a VM is to be connected to.
#[derive(Clone, Debug)]
pub enum GuestNetwork {
    /// QEMU's user-mode network: for containers without a pod network.
    User {
        /// Ports that lead into the guest.
        forwards: Vec<PortForward>,
    },
    /// The interfaces in this namespace.
    Pod(Arc<NetNs>),
}

/// A network that QEMU can be given.
pub(super) struct Plugged {
    pub(super) nics: Vec<Nic>,
    /// What the switches of `nics` name, for QEMU to inherit.
    pub(super) inherited: Vec<OwnedFd>,
    pub(super) network: Option<PodNetwork>,
    pub(super) listeners: Option<Listeners>,
}

/// A namespace that a VM is connected to. Dropped, it is as CNI left it; the VM's QEMU must have ended by then.
#[derive(Debug)]
pub(super) struct Plug {
    id: Option<NetNsId>,
    log: Logger,
}

impl Plug {
    /// The same as dropping it, without blocking the runtime.
    pub(super) async fn pull(self) {
        // The drop runs there; a runtime that shuts down drops the closure, and so the plug, as well.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.id.take().as_ref().map(detach) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            warn!(self.log, "the pod's network namespace is not as it was"; "error" => %error, "cause" => cause);
        }
    }
}

/// Makes the taps in the pod's namespace, or nothing for the user-mode network. What must be undone is noted in the machine
/// and in its state file first.
pub(super) async fn plug_in(
    machine: &mut Machine,
    network: &GuestNetwork,
    log: &Logger,
) -> Result<Plugged, LaunchError> {
    let netns = match network {
        GuestNetwork::User { forwards } => return Ok(user(forwards)),
        GuestNetwork::Pod(netns) => netns,
    };
    machine.run_dir.record_network(netns.id())?;
    machine.plug = Some(Plug {
        id: Some(netns.id().clone()),
        log: log.clone(),
    });
    let deadline = Instant::now() + LEFT_OVER;
    let attachment = loop {
        let (netns, its_log) = (netns.clone(), log.clone());
        let attached = tokio::task::spawn_blocking(move || attach(&netns, &its_log));
        match attached.await.unwrap_or(Err(NetworkError::Thread)) {
            Err(NetworkError::InUse { .. }) if Instant::now() < deadline => sleep(RETRY).await,
            other => break other?,
        }
    };
    for interface in &attachment.network.interfaces {
        info!(log, "the guest gets an interface of the pod's"; "interface" => &interface.name, "mac" => %interface.mac,
            "mtu" => interface.mtu, "addresses" => joined(&interface.addresses));
    }
    Ok(pod(attachment))
}

fn user(forwards: &[PortForward]) -> Plugged {
    let nic = Nic {
        number: 0,
        backend: Backend::User(UserNetwork {
            forwards: forwards.to_vec(),
        }),
        mac: GUEST_MAC.into(),
    };
    Plugged {
        nics: vec![nic],
        inherited: Vec::new(),
        network: None,
        listeners: None,
    }
}

fn pod(attachment: Attachment) -> Plugged {
    let (mut nics, mut inherited) = (Vec::new(), Vec::new());
    for (number, card) in attachment.cards.into_iter().enumerate() {
        nics.push(Nic {
            number,
            backend: Backend::Tap(TapNetwork {
                tap: card.tap.as_raw_fd(),
                vhost: card.vhost.as_ref().map(AsRawFd::as_raw_fd),
            }),
            mac: card.mac.to_string(),
        });
        inherited.push(card.tap);
        inherited.extend(card.vhost);
    }
    Plugged {
        nics,
        inherited,
        network: Some(attachment.network),
        listeners: attachment.listeners,
    }
}

fn joined(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
