//! Moving artifacts to and from registries: several blobs at once, again after what passes by itself, and on from where it
//! was left.

mod note;
mod pull;
mod push;
mod read;
mod tries;
mod upload;

#[cfg(test)]
mod tests;

pub(crate) use pull::{Pulling, Source};
pub(crate) use push::{push, push_manifest};
pub(crate) use read::read_blob;
pub(crate) use tries::Tries;
pub(crate) use upload::{Lost, Sending};

use crate::interrupt::Stop;
use crate::progress::Counter;

/// What a long transfer has beside its bytes.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) counter: Counter,
    pub(crate) stop: Stop,
}

/// Blobs that are on their way at the same time.
pub(crate) const JOBS: usize = 4;
/// Bytes that travel at once: held in memory, sent again when they did not arrive.
pub(crate) const CHUNK: usize = if cfg!(test) { 256 * 1024 } else { 8 << 20 };
