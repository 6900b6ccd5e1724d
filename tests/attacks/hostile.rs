//! A pod of Cella's on the hostile hardware: one boot, of which T11, T12, T14 and T15 each look at their part.
use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use cella_tests::{Fixture, process::wait_until};

use crate::hardware::Hardware;

/// What Cella's guest did.
#[derive(Debug, Clone)]
pub(crate) struct Hostile {
    /// PCI devices on its bus.
    pub(crate) pci: usize,
    /// Virtio devices on its bus, and drivers that took one of any kind.
    pub(crate) virtio: usize,
    /// Drivers that took a device.
    pub(crate) drivers: Vec<String>,
    /// The table wrote to the port, and to memory.
    pub(crate) table_ran: (bool, bool),
    /// MiB that the balloon was asked to leave, and has left.
    pub(crate) balloon_mib: (u64, u64),
    /// MiB of memory before and after.
    pub(crate) memory_mib: (u64, u64),
    /// What it says of swap, core dumps and kexec.
    pub(crate) leftovers: Vec<String>,
}

const PROBE: &str = "echo @PCI $(ls /sys/bus/pci/devices | wc -l); echo @VIRTIO $(ls /sys/bus/virtio/devices | wc -l); \
    for d in /sys/bus/pci/devices/*/driver /sys/bus/virtio/devices/*/driver; do [ -e $d ] && echo @DRIVER $(basename $(readlink -f $d)); done; \
    dd if=/dev/zero of=/tmp/swap bs=1M count=4 2>/dev/null; mkswap /tmp/swap >/dev/null; swapon /tmp/swap && echo @LEFT swap; [ -s /proc/swaps ] && echo @LEFT swap; \
    cd /tmp; ulimit -c unlimited; sh -c 'kill -SEGV $$'; ls | grep -q core && echo @LEFT a core dump; \
    [ -e /proc/sys/kernel/core_pattern ] && echo @LEFT core dumps; [ -e /sys/kernel/kexec_loaded ] && echo @LEFT kexec; \
    [ -e /sys/power/disk ] && echo @LEFT hibernation; echo @READY; \
    while :; do awk '/MemTotal/ { print \"@TOTAL\", int($2 / 1024) }' /proc/meminfo; sleep 1; done";

/// In a container that may do what root may, so that it is the kernel that refuses.
const POWERS: &str = "readonly-rootfs = false\ncapabilities = \"any\"\nseccomp = \"any\"\nmasked-paths = \"any\"\nrlimits = \"any\"\n\
    [[container.tmpfs]]\ndestination = \"/tmp\"\nsize-mib = 16\n";
/// What the host asks for then.
const FLAGS: &[&str] = &[
    "--cap-add",
    "CAP_SYS_ADMIN",
    "--cap-add",
    "CAP_SYS_RESOURCE",
    "--cap-add",
    "CAP_SYS_BOOT",
];

/// Boots it, plays with balloon and memory, and ends it.
pub(crate) fn run(f: &Fixture) -> Result<Hostile> {
    let hardware = Hardware::new(f)?;
    let policy = f.allowed(&f.shell(PROBE).container(POWERS))?;
    let qemu = format!("{:?}", hardware.wrapper(f)?);
    let run = f
        .start(&policy, PROBE)
        .flags(FLAGS)
        .configured(&f.stack, &[("qemu", &qemu)])?;
    let output = f.stack.path(&f.stack.fresh("hostile-output"));
    let mut ctr = run.spawn(&f.stack, &output)?;
    let all = |what: &str| -> Vec<String> {
        let text = String::from_utf8_lossy(&fs::read(&output).unwrap_or_default()).into_owned();
        text.lines()
            .filter_map(|line| line.trim().strip_prefix(what)?.strip_prefix(' ').map(str::to_owned))
            .collect()
    };
    let total = || all("@TOTAL").last().and_then(|text| text.parse::<u64>().ok());
    wait_until(Duration::from_secs(120), || {
        ensure!(
            ctr.try_wait()?.is_none(),
            "{}",
            fs::read_to_string(&output).unwrap_or_default()
        );
        Ok(total().map(drop))
    })?;
    let before = total().context("memory")?;
    let mut monitor = hardware.monitor()?;
    let asked = 512;
    monitor.squeeze(asked)?;
    // Five more lines of the guest's: more time than the usual kernel needed.
    let lines = all("@TOTAL").len();
    wait_until(Duration::from_secs(60), || {
        Ok((all("@TOTAL").len() > lines + 5).then_some(()))
    })?;
    let left = monitor.balloon_mib()?;
    monitor.plug(128)?;
    let lines = all("@TOTAL").len();
    wait_until(Duration::from_secs(60), || {
        Ok((all("@TOTAL").len() > lines + 5).then_some(()))
    })?;
    let memory = monitor.table_wrote_memory()?;
    let number = |what: &str| {
        all(what)
            .first()
            .and_then(|text| text.parse().ok())
            .with_context(|| what.to_owned())
    };
    let mut drivers = all("@DRIVER");
    drivers.sort();
    drivers.dedup();
    let seen = Hostile {
        pci: number("@PCI")?,
        virtio: number("@VIRTIO")?,
        drivers,
        table_ran: (hardware.port().contains(&b'!'), memory),
        balloon_mib: (asked, left),
        memory_mib: (before, total().context("memory")?),
        leftovers: all("@LEFT"),
    };
    run.remove(&f.stack)?;
    ctr.wait()?;
    Ok(seen)
}
