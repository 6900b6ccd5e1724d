//! The broker over real sockets, with the real client and with bytes that no client would send.
//!
//! Evidence comes from the simulated platform's own code. Each test has a folder, a server and a port of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fixtures do outside of test functions is a test too"
)]

mod admin;
mod body;
mod faults;
mod fixture;
mod full_database;
mod guest;
mod handshake;
mod hostile;
mod owners;
mod postgres;
mod program;
mod references;
mod release;
mod replicas;
mod revocation;
mod rollback;
mod td;
mod tdx;
mod trustee;
mod years;
