//! Random numbers straight from the processor's own generator.
#![allow(unsafe_code)] // calls of functions that are compiled for processors with these instructions

use std::arch::{
    is_x86_feature_detected,
    x86_64::{_rdrand64_step, _rdseed64_step},
};

/// A number from RDSEED where the processor has it and it has one ready, else from RDRAND; `None` when neither gives one.
/// Takes microseconds.
pub(super) fn number() -> Option<u64> {
    if is_x86_feature_detected!("rdseed") {
        // SAFETY: the processor has the instruction, as was just asked.
        if let Some(number) = (0..SEED_TRIES).find_map(|_| unsafe { seed() }) {
            return Some(number);
        }
    }
    if is_x86_feature_detected!("rdrand") {
        // SAFETY: the processor has the instruction, as was just asked.
        return (0..DRAW_TRIES).find_map(|_| unsafe { draw() });
    }
    None
}

#[target_feature(enable = "rdseed")]
fn seed() -> Option<u64> {
    let mut number = 0;
    let ready = _rdseed64_step(&mut number) == 1;
    if !ready {
        std::hint::spin_loop();
    }
    ready.then_some(number)
}

#[target_feature(enable = "rdrand")]
fn draw() -> Option<u64> {
    let mut number = 0;
    (_rdrand64_step(&mut number) == 1).then_some(number)
}

/// RDSEED is empty for a while when all processors draw on it.
const SEED_TRIES: u32 = 1000;

/// Intel's and AMD's advice: a generator that fails ten times in a row is broken.
const DRAW_TRIES: u32 = 10;
