//! QEMU's command line: one struct for each switch, each rendering exact strings.
//!
//! A [`Switch`] knows its own syntax: most take `key=value,…` options, where a comma inside a value is doubled ([`opts`]);
//! `-kernel`, `-initrd`, `-append`, `-bios`, `-pidfile` and `-L` take their argument raw, and are rendered raw, so that what
//! the simulated platform reads from `/proc/<pid>/cmdline` is what QEMU was given. [`Launch`] puts the switches of a profile
//! together. Nothing from an annotation reaches the line but port numbers and digests.

mod boot;
mod compute;
mod devices;
mod host;
mod launch;
pub mod opts;
mod tee;

pub use boot::{Append, Bios, DataDir, HashTableLoader, Initrd, Kernel};
pub use compute::{Accelerator, Cpu, Machine, Memory, Smp};
#[cfg(test)]
pub(crate) use devices::USER_NET_GUEST;
pub use devices::{Backend, DiskDrive, Nic, TapNetwork, UserNetwork, Vsock};
pub use host::{Fixed, MonitorSocket, Name, PidFile, Sandbox, SerialSocket};
pub use launch::{Launch, Profile};
pub use tee::{SevSnpGuest, SimulatedTdxGuest, TdxGuest, TeeObject};

/// One switch of the command line with its argument, or a few that make no sense alone.
pub trait Switch {
    /// Appends the switch and its argument to `line`, each as one element of argv.
    fn render(&self, line: &mut Vec<String>);
}

/// What a switch renders, for tests.
#[cfg(test)]
pub(crate) fn rendered(switch: &impl Switch) -> String {
    let mut line = Vec::new();
    switch.render(&mut line);
    line.join(" ")
}
