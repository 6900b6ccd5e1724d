//! The one binary of the guest: process 1, or, under another name, the launcher of a container or the init of a process
//! namespace that containers share.
use std::process::ExitCode;

use cella_agent::{guest, launch, zeroing::Zeroing};

#[global_allocator]
static ALLOCATOR: Zeroing = Zeroing;

fn main() -> ExitCode {
    match std::env::args_os().next() {
        Some(name) if name == launch::LAUNCHER_NAME => launch::child::main(),
        Some(name) if name == launch::INIT_NAME => launch::init::main(),
        _ => guest::main(),
    }
}
