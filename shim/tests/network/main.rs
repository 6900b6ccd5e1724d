//! The pod's network on this kernel: real namespaces, bridges, taps, redirects and forwards, made by the tests and removed by
//! them. Needs root, `ip` and `tc`.

mod attach;
mod forward;
mod lab;
