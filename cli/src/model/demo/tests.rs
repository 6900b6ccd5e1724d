//! The model's bytes, and its structure read back by an independent little reader.

use super::*;

const SMALL: Shape = Shape {
    layers: 2,
    embd: 128,
    ff: 256,
};

fn model(shape: &Shape) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = write_to(&mut bytes, shape, SENTENCE).unwrap().unwrap();
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
    let write = |embd, ff, sentence| write_to(&mut Vec::new(), &Shape { layers: 1, embd, ff }, sentence);
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
    assert_eq!(
        write(
            &path,
            &Shape {
                layers: 1,
                embd: 64,
                ff: 32
            },
            SENTENCE
        )
        .unwrap(),
        std::fs::metadata(&path).unwrap().len()
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(matches!(
        write(Path::new("/nonexistent/m"), &SMALL, SENTENCE),
        Err(DemoError::Write { .. })
    ));
}
