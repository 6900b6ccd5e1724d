//! Headers of weight files, read on the desk before a model is sealed: what they say of the model, and whether a file is whole.
//!
//! - [`gguf`]: llama.cpp's format. [`safetensors`]: Hugging Face's, and the index of its shards.
//! - [`ShardName`]: files that say by their name that they are one of several.
//! - [`Tally`]: how many elements of which type, and from it ModelPack's `paramSize` and `precision`.
//!
//! The files were downloaded from somewhere: every count and length in them is bounded before it is used, arithmetic is
//! checked, nothing but the header is read, and what is wrong is an error that names it. Memory: the header of a safetensors
//! file (at most [`MAX_SAFETENSORS_HEADER`]); of GGUF one string.
#![forbid(unsafe_code)]

pub mod gguf;
pub mod safetensors;

mod error;
mod shards;
mod tally;

pub use error::WeightsError;
pub use safetensors::MAX_SAFETENSORS_HEADER;
pub use shards::{ShardError, ShardName, check_shards};
pub use tally::Tally;
