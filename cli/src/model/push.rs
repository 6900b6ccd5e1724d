//! From an OCI layout to a registry.

use std::path::PathBuf;

use cella_oci::Reference;

use super::opened::{Model, ReadError};
use crate::interrupt::Stop;
use crate::layout::Layout;
use crate::store::{Access, Location};
use crate::transfer;

/// `cellactl model push`.
#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// Directory of the layout.
    layout: PathBuf,
    /// Where to: registry/repository:tag.
    reference: Reference,
    #[command(flatten)]
    access: Access,
}

pub(super) async fn run(args: &PushArgs, stop: Stop) -> Result<String, ReadError> {
    let location = Location::Layout(args.layout.clone());
    // Something else in the layout is better refused here than by a guest.
    Model::read(location.open(&args.access, "amd64").await?).await?;
    let layout = Layout::open(&args.layout).map_err(crate::store::StoreError::from)?;
    let pushed = transfer::push(&layout, &args.reference, &args.access, Some(stop)).await?;
    Ok(format!("{pushed}\n"))
}
