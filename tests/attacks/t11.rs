//! T11: devices that the guest did not ask for, and one of its own that lies about the buffers that it has used.
use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use cella_tests::{attacker, process::wait_until};

use crate::{
    attack::{Attack, Ground, On, Open, Seen, Threat},
    hardware::Monitor,
    memory::{Liar, Lie},
};

pub(crate) const THREAT: Threat = Threat {
    number: 11,
    title: "Malicious virtio devices",
    attacks: &[
        Attack {
            name: "devices_that_nobody_asked_for",
            tried: "balloon, entropy source, console, SCSI and 9p over virtio, NVMe, xHCI and e1000 put into the machine",
            on: On::Machine,
            run: unasked,
        },
        Attack {
            name: "buffers_that_were_never_given",
            tried: "the network device returns buffers that the guest's driver never gave it, for each packet that comes",
            on: On::Machine,
            run: |g| lied_to(g, Lie::Id),
        },
        Attack {
            name: "buffers_longer_than_they_are",
            tried: "the network device claims to have written 4 GiB to each buffer",
            on: On::Machine,
            run: |g| lied_to(g, Lie::Length),
        },
    ],
    open: &[Open {
        name: "configuration_that_changes",
        part: "races in the configuration space of the guest's devices, and lies of its disk and vsock",
        because: "QEMU would have to be changed for them; the drivers are the kernel's own, hardened upstream, and bounce buffers are not in use without a TEE",
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

/// Whether the network answers, and how many packets the driver found too long, about once a second.
///
/// `nc` itself limits only the time to connect: a connection whose end is lied about would never end.
fn probe(registry: &str) -> Result<String> {
    let (_, port) = registry.rsplit_once(':').context("the registry's port")?;
    Ok(format!(
        "while :; do if timeout 4 nc -w 2 10.0.2.2 {port} < /dev/null > /dev/null 2>&1; \
         then echo @NET up; else echo @NET down; fi; \
         echo @LONG $(cat /sys/class/net/eth0/statistics/rx_length_errors); sleep 1; done"
    ))
}

fn lied_to(g: &Ground, lie: Lie) -> Result<Seen> {
    let f = g.fixture()?;
    let line = probe(f.stack.var("REGISTRY"))?;
    let socket = f.stack.path(&f.stack.fresh("monitor"));
    let wrapper = attacker::qemu_wrapper(
        &f.stack,
        &format!(
            "exec \"$QEMU\" \"$@\" -chardev socket,id=evilmonitor,path={},server=on,wait=off -mon chardev=evilmonitor,mode=control",
            socket.display()
        ),
    )?;
    let policy = f.allowed(&f.shell(&line).container("[network]\negress = \"any\"\n"))?;
    let run = f
        .start(&policy, &line)
        .configured(&f.stack, &[("qemu", &format!("{wrapper:?}"))])?;
    let output = f.stack.path(&f.stack.fresh("lied-output"));
    let mut ctr = run.spawn(&f.stack, &output)?;
    let said = || fs::read_to_string(&output).unwrap_or_default();
    let of = |what: &str| -> Vec<String> {
        let text = said();
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix(what));
        lines.map(|rest| rest.trim().to_owned()).collect()
    };
    let mut wait = |what: &str, seen: &dyn Fn() -> bool| {
        wait_until(Duration::from_secs(120), || {
            ensure!(ctr.try_wait()?.is_none(), "the pod ended: {}", said());
            Ok(seen().then_some(()))
        })
        .with_context(|| format!("waiting until {what}: {}", said()))
    };
    let answers = |state: &str| of("@NET").iter().rev().take_while(|line| *line == state).count();
    let long = || {
        of("@LONG")
            .last()
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    wait("the network answers", &|| answers("up") >= 2)?;
    let liar = Liar::of_network(f, &mut Monitor::connect(&socket)?, lie)?;
    let seen = match lie {
        Lie::Id => wait("it does not any more", &|| answers("down") >= 2),
        Lie::Length => wait("packets are too long", &|| long() > 0),
    };
    let lies = liar.stop()?;
    seen?;
    let after = of("@NET").len();
    let refusal = match lie {
        Lie::Id => {
            wait("the container has gone on", &|| of("@NET").len() > after + 2)?;
            ensure!(answers("down") > 2, "the queue is in use again: {}", said());
            "the driver gives the queue up at the first of them: no packet comes any more, the container runs on"
        }
        Lie::Length => {
            wait("the network answers again", &|| {
                of("@NET").len() > after + 1 && answers("up") >= 1
            })?;
            "the driver drops such packets; once the device tells the truth the network answers again"
        }
    };
    let refusal = format!("{lies} lies, {} packets found too long: {refusal}", long());
    run.remove(&f.stack)?;
    ctr.wait()?;
    Ok(Seen::new(
        "before the lies the network answered the same container",
        refusal,
    ))
}
