//! Client side of the Confidential Containers key broker protocol (RCAR), version 0.4.0.
//!
//! One attestation gives a [`Session`]; every key that is wanted is then fetched in it, over the same connection. The
//! broker is a peer that may be wrong, slow or somebody else: its answers are bounded, checked and sorted by blame in
//! [`KbsError`], and nothing it sends is printed before it was shortened and stripped of what is not printable.
//!
//! [`wire`], [`jwe`] and [`statement`] do no I/O and serve the broker's side as well.
#![forbid(unsafe_code)]

mod client;
mod commitment;
mod cookie;
mod error;
mod exchange;
pub mod jwe;
mod key;
mod session;
pub mod statement;
pub mod token;
pub mod wire;

pub use client::{KbsClient, Options};
pub use commitment::{Committed, Opening};
pub use error::{GarbageKind, KbsError, Step};
pub use key::{KeyError, TeeKey};
pub use session::{Binding, Session};
