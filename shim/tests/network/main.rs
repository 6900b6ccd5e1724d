//! The pod's network on this kernel: real namespaces, bridges, taps, redirects and forwards, made by the tests and removed by
//! them. Needs root, `ip` and `tc`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so by panicking"
)]

mod attach;
mod forward;
mod lab;
