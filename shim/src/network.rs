//! The pod's network: from the namespace that CNI made to the guest's NIC, and back for `crictl port-forward`.
//!
//! ```text
//!   node ── veth ─┐ pod's network namespace                            ┌─ guest
//!                 └▶ eth0 ──ingress, u32 match all, mirred redirect──▶ cella0 (tap) ──QEMU──▶ eth0, same MAC, addresses, MTU
//!                    eth0 ◀──mirred redirect, u32 match all, ingress── cella0
//!                    lo: TCP to any port ──nftables redirect──▶ the shim's listener ──vsock 1026──▶ agent ──▶ pod's loopback
//! ```
//! CNI plugins know nothing of it: `eth0` keeps its address, where nothing answers for it any more. The guest is told what
//! `eth0` was told ([`PodNetwork`]) and checks form only. Any plugin that leaves an Ethernet interface in the namespace works.
//!
//! Everything is done by netlink, on a thread that is moved into the namespace and ends afterwards ([`NetNs`]),
//! since `setns` is per thread and the async runtime's threads are shared.
//!
//! # What is left when something dies
//!
//! The tap is not persistent: it goes with its last descriptor, which QEMU holds, and QEMU goes with the shim. The nftables
//! table is owned by a socket of the shim's and goes with it. What can stay is the ingress qdisc of `eth0`; [`detach()`] removes
//! it, from the shim or from `delete`, and [`attach()`] replaces what an earlier shim left. The namespace itself is CNI's.

mod attach;
mod error;
mod forward;
mod layout;
mod link;
mod nat;
mod netlink;
mod netns;
mod tap;
mod tc;

pub use attach::{Attachment, Card, attach, detach};
pub use error::NetworkError;
pub use forward::{Forwarder, Listeners};
pub use layout::{Interface, Mac, PodNetwork, Prefix, Route};
pub use netns::{NetNs, NetNsId};
