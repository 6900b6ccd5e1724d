//! QEMU's monitor: JSON lines over a Unix socket.
//!
//! QEMU is not trusted with more than it can do anyway, but a guest that took it over must not take the shim as well: lines
//! are bounded, unknown messages are skipped, each command has a deadline. [`codec`] is pure; [`Monitor`] owns the socket.

pub mod codec;
mod monitor;

pub use monitor::{Monitor, MonitorError};
