//! The key broker of Cella: verifies a guest's evidence, releases keys to guests that the owner's rules name, and
//! writes down each time that it did.
//!
//! It runs on the model owner's ground and speaks the Confidential Containers KBS protocol (RCAR) 0.4.0, with rules of
//! its own in place of a policy language. Whose bytes: all requests are from peers that may lie, guests and admins
//! alike, until evidence or a signature says otherwise.
//!
//! ```text
//! TLS ─ server ─┬─ broker::challenge ── session
//!               ├─ broker::attest ───── session ─ appraisal (cella-attest, cella-policy) ─ token ─ audit
//!               ├─ broker::release ──── session or token ─ rule ─ storage ─ JWE ─ audit
//!               └─ broker::store_… ──── admin ─ audit ─ storage
//! ```
#![forbid(unsafe_code)]

pub mod admin;
pub mod appraisal;
pub mod audit;
pub mod broker;
pub mod clock;
pub mod config;
pub mod facts;
mod files;
pub mod init;
mod jws;
pub mod owners;
pub mod references;
pub mod refusal;
pub mod rule;
pub mod server;
pub mod session;
pub mod storage;
#[cfg(test)]
mod testing;
pub mod token;
pub mod trust;
pub mod workload;

pub use config::Config;
pub use files::FileError;
pub use jws::JwsError;
pub use server::Server;
