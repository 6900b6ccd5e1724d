//! What no loader can be faster than: the ciphers alone, on all processors.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use cella_seal::stream::SEGMENT;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::window::HugeBuffer;
use crate::{Outcome, on_each};

/// What is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// One segment again and again, in the cache: in place (the ciphertext is copied in front of each, which is not counted) or out of
    /// place, whichever is faster.
    Cache,
    /// As many segments as there are, from 2 MiB pages of memory into a place that stays in the cache: nothing is written to memory.
    Memory,
}

/// Opens segments, `mib` of them together, and with `hash` computes BLAKE3 of each plaintext. GB/s.
pub(crate) fn ciphers(threads: usize, mib: usize, from: From, hash: bool) -> Outcome<f64> {
    match from {
        From::Cache => Ok(run(threads, mib, 1, hash, true)?.max(run(threads, mib, 1, hash, false)?)),
        From::Memory => run(threads, mib, mib.div_ceil(threads), hash, false),
    }
}

/// Each thread opens its share of `mib` segments, of which `different` lie behind each other.
fn run(threads: usize, mib: usize, different: usize, hash: bool, in_place: bool) -> Outcome<f64> {
    let each = mib.div_ceil(threads);
    let room = if in_place { 0 } else { SEGMENT };
    let mut buffers = Vec::new();
    for _ in 0..threads {
        buffers.push(HugeBuffer::zeroed(room + different * SEGMENT)?);
    }
    let (buffers, slowest) = (Mutex::new(buffers), Mutex::new(0f64));
    on_each(threads, || {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| "key")?);
        let nonce = || Nonce::assume_unique_for_key([0; 12]);
        let mut sealed = vec![0x5a; SEGMENT - 16];
        key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed)
            .map_err(|_| "seal")?;
        let mut buffer = buffers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .ok_or("buffer")?;
        let window = buffer.bytes();
        for segment in window.get_mut(room..).ok_or("room")?.chunks_exact_mut(SEGMENT) {
            segment.copy_from_slice(&sealed);
        }
        let mut took = 0.0;
        for at in 0..each {
            let start = room + at % different * SEGMENT;
            let upto = window.get_mut(..start + SEGMENT).ok_or("segment")?;
            if in_place {
                upto.copy_from_slice(&sealed);
            }
            let begun = Instant::now();
            let plain = key
                .open_within(nonce(), Aad::empty(), upto, start..)
                .map_err(|_| "open")?;
            if hash {
                std::hint::black_box(blake3::hash(plain));
            }
            took += begun.elapsed().as_secs_f64();
        }
        let mut slowest = slowest.lock().unwrap_or_else(PoisonError::into_inner);
        *slowest = slowest.max(took);
        Ok(())
    })?;
    let slowest = *slowest.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((threads * each * SEGMENT) as f64 / slowest / 1e9)
}
