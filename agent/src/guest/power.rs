//! The end of the guest.

use std::{panic, process};

use nix::sys::reboot::{RebootMode, reboot};

use super::wipe;
use crate::logging;

/// Powers the machine off. Nothing is written back: everything is in memory and meant to be gone, this process's own by its hand.
pub(super) fn off() -> ! {
    wipe::end(at_once)
}

/// Where the kernel cannot power off it resets, which ends QEMU too (`-no-reboot`), and where it cannot even that, the end
/// of process 1 is a kernel panic, upon which it resets (`panic=-1`).
fn at_once() -> ! {
    for mode in [RebootMode::RB_POWER_OFF, RebootMode::RB_AUTOBOOT] {
        // Returns only if it failed, and then the next way is tried.
        let _ = reboot(mode);
    }
    process::abort()
}

/// A panic is a bug, and a bug in this process may not go on with keys in its memory.
pub(super) fn off_on_panic() {
    panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map(|at| format!("{}:{}", at.file(), at.line()))
            .unwrap_or_default();
        // The message may quote data; the place is enough to find the bug.
        logging::last_words(&format!("panic at {place}; powering off"));
        off()
    }));
}
