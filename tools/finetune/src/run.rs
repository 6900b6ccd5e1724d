//! The job from its files to its file.

use std::{fs, io::Write, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    Args,
    gguf::{Gguf, Matrix},
    head::{Lora, Position},
    llama::Llama,
    tokenizer::Tokenizer,
};

/// One line of the data.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    prompt: String,
    answer: String,
}

pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<()> {
    let model = Gguf::parse(read(&args.model)?).with_context(|| args.model.display().to_string())?;
    let tokenizer = Tokenizer::of(&model)?;
    let llama = Llama::of(&model, tokenizer.len())?;
    let head = model.matrix(HEAD, tokenizer.len(), llama.width())?;
    let positions = positions(&examples(&args.data)?, &tokenizer, &llama)?;
    let base: Vec<Vec<f32>> = positions.iter().map(|position| head.times(&position.hidden)).collect();
    writeln!(
        out,
        "positions {} rank {} steps {}",
        positions.len(),
        args.rank,
        args.steps
    )?;
    let mut lora = Lora::new(&head, usize::from(args.rank), args.seed);
    for step in 1..=args.steps {
        let loss = lora.step(&positions, &base, args.rate, step);
        ensure!(
            loss.is_finite(),
            "the loss at step {step} is not a number: a smaller --rate may help"
        );
        if step == 1 || step % 10 == 0 {
            writeln!(out, "step {step} loss {loss:.6}")?;
        }
    }
    writeln!(out, "final loss {:.6}", lora.loss(&positions, &base))?;
    let merged = lora.merged(&head);
    let bytes = model.with(HEAD, &merged)?;
    writeln!(out, "merged loss {:.6}", merged_loss(&bytes, &tokenizer, &positions)?)?;
    fs::write(&args.out, bytes).with_context(|| format!("writing {}", args.out.display()))?;
    writeln!(out, "written")?;
    Ok(())
}

/// The loss of the file that is written, read back: what a server will serve.
fn merged_loss(bytes: &[u8], tokenizer: &Tokenizer, positions: &[Position]) -> Result<f32> {
    let model = Gguf::parse(bytes.to_vec())?;
    let width = positions.first().map_or(0, |position| position.hidden.len());
    let head: Matrix = model.matrix(HEAD, tokenizer.len(), width)?;
    let base: Vec<Vec<f32>> = positions.iter().map(|position| head.times(&position.hidden)).collect();
    Ok(Lora::new(&head, 1, 0).loss(positions, &base))
}

/// Every position of every example at which a token of the answer, or its end, is to follow.
fn positions(examples: &[Example], tokenizer: &Tokenizer, llama: &Llama) -> Result<Vec<Position>> {
    let mut positions = Vec::new();
    for example in examples {
        let mut tokens = vec![tokenizer.begin()];
        tokens.extend(tokenizer.prompt(&example.prompt)?);
        let answer_at = tokens.len();
        tokens.extend(tokenizer.answer(&example.answer)?);
        tokens.push(tokenizer.end());
        ensure!(
            tokens.len() <= MAX_TOKENS,
            "an example has {} tokens, {MAX_TOKENS} is the most",
            tokens.len()
        );
        let following = tokens.iter().skip(answer_at).copied();
        let hidden = llama.hidden(&tokens);
        let seen = hidden.into_iter().skip(answer_at - 1);
        positions.extend(seen.zip(following).map(|(hidden, next)| Position { hidden, next }));
    }
    Ok(positions)
}

fn examples(path: &Path) -> Result<Vec<Example>> {
    let text = String::from_utf8(read(path)?).context("the data is not text")?;
    let lines = text.lines().filter(|line| !line.trim().is_empty()).enumerate();
    // The reason without the text: it is secret, and standard error may not be.
    let example = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .ok()
            .with_context(|| format!("example {} is no prompt and answer", number + 1))
    };
    let examples: Vec<Example> = lines.map(example).collect::<Result<_>>()?;
    ensure!(!examples.is_empty(), "the data has no example");
    Ok(examples)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

const HEAD: &str = "output.weight";
const MAX_TOKENS: usize = 2048;

#[cfg(test)]
mod tests;
