//! A tiny but real language model, made on the spot: nothing is downloaded, nothing is trained.
//!
//! The model is a chain over tokens. Every prompt leads to the first word of a fixed sentence, each word to the next,
//! the last word to the end: an embedding is a random vector of ±1, and the output row of a word is a quarter of the sum
//! of its predecessors' embeddings. The blocks between are noise of about 1e-4, which leaves the winner far ahead at
//! temperature 0 on every processor. Same arguments, same bytes; the size grows with layers and widths.

mod chain;
mod gguf;
mod noise;
mod safetensors;
mod storage;
mod tensor;

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use self::chain::Vocabulary;
use self::gguf::{Header, Value};
use self::noise::Noise;
use self::storage::Storage;
use self::tensor::Tensor;
use super::files::Format;
use crate::files::{PUBLIC, parent};

/// `cellactl model demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// File to write; of safetensors the folder.
    out: PathBuf,
    /// Format of the weights. Safetensors come with configuration and tokenizer.
    #[arg(long, value_enum, default_value_t = Format::Gguf)]
    format: Format,
    /// Number of blocks.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=128))]
    layers: u32,
    /// Embedding width, a multiple of 64.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(64..=16384))]
    embd: u32,
    /// Feed-forward width, a multiple of 32.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(32..=65536))]
    ff: u32,
    /// How the numbers of matrices are stored.
    #[arg(long = "type", value_enum, default_value_t = Storage::F32)]
    storage: Storage,
    /// What the model answers: words and a lone '.' separated by spaces.
    #[arg(long, default_value = SENTENCE)]
    sentence: String,
}

/// Writes the model and says how large it is.
pub(crate) fn run(args: &DemoArgs) -> Result<String, DemoError> {
    let shape = Shape {
        layers: args.layers,
        embd: args.embd,
        ff: args.ff,
    };
    let model = Model::new(shape, &args.sentence)?;
    let size = match (args.format, args.storage) {
        (Format::Gguf, storage) => model.gguf(&args.out, storage)?,
        (Format::Safetensors, Storage::F32) => model.safetensors(&args.out)?,
        (Format::Safetensors, _) => return Err(DemoError::Type),
    };
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

/// A model in the making.
struct Model {
    shape: Shape,
    vocabulary: Vocabulary,
    chain: chain::Matrices,
}

impl Model {
    fn new(shape: Shape, sentence: &str) -> Result<Self, DemoError> {
        for (field, found, divisor) in [("--embd", shape.embd, 64), ("--ff", shape.ff, 32)] {
            if !found.is_multiple_of(divisor) {
                return Err(DemoError::Multiple { field, found, divisor });
            }
        }
        let vocabulary = Vocabulary::new(sentence).ok_or(DemoError::NoWords)?;
        let chain = chain::matrices(&vocabulary, shape.embd, &mut Noise::new(CHAIN_SEED));
        Ok(Self {
            shape,
            vocabulary,
            chain,
        })
    }

    fn gguf(&self, path: &Path, storage: Storage) -> Result<u64, DemoError> {
        let failed = |source| DemoError::Write {
            path: path.to_owned(),
            source,
        };
        let file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(PUBLIC))
            .tempfile_in(parent(path))
            .map_err(failed)?;
        let mut out = BufWriter::with_capacity(BUFFER, file);
        let size = self.write_gguf(&mut out, storage).map_err(failed)?;
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(size)
    }

    fn write_gguf(&self, out: &mut impl Write, storage: Storage) -> io::Result<u64> {
        gguf::write(out, &self.header(storage), &self.tensors(Format::Gguf), storage)
    }

    /// The folder gets its name when all is in it. One that is there and not empty is left as it is.
    fn safetensors(&self, path: &Path) -> Result<u64, DemoError> {
        let write = || {
            let folder = tempfile::Builder::new()
                .permissions(Permissions::from_mode(FOLDER))
                .tempdir_in(parent(path))?;
            let mut out = BufWriter::with_capacity(BUFFER, File::create(folder.path().join(safetensors::WEIGHTS))?);
            let size = safetensors::write(&mut out, &self.tensors(Format::Safetensors))?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?;
            for (name, content) in safetensors::beside(&self.shape, &self.vocabulary) {
                fs::write(folder.path().join(name), content.to_string())?;
            }
            fs::rename(folder.path(), path)?;
            // It is no temporary one any more.
            let _ = folder.keep();
            Ok(size)
        };
        write().map_err(|source| DemoError::Write {
            path: path.to_owned(),
            source,
        })
    }

    fn header(&self, storage: Storage) -> Header {
        let Self { shape, vocabulary, .. } = self;
        let heads = heads(shape);
        let mut header = Header::new();
        let mut put = |key: &str, value| header.put(key, value);
        put("general.architecture", Value::text("llama"));
        put("general.name", Value::text("sealed-demo-chain"));
        put("llama.context_length", Value::U32(CONTEXT));
        put("llama.embedding_length", Value::U32(shape.embd));
        put("llama.block_count", Value::U32(shape.layers));
        put("llama.feed_forward_length", Value::U32(shape.ff));
        put("llama.attention.head_count", Value::U32(heads));
        put("llama.attention.head_count_kv", Value::U32(heads));
        put("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
        put("llama.rope.dimension_count", Value::U32(shape.embd / heads));
        put("llama.vocab_size", Value::U32(vocabulary.len()));
        put("general.file_type", Value::U32(storage.file_type()));
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

    fn tensors(&self, format: Format) -> Vec<Tensor<'_>> {
        let Shape { layers, embd, ff } = self.shape;
        let name = |gguf: &str, transformers: &str| match format {
            Format::Gguf => format!("{gguf}.weight"),
            Format::Safetensors => format!("{transformers}.weight"),
        };
        let rows = self.vocabulary.len();
        let mut tensors = vec![
            Tensor::matrix(
                name("token_embd", "model.embed_tokens"),
                rows,
                embd,
                &self.chain.embedding,
            ),
            Tensor::matrix(name("output", "lm_head"), rows, embd, &self.chain.output),
            Tensor::ones(name("output_norm", "model.norm"), embd),
        ];
        for layer in 0..layers {
            let name = |gguf: &str, transformers: &str| {
                name(
                    &format!("blk.{layer}.{gguf}"),
                    &format!("model.layers.{layer}.{transformers}"),
                )
            };
            let seed = u64::from(layer) * 1000;
            tensors.push(Tensor::ones(name("attn_norm", "input_layernorm"), embd));
            tensors.push(Tensor::ones(name("ffn_norm", "post_attention_layernorm"), embd));
            for (gguf, transformers, rows, columns, seed) in [
                ("attn_q", "self_attn.q_proj", embd, embd, seed),
                ("attn_k", "self_attn.k_proj", embd, embd, seed + 1),
                ("attn_v", "self_attn.v_proj", embd, embd, seed + 2),
                ("attn_output", "self_attn.o_proj", embd, embd, seed + 3),
                ("ffn_gate", "mlp.gate_proj", ff, embd, seed + 10),
                ("ffn_up", "mlp.up_proj", ff, embd, seed + 11),
                ("ffn_down", "mlp.down_proj", embd, ff, seed + 12),
            ] {
                tensors.push(Tensor::noise(name(gguf, transformers), rows, columns, seed));
            }
        }
        tensors
    }
}

fn heads(shape: &Shape) -> u32 {
    (shape.embd / HEAD_WIDTH).max(1)
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
    /// What safetensors have no word for.
    #[error("safetensors are written with --type f32 only")]
    Type,
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
const CONTEXT: u32 = 2048;
const BUFFER: usize = 1 << 20;
const FOLDER: u32 = 0o755;
const CHAIN_SEED: u64 = 42;

#[cfg(test)]
mod tests;
