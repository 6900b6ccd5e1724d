//! Devices: NICs, one vsock, one read-only disk. All modern virtio; the guest has drivers for nothing else.

use std::os::fd::RawFd;

use super::Switch;
use super::opts::Opts;
use crate::ports::PortForward;
use crate::vsock::GuestCid;

/// The guest's address in QEMU's user-mode network.
pub(crate) const USER_NET_GUEST: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 0, 2, 15);

/// The vsock device.
#[derive(Clone, Debug)]
pub enum Vsock {
    /// `vhost-user-vsock-pci`: a program on the Unix socket at this path; needs shared guest memory.
    VhostUser {
        /// The backend's socket.
        socket: String,
    },
    /// `vhost-vsock-pci`: the host kernel; what a confidential guest needs.
    Vhost {
        /// The guest's address, unique on the host.
        cid: GuestCid,
    },
}

/// `-netdev user`: the guest reaches the host's network, the host reaches the guest through the forwards only.
#[derive(Clone, Debug)]
pub struct UserNetwork {
    /// Loopback ports that lead into the guest.
    pub forwards: Vec<PortForward>,
}

/// `-netdev tap`: packets to and from a tap in the pod's network namespace, by descriptors that QEMU inherits.
#[derive(Clone, Debug)]
pub struct TapNetwork {
    /// The tap.
    pub tap: RawFd,
    /// `/dev/vhost-net`, where the host has it.
    pub vhost: Option<RawFd>,
}

/// What is behind a NIC.
#[derive(Clone, Debug)]
pub enum Backend {
    /// Without a pod network.
    User(UserNetwork),
    /// One interface of the pod's.
    Tap(TapNetwork),
}

/// A NIC and what is behind it. No option ROM: the firmware never boots from it.
#[derive(Clone, Debug)]
pub struct Nic {
    /// Counts from 0: the order in which the guest finds them.
    pub number: usize,
    /// What is behind it.
    pub backend: Backend,
    /// Its hardware address.
    pub mac: String,
}

/// A read-only virtio disk, found in the guest by its serial number.
#[derive(Clone, Debug)]
pub struct DiskDrive {
    /// The raw image.
    pub path: String,
    /// At most 20 characters.
    pub serial: &'static str,
}

impl Switch for Vsock {
    fn render(&self, line: &mut Vec<String>) {
        match self {
            Self::VhostUser { socket } => {
                let chardev = Opts::of("socket").with("id", "vsock0").with("path", socket);
                let device = Opts::of("vhost-user-vsock-pci").with("chardev", "vsock0");
                line.extend([
                    "-chardev".into(),
                    chardev.into_string(),
                    "-device".into(),
                    device.into_string(),
                ]);
            }
            Self::Vhost { cid } => {
                let device = Opts::of("vhost-vsock-pci").with("guest-cid", cid);
                line.extend(["-device".into(), device.into_string()]);
            }
        }
    }
}

impl UserNetwork {
    fn opts(&self, id: &str) -> Opts {
        let mut opts = Opts::of("user").with("id", id).with("ipv6", "off");
        for forward in &self.forwards {
            let PortForward {
                host,
                host_port,
                guest_port,
            } = forward;
            opts = opts.with(
                "hostfwd",
                format!("tcp:{host}:{host_port}-{USER_NET_GUEST}:{guest_port}"),
            );
        }
        opts
    }
}

impl TapNetwork {
    fn opts(&self, id: &str) -> Opts {
        let opts = Opts::of("tap").with("id", id).with("fd", self.tap);
        match self.vhost {
            Some(vhost) => opts.with("vhost", "on").with("vhostfd", vhost),
            None => opts.with("vhost", "off"),
        }
    }
}

impl Switch for Nic {
    fn render(&self, line: &mut Vec<String>) {
        let id = format!("net{}", self.number);
        let backend = match &self.backend {
            Backend::User(user) => user.opts(&id),
            Backend::Tap(tap) => tap.opts(&id),
        };
        let device = Opts::of("virtio-net-pci")
            .with("netdev", &id)
            .with("mac", &self.mac)
            .with("disable-legacy", "on")
            .with("romfile", "");
        line.extend([
            "-netdev".into(),
            backend.into_string(),
            "-device".into(),
            device.into_string(),
        ]);
    }
}

impl Switch for DiskDrive {
    fn render(&self, line: &mut Vec<String>) {
        let node = format!("{}0", self.serial);
        let blockdev = Opts::of("file")
            .with("node-name", &node)
            .with("filename", &self.path)
            .with("read-only", "on");
        let device = Opts::of("virtio-blk-pci")
            .with("drive", &node)
            .with("serial", self.serial)
            .with("disable-legacy", "on");
        line.extend([
            "-blockdev".into(),
            blockdev.into_string(),
            "-device".into(),
            device.into_string(),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::rendered;
    use super::*;

    #[test]
    fn vsock_strings() {
        let user = Vsock::VhostUser {
            socket: "/run/c,d/vhost.sock".into(),
        };
        let expected =
            "-chardev socket,id=vsock0,path=/run/c,,d/vhost.sock -device vhost-user-vsock-pci,chardev=vsock0";
        assert_eq!(rendered(&user), expected);
        let kernel = Vsock::Vhost {
            cid: GuestCid::new(77).unwrap(),
        };
        assert_eq!(rendered(&kernel), "-device vhost-vsock-pci,guest-cid=77");
    }

    #[test]
    fn network_strings() {
        let nic = |number, backend| {
            rendered(&Nic {
                number,
                backend,
                mac: "02:00:00:00:00:01".into(),
            })
        };
        let device =
            |id| format!("-device virtio-net-pci,netdev={id},mac=02:00:00:00:00:01,disable-legacy=on,romfile=");
        assert_eq!(
            nic(0, Backend::User(UserNetwork { forwards: vec![] })),
            format!("-netdev user,id=net0,ipv6=off {}", device("net0"))
        );
        let forwards = vec![PortForward {
            host: Ipv4Addr::LOCALHOST,
            host_port: 18080,
            guest_port: 8080,
        }];
        let expected = "-netdev user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:18080-10.0.2.15:8080";
        assert_eq!(
            nic(0, Backend::User(UserNetwork { forwards })),
            format!("{expected} {}", device("net0"))
        );
        let tap = TapNetwork { tap: 33, vhost: None };
        assert_eq!(
            nic(0, Backend::Tap(tap)),
            format!("-netdev tap,id=net0,fd=33,vhost=off {}", device("net0"))
        );
        let tap = TapNetwork {
            tap: 34,
            vhost: Some(35),
        };
        assert_eq!(
            nic(1, Backend::Tap(tap)),
            format!("-netdev tap,id=net1,fd=34,vhost=on,vhostfd=35 {}", device("net1"))
        );
    }

    #[test]
    fn disk_strings() {
        let disk = DiskDrive {
            path: "/run/x/initdata.img".into(),
            serial: "initdata",
        };
        let expected = "-blockdev file,node-name=initdata0,filename=/run/x/initdata.img,read-only=on \
                        -device virtio-blk-pci,drive=initdata0,serial=initdata,disable-legacy=on";
        assert_eq!(rendered(&disk), expected);
    }
}
