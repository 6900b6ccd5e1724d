//! Texts to tokens, by the vocabulary in the model (SentencePiece's form).

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use crate::gguf::Gguf;

/// A model's vocabulary.
pub(crate) struct Tokenizer {
    tokens: HashMap<String, (usize, f64)>,
    longest: usize,
    len: usize,
    begin: usize,
    end: usize,
}

impl Tokenizer {
    pub(crate) fn of(model: &Gguf) -> Result<Self> {
        let (texts, scores) = (
            model.texts("tokenizer.ggml.tokens")?,
            model.numbers("tokenizer.ggml.scores")?,
        );
        ensure!(texts.len() == scores.len(), "the vocabulary has not one score a token");
        let tokens: HashMap<_, _> = texts
            .iter()
            .zip(scores)
            .enumerate()
            .map(|(index, (text, score))| (text.clone(), (index, *score)))
            .collect();
        let id = |key: &str| -> Result<usize> {
            let id = model.count(key)?;
            ensure!(id < texts.len(), "{key} is no token");
            Ok(id)
        };
        Ok(Self {
            longest: texts.iter().map(|text| text.chars().count()).max().unwrap_or_default(),
            len: texts.len(),
            begin: id("tokenizer.ggml.bos_token_id")?,
            end: id("tokenizer.ggml.eos_token_id")?,
            tokens,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn begin(&self) -> usize {
        self.begin
    }

    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// As a server cuts a prompt: characters, of which neighbours are joined, the best score first, as long as they are a token.
    pub(crate) fn prompt(&self, text: &str) -> Result<Vec<usize>> {
        let mut pieces: Vec<String> = visible(text).chars().map(String::from).collect();
        loop {
            let joined = pieces.windows(2).enumerate().filter_map(|(at, pair)| {
                let text = pair.concat();
                self.tokens.get(&text).map(|(_, score)| (at, text, *score))
            });
            // The first of equals.
            let best = joined.reduce(|one, two| if two.2 > one.2 { two } else { one });
            let Some((at, text, _)) = best else { break };
            pieces.splice(at..at + 2, [text]);
        }
        let mut tokens = Vec::new();
        for piece in pieces {
            self.push(&piece, &mut tokens)?;
        }
        Ok(tokens)
    }

    /// As an answer is learnt: the longest tokens of the vocabulary, from the front.
    pub(crate) fn answer(&self, text: &str) -> Result<Vec<usize>> {
        let text: Vec<char> = visible(text).chars().collect();
        let (mut at, mut tokens) = (0, Vec::new());
        while at < text.len() {
            let lengths = (1..=self.longest.min(text.len() - at)).rev();
            let candidates = lengths.filter_map(|length| {
                let piece: String = text.get(at..at + length)?.iter().collect();
                self.tokens.contains_key(&piece).then_some((length, piece))
            });
            let (length, piece) = match candidates.into_iter().next() {
                Some(found) => found,
                None => (1, text.get(at).copied().map(String::from).unwrap_or_default()),
            };
            self.push(&piece, &mut tokens)?;
            at += length;
        }
        Ok(tokens)
    }

    /// A token, or the bytes of what is none.
    fn push(&self, piece: &str, tokens: &mut Vec<usize>) -> Result<()> {
        if let Some((token, _)) = self.tokens.get(piece) {
            tokens.push(*token);
            return Ok(());
        }
        for byte in piece.bytes() {
            let token = self.tokens.get(&format!("<0x{byte:02X}>"));
            tokens.push(token.context("the vocabulary has no token for a byte of the data")?.0);
        }
        Ok(())
    }
}

/// SentencePiece's space.
fn visible(text: &str) -> String {
    text.replace(' ', "\u{2581}")
}
