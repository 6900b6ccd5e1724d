//! Devices of the kernel.

use super::facts::Facts;
use super::host::Host;
use super::{Check, Finding};

/// The way to the guest's agent.
pub(super) struct Vsock;

impl Check for Vsock {
    fn name(&self) -> &'static str {
        "vsock"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        if facts.wants_hardware() {
            return match host.opens("/dev/vhost-vsock") {
                Ok(()) => Finding::ok("/dev/vhost-vsock opens"),
                Err(error) => Finding::failed(
                    format!("/dev/vhost-vsock does not open ({error})"),
                    "load the module vhost_vsock (a confidential guest cannot use another)",
                ),
            };
        }
        let path = facts.path("vhost-device-vsock", "/usr/bin/vhost-device-vsock");
        match host.ask(&path, &["--version"]) {
            Ok(answer) if answer.succeeded => Finding::ok(answer.text.trim().to_owned()),
            Ok(_) | Err(_) => Finding::failed(
                format!("{} does not run", path.display()),
                "install vhost-device-vsock 0.3, or set vhost-device-vsock to its path",
            ),
        }
    }
}

/// Network devices for guests.
pub(super) struct Tun;

impl Check for Tun {
    fn name(&self) -> &'static str {
        "tun"
    }

    fn run(&self, host: &Host, _: &Facts) -> Finding {
        match host.opens("/dev/net/tun") {
            Ok(()) => Finding::ok("/dev/net/tun opens"),
            Err(error) => Finding::failed(
                format!("/dev/net/tun does not open ({error})"),
                "load the module tun; without it a pod has no CNI network",
            ),
        }
    }
}

/// The fast path for packets.
pub(super) struct VhostNet;

impl Check for VhostNet {
    fn name(&self) -> &'static str {
        "vhost-net"
    }

    fn run(&self, host: &Host, _: &Facts) -> Finding {
        match host.opens("/dev/vhost-net") {
            Ok(()) => Finding::ok("/dev/vhost-net opens"),
            Err(error) => Finding::warning(
                format!("/dev/vhost-net does not open ({error}): packets take the way through QEMU"),
                "load the module vhost_net",
            ),
        }
    }
}
