//! `cellactl model`: sealed models as CNCF ModelPack artifacts.

mod demo;
mod facts;
mod files;
mod inspect;
mod key;
mod opened;
mod pull;
mod push;
mod rekey;
mod seal;
mod unseal;
mod verify;

#[cfg(test)]
mod tests;

use cella_seal::tree::Blake3Digest;
pub(crate) use facts::{Facts, FactsError};

use crate::interrupt::Stop;

/// What a policy's `[[model]]` says to take this plaintext and no other, to be copied.
fn pinned(digest: Blake3Digest) -> String {
    format!("pin  provenance = \"digest\"\n     digest = \"{digest}\"")
}

/// What to do with a model.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ModelCommand {
    /// Seal a model's files into an OCI layout or a registry: every segment authenticates itself and its place.
    Seal(Box<seal::SealArgs>),
    /// Push the sealed model of an OCI layout to a registry; an interrupted push goes on. Prints its reference by digest.
    Push(push::PushArgs),
    /// Pull a sealed model into an OCI layout; an interrupted pull goes on.
    Pull(pull::PullArgs),
    /// Show what everybody can know about a sealed model without its key: what the host sees.
    Inspect(inspect::InspectArgs),
    /// Check a sealed model: structure and digests, and with its key every segment; computes what a policy's digest pins. Writes nothing.
    Verify(verify::VerifyArgs),
    /// Open a sealed model into a folder.
    Unseal(unseal::UnsealArgs),
    /// Put a sealed model under another key.
    Rekey(Box<rekey::RekeyArgs>),
    /// Write a tiny but real language model that answers one fixed sentence.
    Demo(demo::DemoArgs),
}

/// Does it; returns what belongs on standard output.
pub(crate) async fn run(command: ModelCommand) -> anyhow::Result<String> {
    match command {
        ModelCommand::Seal(args) => Ok(seal::run(&args, Stop::on_signal()).await?),
        ModelCommand::Push(args) => Ok(push::run(&args, Stop::on_signal()).await?),
        ModelCommand::Pull(args) => Ok(pull::run(&args, Stop::on_signal()).await?),
        ModelCommand::Inspect(args) => Ok(inspect::run(&args).await?),
        ModelCommand::Verify(args) => Ok(verify::run(&args, Stop::on_signal()).await?),
        ModelCommand::Unseal(args) => Ok(unseal::run(&args, Stop::on_signal()).await?),
        ModelCommand::Rekey(args) => Ok(rekey::run(&args, Stop::on_signal()).await?),
        ModelCommand::Demo(args) => Ok(demo::run(&args)?),
    }
}
