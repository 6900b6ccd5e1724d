//! A folder as Hugging Face's libraries read it: `model.safetensors` (the length of the header, a JSON header, the tensors one after the other), and
//! beside it configuration and tokenizer.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::chain::{self, Vocabulary};
use super::storage::Storage;
use super::tensor::Tensor;
use super::{Shape, heads};

/// Name of the file with the weights.
pub(super) const WEIGHTS: &str = "model.safetensors";

/// Writes the weights and returns their length.
pub(super) fn write(out: &mut impl Write, tensors: &[Tensor<'_>]) -> io::Result<u64> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.bytes(Storage::F32);
        let shape: Vec<u32> = tensor.rows.into_iter().chain([tensor.columns]).collect();
        header.insert(
            tensor.name.clone(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}),
        );
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    let length = header.len() as u64;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&header)?;
    tensors.iter().try_for_each(|tensor| tensor.write(out, Storage::F32))?;
    Ok(8 + length + offset)
}

/// The other files of the folder, by name.
pub(super) fn beside(shape: &Shape, vocabulary: &Vocabulary) -> [(&'static str, Value); 3] {
    [
        ("config.json", config(shape, vocabulary)),
        ("tokenizer.json", tokenizer(vocabulary)),
        (
            "tokenizer_config.json",
            json!({
                "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": super::CONTEXT,
                "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
                "chat_template": super::CHAT_TEMPLATE,
            }),
        ),
    ]
}

fn config(shape: &Shape, vocabulary: &Vocabulary) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32",
        "vocab_size": vocabulary.len(), "hidden_size": shape.embd, "intermediate_size": shape.ff,
        "num_hidden_layers": shape.layers, "num_attention_heads": heads(shape), "num_key_value_heads": heads(shape),
        "max_position_embeddings": super::CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": false,
        "bos_token_id": chain::BEGIN, "eos_token_id": chain::END,
    })
}

/// Characters and bytes, without merges: a prompt becomes its characters, and only the model says words.
fn tokenizer(vocabulary: &Vocabulary) -> Value {
    let ids: Map<String, Value> = vocabulary
        .tokens()
        .iter()
        .zip(0_u32..)
        .map(|(token, id)| (token.clone(), id.into()))
        .collect();
    let special = |(content, id): (&str, u32)| json!({"id": id, "content": content, "special": true, "normalized": false, "single_word": false, "lstrip": false, "rstrip": false});
    let added = [("<unk>", chain::UNKNOWN), ("<s>", chain::BEGIN), ("</s>", chain::END)].map(special);
    json!({
        "version": "1.0", "truncation": null, "padding": null, "pre_tokenizer": null,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [chain::BEGIN], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        ]},
        "model": {
            "type": "BPE", "vocab": ids, "merges": [], "unk_token": "<unk>", "byte_fallback": true, "fuse_unk": true,
            "dropout": null, "continuing_subword_prefix": null, "end_of_word_suffix": null, "ignore_merges": false,
        },
    })
}

const ALIGNMENT: usize = 8;
