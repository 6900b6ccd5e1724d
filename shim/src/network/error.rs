//! What can go wrong with a pod's network on the host.

use std::io;
use std::path::PathBuf;

use super::netlink::NetlinkError;

/// A network that cannot be given to the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The pod asks for the node's own network.
    #[error(
        "the pod asks for the host's network (hostNetwork: true): a confidential guest has a network of its own; \
         remove hostNetwork, and reach the pod by a Service or a hostPort"
    )]
    HostNetwork,
    /// The path leads to the node's own network.
    #[error("{path} is the host's own network namespace, which no guest may have; the pod needs one of its own")]
    HostNamespace {
        /// The path in the bundle.
        path: PathBuf,
    },
    /// The path leads to something else.
    #[error("{path} is not a network namespace")]
    NotANamespace {
        /// The path in the bundle.
        path: PathBuf,
    },
    /// The path leads nowhere, or its namespace cannot be entered.
    #[error("cannot {action} the pod's network namespace {path}")]
    Namespace {
        /// "open", "enter".
        action: &'static str,
        /// The path in the bundle.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No thread, or it panicked.
    #[error("the thread that works in the pod's network namespace did not do its work")]
    Thread,
    /// The kernel says no.
    #[error("setting up interface {interface:?} of the pod's network")]
    Interface {
        /// Which.
        interface: String,
        /// Why not.
        #[source]
        source: NetlinkError,
    },
    /// The kernel cannot redirect packets.
    #[error(
        "interface {interface:?}: packets cannot be redirected to the guest; \
         the node's kernel needs sch_ingress, cls_u32 and act_mirred (modprobe them)"
    )]
    Redirect {
        /// Which.
        interface: String,
        /// Why not.
        #[source]
        source: NetlinkError,
    },
    /// The kernel says no.
    #[error("reading or changing the pod's network")]
    Netlink(#[from] NetlinkError),
    /// The kernel cannot redirect connections.
    #[error(
        "connections to the pod's loopback cannot be forwarded; \
         the node's kernel needs nf_tables, nft_chain_nat and nft_redir (modprobe them)"
    )]
    Forwarding {
        /// Why not.
        #[source]
        source: NetlinkError,
    },
    /// A listener on the pod's loopback.
    #[error("cannot listen on the pod's loopback")]
    Listen(#[source] io::Error),
    /// A tap.
    #[error("cannot {action} for interface {interface:?}; the node's kernel needs tun (modprobe tun)")]
    Tap {
        /// "open /dev/net/tun", "make a tap".
        action: &'static str,
        /// The pod's interface.
        interface: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nothing to connect the guest to.
    #[error("{path} has no Ethernet interface that is up besides lo: the CNI plugin has made none")]
    NoInterface {
        /// The path in the bundle.
        path: PathBuf,
    },
    /// More than one pod has.
    #[error("the pod's network has more than {limit} {what}")]
    TooMany {
        /// "interfaces", "addresses", …
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// Somebody else's packet filter stands where the redirect must.
    #[error("interface {interface:?} has a {what} that is not Cella's; packets to the guest would go past it")]
    Foreign {
        /// Which.
        interface: String,
        /// "clsact qdisc", "filter on its ingress qdisc".
        what: &'static str,
    },
    /// Another VM is connected to it.
    #[error("interface {interface:?} belongs to another virtual machine that still runs ({tap} is in use)")]
    InUse {
        /// Which.
        interface: String,
        /// The other's tap.
        tap: String,
    },
}
