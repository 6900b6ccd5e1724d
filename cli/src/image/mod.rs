//! `cellactl image`: container images without a container engine.

mod build;
mod encrypt;
mod tree;
mod verify;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use cella_oci::Reference;

use crate::layout::Layout;
use crate::store::{Access, StoreError};
use crate::transfer;

/// What to do with an image.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ImageCommand {
    /// Make an image, as an OCI layout, from a directory tree. The same tree gives the same bytes.
    Build(build::BuildArgs),
    /// Push the artifact of an OCI layout to a registry. Prints its reference by digest.
    Push(PushArgs),
    /// Encrypt an image's layers (ocicrypt, key provider attestation-agent). Prints its reference by digest.
    Encrypt(encrypt::EncryptArgs),
}

/// `cellactl image push`.
#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// Directory of the layout.
    layout: PathBuf,
    /// Where to: registry/repository:tag.
    reference: Reference,
    #[command(flatten)]
    access: Access,
}

/// Does it; returns what belongs on standard output.
pub(crate) async fn run(command: ImageCommand) -> anyhow::Result<String> {
    match command {
        ImageCommand::Build(args) => Ok(build::run(&args)?),
        ImageCommand::Push(args) => Ok(push(&args).await?),
        ImageCommand::Encrypt(args) => Ok(encrypt::run(&args).await?),
    }
}

async fn push(args: &PushArgs) -> Result<String, StoreError> {
    let pushed = transfer::push(&Layout::open(&args.layout)?, &args.reference, &args.access, None).await?;
    Ok(format!("{pushed}\n"))
}
