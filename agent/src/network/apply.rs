//! Sets a [`NetworkPlan`]: finds interfaces by hardware address, then up, addresses, neighbours, and at last routes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::errno::Errno;

use super::{
    ioctl::Control,
    netlink::Netlink,
    plan::{InterfacePlan, NetworkPlan},
};

/// Sets the network of this guest. Blocks for milliseconds.
pub fn apply(plan: &NetworkPlan) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Set {
        what: "opening",
        on: "a socket".to_owned(),
        source,
    };
    let control = Control::open().map_err(failed)?;
    let mut netlink = Netlink::open().map_err(failed)?;
    for interface in &plan.interfaces {
        set_interface(&control, &mut netlink, interface)?;
    }
    for route in &plan.routes {
        // Of two routes to one destination the first counts; the kernel made some with the addresses.
        let added = control
            .index(&route.interface)
            .and_then(|index| netlink.add_route(index, route));
        added.map_err(|source| {
            let to = &route.destination;
            NetworkError::Set {
                what: "adding a route",
                on: format!("{}/{} by {}", to.address, to.prefix, route.interface),
                source,
            }
        })?;
    }
    Ok(())
}

/// Brings `lo` up; the kernel gives it its addresses.
pub fn bring_up_loopback() -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Set {
        what: "bringing up",
        on: "lo".to_owned(),
        source,
    };
    Control::open().and_then(|control| control.up("lo")).map_err(failed)
}

/// Why the network could not be set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No device has the address.
    #[error("no network device has the hardware address {address}")]
    NoDevice {
        /// What was looked for.
        address: String,
    },
    /// The devices could not be listed.
    #[error("listing network devices failed")]
    List(#[source] io::Error),
    /// A file for the C library could not be written.
    #[error("writing {path} failed")]
    File {
        /// Which.
        path: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{what} {on} failed: {}", source.desc())]
    Set {
        /// What was being done.
        what: &'static str,
        /// To what.
        on: String,
        /// What the kernel said.
        source: Errno,
    },
}

fn set_interface(control: &Control, netlink: &mut Netlink, plan: &InterfacePlan) -> Result<(), NetworkError> {
    let name = plan.name.as_str();
    let failed = |what: &'static str| {
        move |source| NetworkError::Set {
            what,
            on: name.to_owned(),
            source,
        }
    };
    let device = find(Path::new("/sys/class/net"), plan.hardware_address)?;
    if device != name {
        control.rename(&device, name).map_err(failed("renaming to"))?;
    }
    // No address by router advertisement and no waiting for duplicates; absent where the kernel has no IPv6.
    for setting in ["accept_ra", "autoconf", "accept_dad"] {
        let _ = fs::write(PathBuf::from("/proc/sys/net/ipv6/conf").join(name).join(setting), "0");
    }
    if let Some(mtu) = plan.mtu {
        control.set_mtu(name, mtu).map_err(failed("setting the MTU of"))?;
    }
    control.up(name).map_err(failed("bringing up"))?;
    let index = control.index(name).map_err(failed("finding"))?;
    for address in &plan.addresses {
        netlink
            .add_address(index, address)
            .map_err(failed("adding an address to"))?;
    }
    for neighbour in &plan.neighbours {
        netlink
            .add_neighbour(index, neighbour)
            .map_err(failed("adding a neighbour to"))?;
    }
    Ok(())
}

/// The device's present name.
fn find(class: &Path, hardware_address: [u8; 6]) -> Result<String, NetworkError> {
    let wanted = hardware_address.map(|byte| format!("{byte:02x}")).join(":");
    for entry in fs::read_dir(class).map_err(NetworkError::List)? {
        let entry = entry.map_err(NetworkError::List)?;
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        if address.trim().eq_ignore_ascii_case(&wanted) {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Err(NetworkError::NoDevice { address: wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_address() {
        let class = tempfile::tempdir().unwrap();
        for (name, address) in [("lo", "00:00:00:00:00:00\n"), ("enp0s2", "02:00:00:00:00:0A\n")] {
            fs::create_dir(class.path().join(name)).unwrap();
            fs::write(class.path().join(name).join("address"), address).unwrap();
        }
        assert_eq!(find(class.path(), [2, 0, 0, 0, 0, 10]).unwrap(), "enp0s2");
        let error = find(class.path(), [2, 0, 0, 0, 0, 11]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no network device has the hardware address 02:00:00:00:00:0b"
        );
    }
}
