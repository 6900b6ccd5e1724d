//! A fine-tuning job: LoRA on the output head of a llama model in GGUF, trained on prompts and answers, merged into a new file.
//!
//! For tests and as an example of a job whose output Cella seals. The forward pass is the model's own, in f32 on one core;
//! its blocks stay as they are, so their hidden states are computed once. What it prints tells losses and nothing of the data.
#![forbid(unsafe_code)]

mod gguf;
mod head;
mod llama;
mod run;
mod tokenizer;

use std::path::PathBuf;

use clap::Parser;

/// What to train, on what, and where to leave it.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The model: GGUF of the llama architecture, f32 or f16.
    #[arg(long)]
    model: PathBuf,
    /// JSON lines, each with a "prompt" and the "answer" that the model is to give.
    #[arg(long)]
    data: PathBuf,
    /// The tuned model.
    #[arg(long)]
    out: PathBuf,
    /// Width of the low-rank update.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    rank: u16,
    /// Steps over all of the data.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,
    /// Adam's step.
    #[arg(long, default_value_t = 0.02)]
    rate: f32,
    /// What the update begins as.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    run::run(&Args::parse(), &mut std::io::stdout())
}
