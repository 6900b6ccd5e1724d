//! The vocabulary, and the two matrices that make the model speak.

use std::collections::HashSet;

use super::noise::Noise;

/// `<unk>`.
pub(super) const UNKNOWN: u32 = 0;
/// `<s>`.
pub(super) const BEGIN: u32 = 1;
/// `</s>`.
pub(super) const END: u32 = 2;

/// Tokens in the order of SentencePiece: three marks, 256 bytes, characters, the words of the answer, padding.
pub(super) struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<i32>,
    first_word: usize,
    words: usize,
}

impl Vocabulary {
    /// None when the sentence has no words.
    pub(super) fn new(sentence: &str) -> Option<Self> {
        let words = words(sentence);
        if words.is_empty() {
            return None;
        }
        let characters: Vec<String> = ('!'..='~')
            .map(String::from)
            .filter(|character| !words.contains(character))
            .chain([VISIBLE_SPACE.to_string()])
            .collect();
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
        tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
        let mut kinds = vec![KIND_UNKNOWN, KIND_CONTROL, KIND_CONTROL];
        kinds.resize(tokens.len(), KIND_BYTE);
        let first_word = tokens.len() + characters.len();
        let count = words.len();
        tokens.extend(characters);
        tokens.extend(words);
        kinds.resize(tokens.len(), KIND_NORMAL);
        while !tokens.len().is_multiple_of(32) {
            tokens.push(format!("<pad{}>", tokens.len()));
            kinds.push(KIND_UNUSED);
        }
        Some(Self {
            tokens,
            kinds,
            first_word,
            words: count,
        })
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.tokens.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn tokens(&self) -> &[String] {
        &self.tokens
    }

    pub(super) fn kinds(&self) -> Vec<i32> {
        self.kinds.clone()
    }

    /// 0 for marks and bytes, then falling: the earlier of two tokens wins a merge.
    pub(super) fn scores(&self) -> Vec<f32> {
        let rest = self.tokens.len() - FIRST_CHARACTER;
        let falling = (0..rest).map(|index| -f32::from(u16::try_from(index).unwrap_or(u16::MAX)));
        std::iter::repeat_n(0.0, FIRST_CHARACTER).chain(falling).collect()
    }
}

/// Rows of `embd` numbers, one for each token.
pub(super) struct Matrices {
    pub(super) embedding: Vec<f32>,
    pub(super) output: Vec<f32>,
}

/// Embeddings: one vector for all prompt tokens, one of its own for the end and for each word. Output: 0.25 · Σ of the
/// distinct embeddings that lead to a token.
pub(super) fn matrices(vocabulary: &Vocabulary, embd: u32, noise: &mut Noise) -> Matrices {
    let width = usize::try_from(embd).unwrap_or_default();
    let prompt = noise.signs(width);
    let end = noise.signs(width);
    let own: Vec<Vec<f32>> = (vocabulary.first_word..vocabulary.tokens.len())
        .map(|_| noise.signs(width))
        .collect();
    let row = |token: usize| match token.checked_sub(vocabulary.first_word) {
        Some(word) => own.get(word).unwrap_or(&end),
        None if token == END_INDEX => &end,
        None => &prompt,
    };
    let embedding = (0..vocabulary.tokens.len()).flat_map(row).copied().collect();

    let last = vocabulary.first_word + vocabulary.words - 1;
    let output = (0..vocabulary.tokens.len())
        .flat_map(|token| {
            let mut sum = vec![0.0_f32; width];
            let mut add = |row: &[f32]| sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += 0.25 * value);
            if token == END_INDEX {
                add(&end);
                add(row(last));
            } else if token == vocabulary.first_word {
                add(&prompt);
            } else if (vocabulary.first_word + 1..=last).contains(&token) {
                add(row(token - 1));
            }
            sum
        })
        .collect();
    Matrices { embedding, output }
}

/// The sentence's words with SentencePiece's visible space; a repeated one gets an invisible mark, as tokens are unique.
fn words(sentence: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    sentence
        .split_whitespace()
        .map(|word| {
            let mut piece = if word == "." {
                word.to_owned()
            } else {
                format!("{VISIBLE_SPACE}{word}")
            };
            while !seen.insert(piece.clone()) {
                piece.push('\u{200b}');
            }
            piece
        })
        .collect()
}

const VISIBLE_SPACE: char = '\u{2581}';
const END_INDEX: usize = 2;
const FIRST_CHARACTER: usize = 3 + 256;
const KIND_NORMAL: i32 = 1;
const KIND_UNKNOWN: i32 = 2;
const KIND_CONTROL: i32 = 3;
const KIND_UNUSED: i32 = 5;
const KIND_BYTE: i32 = 6;
