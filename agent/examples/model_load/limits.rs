//! What no loader can be faster than: the ciphers alone, in the cache, on all processors.

use std::time::Instant;

use cella_seal::stream::SEGMENT;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::{Outcome, on_each};

/// Opens one sealed segment again and again on each thread, `mib` times together, and with `hash` computes BLAKE3 of each plaintext. In
/// place (the ciphertext is copied in front of each, which is not counted) or out of place, whichever is faster. GB/s.
pub(crate) fn in_cache(threads: usize, mib: usize, hash: bool) -> Outcome<f64> {
    Ok(run(threads, mib, hash, true)?.max(run(threads, mib, hash, false)?))
}

fn run(threads: usize, mib: usize, hash: bool, in_place: bool) -> Outcome<f64> {
    let each = mib.div_ceil(threads);
    let slowest = std::sync::Mutex::new(0f64);
    on_each(threads, || {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| "key")?);
        let nonce = || Nonce::assume_unique_for_key([0; 12]);
        let mut sealed = vec![0x5a; SEGMENT - 16];
        key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed)
            .map_err(|_| "seal")?;
        let room = if in_place { 0 } else { SEGMENT };
        let mut window = vec![0; room];
        window.extend_from_slice(&sealed);
        let mut took = 0.0;
        for _ in 0..each {
            if in_place {
                window.copy_from_slice(&sealed);
            }
            let begun = Instant::now();
            let plain = key
                .open_within(nonce(), Aad::empty(), &mut window, room..)
                .map_err(|_| "open")?;
            if hash {
                std::hint::black_box(blake3::hash(plain));
            }
            took += begun.elapsed().as_secs_f64();
        }
        let mut slowest = slowest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *slowest = slowest.max(took);
        Ok(())
    })?;
    let slowest = *slowest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok((threads * each * SEGMENT) as f64 / slowest / 1e9)
}
