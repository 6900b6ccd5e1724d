//! T12: an ACPI table that is a program.
use anyhow::{Result, ensure};

use crate::attack::{Attack, Ground, On, Seen, Threat};

pub(crate) const THREAT: Threat = Threat {
    number: 12,
    title: "ACPI and AML",
    attacks: &[Attack {
        name: "a_table_that_writes_to_memory",
        tried: "an SSDT (`-acpitable`) whose code, when it is loaded, writes to an I/O port and to the guest's memory",
        on: On::Machine,
        run: table,
    }],
    open: &[],
};

fn table(g: &Ground) -> Result<Seen> {
    let (stock, ours) = (g.stock()?, g.hostile()?);
    ensure!(stock.table_ran == (true, true), "the table does not work: {stock:?}");
    ensure!(
        ours.table_ran == (false, false),
        "the guest ran the host's table: {ours:?}"
    );
    Ok(Seen::new(
        format!(
            "Debian's kernel {} ran it: the byte came out of the port, and stood in memory",
            stock.version
        ),
        "the pod ran, nothing came out of the port, the memory was as it was",
    ))
}
