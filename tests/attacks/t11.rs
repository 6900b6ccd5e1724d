//! T11: devices that the guest did not ask for. Malformed descriptors of the devices that it has are not tried here.
use anyhow::{Result, ensure};

use crate::attack::{Attack, Ground, On, Open, Seen, Threat};

pub(crate) const THREAT: Threat = Threat {
    number: 11,
    title: "Malicious virtio devices",
    attacks: &[Attack {
        name: "devices_that_nobody_asked_for",
        tried: "balloon, entropy source, console, SCSI and 9p over virtio, NVMe, xHCI and e1000 put into the machine",
        on: On::Machine,
        run: unasked,
    }],
    open: &[Open {
        name: "malformed_descriptors",
        part: "bad descriptors, lengths and config-space races of the three devices that the guest does drive",
        because: "QEMU would have to be changed to send them; the drivers are the kernel's own, hardened upstream, and bounce buffers are not in use without a TEE",
    }],
};

/// Disk, network, vsock, and what carries them.
const KNOWN: &[&str] = &["virtio-pci", "virtio_blk", "virtio_net", "vmw_vsock_virtio_transport"];

fn unasked(g: &Ground) -> Result<Seen> {
    let (stock, ours) = (g.stock()?, g.hostile()?);
    let taken = |names: &[String]| -> Vec<String> {
        names
            .iter()
            .filter(|name| !KNOWN.contains(&name.as_str()))
            .cloned()
            .collect()
    };
    let (theirs, extra) = (taken(&stock.drivers), taken(&ours.drivers));
    ensure!(theirs.len() >= 4, "the usual kernel took only {theirs:?}");
    ensure!(
        ours.virtio >= 8 && ours.pci >= 10,
        "the devices are not on the bus: {ours:?}"
    );
    ensure!(extra.is_empty(), "drivers took {extra:?}");
    ensure!(ours.drivers.iter().any(|name| name == "virtio_net"), "{ours:?}");
    Ok(Seen::new(
        format!("Debian's kernel {} took them: {}", stock.version, theirs.join(", ")),
        format!(
            "of {} PCI and {} virtio devices only those of the guest have a driver: {}",
            ours.pci,
            ours.virtio,
            ours.drivers.join(", ")
        ),
    ))
}
