//! A tiny but real language model, made on the spot: nothing is downloaded, nothing is trained.
//!
//! The model is a chain over tokens. Every prompt leads to the first word of a fixed sentence, each word to the next,
//! the last word to the end: an embedding is a random vector of ±1, and the output row of a word is a quarter of the sum
//! of its predecessors' embeddings. The blocks between are noise of about 1e-4, which leaves the winner far ahead at
//! temperature 0 on every processor. Same arguments, same bytes; the size grows with layers and widths.

mod chain;
mod gguf;
mod noise;

use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use self::chain::Vocabulary;
use self::gguf::{Header, Tensor, Value};
use self::noise::Noise;
use crate::files::{PUBLIC, parent};

/// `cellactl model demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// File to write.
    out: PathBuf,
    /// Number of blocks.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=128))]
    layers: u32,
    /// Embedding width, a multiple of 64.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(64..=16384))]
    embd: u32,
    /// Feed-forward width, a multiple of 32.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(32..=65536))]
    ff: u32,
    /// Storage type of the tensors.
    #[arg(long = "type", value_enum, default_value_t = StorageType::F32)]
    kind: StorageType,
    /// What the model answers: words and a lone '.' separated by spaces.
    #[arg(long, default_value = SENTENCE)]
    sentence: String,
}

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum StorageType {
    /// 32-bit floating point.
    F32,
}

/// Writes the model and says what it will answer.
pub(crate) fn run(args: &DemoArgs) -> Result<String, DemoError> {
    let StorageType::F32 = args.kind;
    let size = write(
        &args.out,
        &Shape {
            layers: args.layers,
            embd: args.embd,
            ff: args.ff,
        },
        &args.sentence,
    )?;
    Ok(format!(
        "{}: {} bytes\n",
        args.out.display(),
        crate::units::grouped(size)
    ))
}

/// What decides the model's size.
#[derive(Debug, Clone, Copy)]
struct Shape {
    layers: u32,
    embd: u32,
    ff: u32,
}

fn write(path: &Path, shape: &Shape, sentence: &str) -> Result<u64, DemoError> {
    let failed = |source| DemoError::Write {
        path: path.to_owned(),
        source,
    };
    let file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(PUBLIC))
        .tempfile_in(parent(path))
        .map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let size = write_to(&mut out, shape, sentence)?.map_err(failed)?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(size)
}

/// The outer error is the caller's, the inner one the writer's.
fn write_to(out: &mut impl Write, shape: &Shape, sentence: &str) -> Result<io::Result<u64>, DemoError> {
    for (field, found, divisor) in [("--embd", shape.embd, 64), ("--ff", shape.ff, 32)] {
        if !found.is_multiple_of(divisor) {
            return Err(DemoError::Multiple { field, found, divisor });
        }
    }
    let vocabulary = Vocabulary::new(sentence).ok_or(DemoError::NoWords)?;
    let chain = chain::matrices(&vocabulary, shape.embd, &mut Noise::new(CHAIN_SEED));
    let tensors = tensors(shape, &vocabulary, &chain);
    Ok(gguf::write(out, &header(shape, &vocabulary), &tensors))
}

fn header(shape: &Shape, vocabulary: &Vocabulary) -> Header {
    let heads = (shape.embd / HEAD_WIDTH).max(1);
    let mut header = Header::new();
    let mut put = |key: &str, value| header.put(key, value);
    put("general.architecture", Value::text("llama"));
    put("general.name", Value::text("sealed-demo-chain"));
    put("llama.context_length", Value::U32(2048));
    put("llama.embedding_length", Value::U32(shape.embd));
    put("llama.block_count", Value::U32(shape.layers));
    put("llama.feed_forward_length", Value::U32(shape.ff));
    put("llama.attention.head_count", Value::U32(heads));
    put("llama.attention.head_count_kv", Value::U32(heads));
    put("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    put("llama.rope.dimension_count", Value::U32(shape.embd / heads));
    put("llama.vocab_size", Value::U32(vocabulary.len()));
    put("general.file_type", Value::U32(FILE_TYPE_F32));
    put("tokenizer.ggml.model", Value::text("llama"));
    put("tokenizer.ggml.tokens", Value::Texts(vocabulary.tokens().to_vec()));
    put("tokenizer.ggml.scores", Value::F32s(vocabulary.scores()));
    put("tokenizer.ggml.token_type", Value::I32s(vocabulary.kinds()));
    put("tokenizer.ggml.bos_token_id", Value::U32(chain::BEGIN));
    put("tokenizer.ggml.eos_token_id", Value::U32(chain::END));
    put("tokenizer.ggml.unknown_token_id", Value::U32(chain::UNKNOWN));
    put("tokenizer.ggml.add_bos_token", Value::Bool(true));
    put("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    put("tokenizer.chat_template", Value::text(CHAT_TEMPLATE));
    header
}

fn tensors<'a>(shape: &Shape, vocabulary: &Vocabulary, chain: &'a chain::Matrices) -> Vec<Tensor<'a>> {
    let Shape { layers, embd, ff } = *shape;
    let mut tensors = vec![
        Tensor::matrix("token_embd.weight", vocabulary.len(), embd, &chain.embedding),
        Tensor::matrix("output.weight", vocabulary.len(), embd, &chain.output),
        Tensor::ones("output_norm.weight", embd),
    ];
    for layer in 0..layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let seed = u64::from(layer) * 1000;
        tensors.push(Tensor::ones(name("attn_norm"), embd));
        tensors.push(Tensor::ones(name("ffn_norm"), embd));
        for (part, seed) in ["attn_q", "attn_k", "attn_v", "attn_output"].into_iter().zip(seed..) {
            tensors.push(Tensor::noise(name(part), embd, embd, seed));
        }
        tensors.push(Tensor::noise(name("ffn_gate"), ff, embd, seed + 10));
        tensors.push(Tensor::noise(name("ffn_up"), ff, embd, seed + 11));
        tensors.push(Tensor::noise(name("ffn_down"), embd, ff, seed + 12));
    }
    tensors
}

/// Why no model was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DemoError {
    /// A width that the format cannot have.
    #[error("{field} {found} is not a multiple of {divisor}")]
    Multiple {
        field: &'static str,
        found: u32,
        divisor: u32,
    },
    /// Nothing to answer.
    #[error("--sentence has no words")]
    NoWords,
    /// Writing failed.
    #[error("writing {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// What the model answers unless told otherwise.
pub(crate) const SENTENCE: &str = "The sealed model was opened inside the guest and every weight byte is intact .";
const CHAT_TEMPLATE: &str =
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}{{ 'assistant:' }}";
const HEAD_WIDTH: u32 = 64;
const FILE_TYPE_F32: u32 = 0;
const CHAIN_SEED: u64 = 42;

#[cfg(test)]
mod tests;
