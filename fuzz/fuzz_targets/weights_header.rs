//! Headers of GGUF and safetensors files, and the index of the latter.
#![no_main]
use cella_weights::{gguf, safetensors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let length = data.len() as u64;
    let _ = gguf::read(data, length).map(|header| header.tally.param_size());
    let _ = safetensors::read(data, length).map(|header| header.tally.precision());
    let _ = safetensors::Index::parse(data);
});
