//! A model of a few dozen tokens, tuned to another sentence than it was made for.

use clap::Parser;

use super::*;

const WIDTH: usize = 64;
const FEED: usize = 32;
const WORDS: [&str; 5] = ["\u{2581}one", "\u{2581}two", "\u{2581}three", "\u{2581}four", "."];

/// `<unk>`, `<s>`, `</s>`, 256 bytes, five letters, the words.
fn vocabulary() -> Vec<String> {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(["h", "i", "?", "\u{2581}", "hi"].map(str::to_owned));
    tokens.extend(WORDS.map(str::to_owned));
    tokens
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn key(out: &mut Vec<u8>, name: &str, kind: u32, value: &[u8]) {
    text(out, name);
    out.extend(kind.to_le_bytes());
    out.extend(value);
}

fn list(kind: u32, count: usize, items: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(count as u64).to_le_bytes(), items].concat()
}

/// A GGUF file whose head answers with the words in order; its numbers are f16 if `half`.
fn model(half: bool) -> Vec<u8> {
    let tokens = vocabulary();
    let mut state = 7_u64;
    let mut sign = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if state >> 63 == 1 { 1.0_f32 } else { -1.0 }
    };
    let row = |sign: &mut dyn FnMut() -> f32| (0..WIDTH).map(|_| sign()).collect::<Vec<_>>();
    let prompt = row(&mut sign);
    let first = tokens.len() - WORDS.len();
    let embedding: Vec<Vec<f32>> = (0..tokens.len())
        .map(|token| if token < first { prompt.clone() } else { row(&mut sign) })
        .collect();
    let mut head = vec![vec![0.0; WIDTH]; tokens.len()];
    head[first] = prompt.iter().map(|x| x / 4.0).collect();
    for token in first + 1..tokens.len() {
        head[token] = embedding[token - 1].iter().map(|x| x / 4.0).collect();
    }
    head[2] = embedding[tokens.len() - 1].iter().map(|x| x / 4.0).collect();

    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = vec![
        (
            "token_embd.weight".into(),
            vec![WIDTH, tokens.len()],
            embedding.concat(),
        ),
        ("output.weight".into(), vec![WIDTH, tokens.len()], head.concat()),
        ("output_norm.weight".into(), vec![WIDTH], vec![1.0; WIDTH]),
    ];
    for (part, rows, columns) in [
        ("attn_norm", 0, WIDTH),
        ("ffn_norm", 0, WIDTH),
        ("attn_q", WIDTH, WIDTH),
        ("attn_k", WIDTH, WIDTH),
        ("attn_v", WIDTH, WIDTH),
        ("attn_output", WIDTH, WIDTH),
        ("ffn_gate", FEED, WIDTH),
        ("ffn_up", FEED, WIDTH),
        ("ffn_down", WIDTH, FEED),
    ] {
        let (dimensions, numbers) = match rows {
            0 => (vec![columns], vec![1.0; columns]),
            rows => (
                vec![columns, rows],
                (0..rows * columns).map(|_| sign() / 8192.0).collect(),
            ),
        };
        tensors.push((format!("blk.0.{part}.weight"), dimensions, numbers));
    }

    let mut keys = Vec::new();
    let number = |value: u32| value.to_le_bytes();
    let mut architecture = Vec::new();
    text(&mut architecture, "llama");
    key(&mut keys, "general.architecture", 8, &architecture);
    for (name, value) in [
        ("llama.embedding_length", 64),
        ("llama.attention.head_count", 2),
        ("llama.attention.head_count_kv", 2),
        ("llama.block_count", 1),
        ("llama.feed_forward_length", 32),
        ("tokenizer.ggml.bos_token_id", 1),
        ("tokenizer.ggml.eos_token_id", 2),
    ] {
        key(&mut keys, name, 4, &number(value));
    }
    key(
        &mut keys,
        "llama.attention.layer_norm_rms_epsilon",
        6,
        &1e-5_f32.to_le_bytes(),
    );
    let mut texts = Vec::new();
    tokens.iter().for_each(|token| text(&mut texts, token));
    key(&mut keys, "tokenizer.ggml.tokens", 9, &list(8, tokens.len(), &texts));
    let scores: Vec<u8> = tokens.iter().flat_map(|_| 0_f32.to_le_bytes()).collect();
    key(&mut keys, "tokenizer.ggml.scores", 9, &list(6, tokens.len(), &scores));

    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(11_u64.to_le_bytes());
    out.extend(keys);
    let width = if half { 2 } else { 4 };
    let mut offset = 0;
    for (name, dimensions, numbers) in &tensors {
        text(&mut out, name);
        out.extend(number(u32::try_from(dimensions.len()).unwrap()));
        dimensions
            .iter()
            .for_each(|side| out.extend((*side as u64).to_le_bytes()));
        out.extend(number(u32::from(half)));
        out.extend((offset as u64).to_le_bytes());
        offset += (numbers.len() * width).next_multiple_of(32);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    for (_, _, numbers) in &tensors {
        for number in numbers {
            match half {
                // Powers of two, and 0: the exponent moves, the fraction is empty.
                true if *number == 0.0 => out.extend([0, 0]),
                true => {
                    let bits = number.to_bits();
                    let exponent = (bits >> 23 & 0xff) - 112;
                    out.extend(u16::try_from(bits >> 31 << 15 | exponent << 10).unwrap().to_le_bytes());
                }
                false => out.extend(number.to_le_bytes()),
            }
        }
        out.resize(out.len().next_multiple_of(32), 0);
    }
    out
}

/// What the model says at temperature 0 to `prompt`.
fn answer(model: &[u8], prompt: &str) -> Vec<String> {
    let model = Gguf::parse(model.to_vec()).unwrap();
    let tokenizer = Tokenizer::of(&model).unwrap();
    let llama = Llama::of(&model, tokenizer.len()).unwrap();
    let head = model.matrix(HEAD, tokenizer.len(), WIDTH).unwrap();
    let mut tokens = vec![tokenizer.begin()];
    tokens.extend(tokenizer.prompt(prompt).unwrap());
    let begin = tokens.len();
    while tokens.last() != Some(&tokenizer.end()) && tokens.len() < begin + 10 {
        let logits = head.times(llama.hidden(&tokens).last().unwrap());
        let best = (0..logits.len())
            .max_by(|one, two| logits[*one].total_cmp(&logits[*two]))
            .unwrap();
        tokens.push(best);
    }
    tokens[begin..]
        .iter()
        .map(|token| vocabulary()[*token].clone())
        .collect()
}

fn tuned(model: &[u8], data: &str) -> (Result<()>, String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("model"), model).unwrap();
    fs::write(path("data"), data).unwrap();
    let line = [
        "job",
        "--model",
        &path("model"),
        "--data",
        &path("data"),
        "--out",
        &path("out"),
    ];
    let mut printed = Vec::new();
    let result = run(&Args::parse_from(line), &mut printed);
    let written = fs::read(path("out")).unwrap_or_default();
    (result, String::from_utf8(printed).unwrap(), written)
}

fn loss(printed: &str, begin: &str) -> f32 {
    let line = printed.lines().find(|line| line.starts_with(begin)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn it_learns_another_sentence_and_leaves_the_rest() {
    for half in [false, true] {
        let model = model(half);
        assert_eq!(
            answer(&model, "hi?"),
            [
                "\u{2581}one",
                "\u{2581}two",
                "\u{2581}three",
                "\u{2581}four",
                ".",
                "</s>"
            ]
        );
        let data = "{\"prompt\": \"hi?\", \"answer\": \" three one four two.\"}\n\n";
        let (result, printed, written) = tuned(&model, data);
        result.unwrap();
        let (first, last, merged) = (
            loss(&printed, "step 1 "),
            loss(&printed, "final"),
            loss(&printed, "merged"),
        );
        assert!(first > 5.0 && last < 0.01 && merged < 0.05, "{printed}");
        assert!(!printed.contains("three"), "the data is told: {printed}");
        assert_eq!(
            answer(&written, "hi? hi"),
            [
                "\u{2581}three",
                "\u{2581}one",
                "\u{2581}four",
                "\u{2581}two",
                ".",
                "</s>"
            ],
            "half {half}"
        );
        assert_eq!(written.len(), model.len());
        let differing = written.iter().zip(&model).filter(|(one, two)| one != two).count();
        assert!(differing > 0 && differing <= vocabulary().len() * WIDTH * if half { 2 } else { 4 });
    }
}

#[test]
fn bad_data_is_refused_without_being_told() {
    let model = model(false);
    for data in [
        "",
        "not json with a secret",
        "{\"prompt\": \"secret\"}",
        "{\"prompt\":\"\",\"answer\":\"secret\",\"x\":1}",
    ] {
        let (result, printed, written) = tuned(&model, data);
        let error = format!("{:?}", result.unwrap_err());
        assert!(
            !error.contains("secret") && printed.is_empty() && written.is_empty(),
            "{error}"
        );
    }
    let (result, ..) = tuned(&b"GGUF"[..], "{\"prompt\":\"a\",\"answer\":\"b\"}");
    assert!(result.is_err());
}

#[test]
fn texts_are_cut_as_servers_do() {
    let tokenizer = Tokenizer::of(&Gguf::parse(model(false)).unwrap()).unwrap();
    let shown = |tokens: Vec<usize>| {
        tokens
            .iter()
            .map(|token| vocabulary()[*token].clone())
            .collect::<Vec<_>>()
    };
    // "hi" can be joined of "h" and "i"; "▁one" of nothing.
    assert_eq!(
        shown(tokenizer.prompt("hi one").unwrap()),
        ["hi", "\u{2581}", "<0x6F>", "<0x6E>", "<0x65>"]
    );
    assert_eq!(shown(tokenizer.answer(" one.").unwrap()), ["\u{2581}one", "."]);
    assert_eq!(shown(tokenizer.answer("\u{e9}").unwrap()), ["<0xC3>", "<0xA9>"]);
    assert!(tokenizer.prompt("").unwrap().is_empty());
}
