//! The model's bytes, and its structure read back by an independent little reader.

use super::*;

const SMALL: Shape = Shape {
    layers: 2,
    embd: 128,
    ff: 256,
};

fn model(shape: &Shape) -> Vec<u8> {
    stored(shape, Storage::F32)
}

fn stored(shape: &Shape, storage: Storage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let model = Model::new(*shape, SENTENCE).unwrap();
    let length = model.write_gguf(&mut bytes, storage).unwrap();
    assert_eq!(length, bytes.len() as u64);
    bytes
}

/// Reads GGUF front to back.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take(8).try_into().unwrap()).try_into().unwrap()
    }

    fn text(&mut self) -> String {
        let length = self.u64();
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }

    /// Every value as texts.
    fn value(&mut self, kind: u32) -> Vec<String> {
        match kind {
            4 => vec![self.u32().to_string()],
            5 => vec![i32::from_le_bytes(self.take(4).try_into().unwrap()).to_string()],
            6 => vec![f32::from_le_bytes(self.take(4).try_into().unwrap()).to_string()],
            7 => vec![self.take(1)[0].to_string()],
            8 => vec![self.text()],
            9 => {
                let element = self.u32();
                let count = self.u64();
                (0..count).flat_map(|_| self.value(element)).collect()
            }
            other => panic!("type {other}"),
        }
    }
}

#[test]
fn bytes_are_pinned() {
    let bytes = model(&SMALL);
    assert_eq!(bytes.len(), 1_716_800, "as long as the Python original's");
    let digest = cella_oci::Digest::of(&bytes).hex();
    assert_eq!(
        digest,
        "b3ad7ccdbc4c8e459f91657159fb39571d01e98204ee14f21e263e7a339e4b83"
    );
    assert_eq!(bytes, model(&SMALL));
}

#[test]
fn quantised_models_are_smaller() {
    let shape = Shape {
        layers: 2,
        embd: 256,
        ff: 512,
    };
    let bytes = stored(&shape, Storage::Q8_0);
    assert_eq!(bytes.len(), 1_616_960, "as long as the Python original's");
    // 18 bytes in place of 34 for each 32 numbers of a matrix.
    let numbers = 2 * (4 * 256 * 256 + 3 * 256 * 512) + 2 * 384 * 256;
    assert_eq!(bytes.len() - stored(&shape, Storage::Q4_0).len(), numbers / 2);
}

#[test]
fn a_safetensors_folder_has_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let folder = Model::new(SMALL, SENTENCE).unwrap();
    let length = folder.safetensors(&path).unwrap();
    let weights = std::fs::read(path.join("model.safetensors")).unwrap();
    assert_eq!(length, weights.len() as u64);
    let header = usize::try_from(u64::from_le_bytes(weights[..8].try_into().unwrap())).unwrap();
    assert_eq!(header % 8, 0);
    let (header, data) = weights[8..].split_at(header);
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).unwrap();
    assert_eq!(header.len(), 1 + 3 + 2 * 9);
    // What GGUF has under other names and in the same order, without its padding of which there is none here.
    let gguf = model(&SMALL);
    assert_eq!(data, &gguf[gguf.len() - data.len()..]);
    let down = &header["model.layers.1.mlp.down_proj.weight"];
    assert_eq!(down["shape"], serde_json::json!([128, 256]));
    assert_eq!(down["data_offsets"][1], data.len());

    let json =
        |name: &str| -> serde_json::Value { serde_json::from_slice(&std::fs::read(path.join(name)).unwrap()).unwrap() };
    assert_eq!(json("config.json")["num_attention_heads"], 2);
    let vocabulary = &json("tokenizer.json")["model"]["vocab"];
    assert_eq!(vocabulary["</s>"], 2);
    assert_eq!(
        vocabulary.as_object().unwrap().len(),
        usize::try_from(folder.vocabulary.len()).unwrap()
    );
    // Not over another one.
    assert!(matches!(folder.safetensors(&path), Err(DemoError::Write { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn structure_is_that_of_a_llama_model() {
    let bytes = model(&SMALL);
    let mut reader = Reader(&bytes);
    assert_eq!(reader.take(4), b"GGUF");
    assert_eq!(reader.u32(), 3);
    let tensors = reader.u64();
    let keys = reader.u64();
    let values: std::collections::BTreeMap<String, Vec<String>> = (0..keys)
        .map(|_| {
            let key = reader.text();
            let kind = reader.u32();
            (key, reader.value(kind))
        })
        .collect();
    let one = |key: &str| values[key][0].as_str();
    assert_eq!(one("general.architecture"), "llama");
    assert_eq!(one("llama.attention.head_count"), "2");
    assert_eq!(one("llama.rope.dimension_count"), "64");
    let tokens = &values["tokenizer.ggml.tokens"];
    assert_eq!(tokens.len() % 32, 0);
    assert_eq!(one("llama.vocab_size"), tokens.len().to_string());
    assert_eq!(
        tokens.len(),
        tokens.iter().collect::<std::collections::HashSet<_>>().len(),
        "tokens are unique"
    );
    assert_eq!(values["tokenizer.ggml.scores"].len(), tokens.len());
    assert_eq!(values["tokenizer.ggml.token_type"].len(), tokens.len());

    let described: Vec<(String, Vec<usize>, usize)> = (0..tensors)
        .map(|_| {
            let name = reader.text();
            let dimensions = (0..reader.u32()).map(|_| reader.u64()).collect();
            assert_eq!(reader.u32(), 0, "F32");
            (name, dimensions, reader.u64())
        })
        .collect();
    assert_eq!(described.len(), 3 + 2 * 9);
    let data = (bytes.len() - reader.0.len()).next_multiple_of(32);
    let floats = |name: &str| {
        let (_, dimensions, offset) = described.iter().find(|(found, ..)| found == name).unwrap();
        let count: usize = dimensions.iter().product();
        let bytes = &bytes[data + offset..][..count * 4];
        bytes
            .chunks(4)
            .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()))
            .collect::<Vec<f32>>()
    };

    // Greedy decoding without the blocks: they are noise.
    let (embedding, output) = (floats("token_embd.weight"), floats("output.weight"));
    let mut token = 1;
    let mut answer = String::new();
    for _ in 0..32 {
        let row = &embedding[token * 128..][..128];
        let logit = |next: usize| {
            output[next * 128..][..128]
                .iter()
                .zip(row)
                .map(|(a, b)| a * b)
                .sum::<f32>()
        };
        token = (0..tokens.len())
            .max_by(|a, b| logit(*a).total_cmp(&logit(*b)))
            .unwrap();
        if token == 2 {
            break;
        }
        answer.push_str(&tokens[token].replace('\u{2581}', " "));
    }
    assert_eq!(answer.trim(), SENTENCE.replace(" .", "."));
    let noise = floats("blk.1.ffn_down.weight");
    let spread = (noise.iter().map(|weight| weight * weight).sum::<f32>() / 32768.0).sqrt();
    assert!((0.9e-4..1.1e-4).contains(&spread), "{spread}");
    assert!(floats("output_norm.weight").iter().all(|weight| *weight == 1.0));
}

#[test]
fn widths_and_sentences_are_checked() {
    let write = |embd, ff, sentence| Model::new(Shape { layers: 1, embd, ff }, sentence);
    assert!(matches!(
        write(100, 256, SENTENCE),
        Err(DemoError::Multiple { field: "--embd", .. })
    ));
    assert!(matches!(
        write(128, 100, SENTENCE),
        Err(DemoError::Multiple { field: "--ff", .. })
    ));
    assert!(matches!(write(128, 256, "  "), Err(DemoError::NoWords)));
    assert!(write(64, 32, "again and again and again").is_ok());
}

#[test]
fn the_file_appears_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let shape = Shape {
        layers: 1,
        embd: 64,
        ff: 32,
    };
    let model = Model::new(shape, SENTENCE).unwrap();
    let length = model.gguf(&path, Storage::F32).unwrap();
    assert_eq!(length, std::fs::metadata(&path).unwrap().len());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(matches!(
        model.gguf(Path::new("/nonexistent/m"), Storage::F32),
        Err(DemoError::Write { .. })
    ));
}
