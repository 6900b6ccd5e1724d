//! `cellactl model`: sealed models as CNCF ModelPack artifacts.

mod demo;
mod facts;
mod files;
mod inspect;
mod seal;

#[cfg(test)]
mod tests;

pub(crate) use facts::{Facts, FactsError};

use crate::image::{self, PushArgs};

/// What to do with a model.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ModelCommand {
    /// Seal a model's files into an OCI layout: every segment authenticates itself and its place.
    Seal(seal::SealArgs),
    /// Push the artifact of an OCI layout to a registry. Prints its reference by digest.
    Push(PushArgs),
    /// Show what can be known about a sealed model without its key.
    Inspect(inspect::InspectArgs),
    /// Write a tiny but real language model that answers one fixed sentence.
    Demo(demo::DemoArgs),
}

/// Does it; returns what belongs on standard output.
pub(crate) async fn run(command: ModelCommand) -> anyhow::Result<String> {
    match command {
        ModelCommand::Seal(args) => Ok(seal::run(&args)?),
        ModelCommand::Push(args) => Ok(image::push(&args).await?),
        ModelCommand::Inspect(args) => Ok(inspect::run(&args).await?),
        ModelCommand::Demo(args) => Ok(demo::run(&args)?),
    }
}
