//! T14: memory that the host takes from the guest, or plugs into it, while it runs.
use anyhow::{Result, ensure};

use crate::attack::{Attack, Ground, On, Seen, Threat};

pub(crate) const THREAT: Threat = Threat {
    number: 14,
    title: "Ballooning, hot-plug, free-page hints",
    attacks: &[
        Attack {
            name: "a_balloon_blown_up",
            tried: "QMP `balloon` asks the guest for half of its memory",
            on: On::Machine,
            run: balloon,
        },
        Attack {
            name: "memory_plugged_in",
            tried: "QMP `device_add pc-dimm` plugs 128 MiB in while the pod runs",
            on: On::Machine,
            run: hot_plug,
        },
    ],
    open: &[],
};

fn balloon(g: &Ground) -> Result<Seen> {
    let (stock, ours) = (g.stock()?, g.hostile()?);
    let (asked, left) = ours.balloon_mib;
    ensure!(stock.balloon_mib <= 260, "{stock:?}");
    ensure!(left == 1024, "the guest gave memory: {ours:?}");
    Ok(Seen::new(
        format!(
            "Debian's kernel {} gave up all but {} of 512 MiB",
            stock.version, stock.balloon_mib
        ),
        format!("asked to keep {asked} MiB the guest kept {left}: QMP query-balloon"),
    ))
}

fn hot_plug(g: &Ground) -> Result<Seen> {
    let (stock, ours) = (g.stock()?, g.hostile()?);
    let (before, after) = stock.memory_mib;
    ensure!(after > before + 64, "{stock:?}");
    let (ours_before, ours_after) = ours.memory_mib;
    ensure!(ours_before == ours_after, "the guest took memory: {ours:?}");
    Ok(Seen::new(
        format!(
            "Debian's kernel {} brought it online: {before} MiB before, {after} MiB after",
            stock.version
        ),
        format!("MemTotal stayed {ours_after} MiB"),
    ))
}
