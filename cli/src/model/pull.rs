//! From a registry, or its mirrors, to an OCI layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use cella_oci::{Descriptor, Digest, Reference, media_type};

use super::opened::{Model, ReadError};
use crate::interrupt::Stop;
use crate::layout::Layout;
use crate::progress::Progress;
use crate::staging::{Staging, StagingError};
use crate::store::{Access, Artifact, StoreError};
use crate::transfer::{Pulling, Source, Watch};

/// `cellactl model pull`.
#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// The model: registry/repository:tag or registry/repository@digest.
    reference: Reference,
    /// Directory to make: an OCI layout.
    out: PathBuf,
    /// A registry to ask before the one of the reference, host:port; it has the same repository. Repeat for more, which are
    /// asked in this order. What a tag means is asked of the reference's own.
    #[arg(long, value_name = "HOST:PORT")]
    mirror: Vec<String>,
    #[command(flatten)]
    access: Access,
}

pub(super) async fn run(args: &PullArgs, stop: Stop) -> Result<String, PullError> {
    let mut staging = Staging::resume(&args.out, 0o755)?;
    let repository = &args.reference.repository;
    let names = args.mirror.iter().chain([&args.reference.registry]);
    let sources = names
        .map(|name| {
            Ok(Source {
                registry: args.access.registry(name)?,
                repository: repository.clone(),
            })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    let model = Model::read(resolve(args, &sources).await?).await?;
    let layout = Layout::resume(&staging.path()).map_err(StoreError::from)?;
    let manifest = &model.artifact.manifest;
    let blobs: BTreeMap<Digest, Descriptor> = manifest
        .layers
        .iter()
        .chain([&manifest.config])
        .map(|blob| (blob.digest, blob.clone()))
        .collect();
    tidy(&layout, &blobs)?;
    check_room(&layout, &blobs)?;
    // From here on what came is worth keeping.
    staging.keep();
    let progress = Progress::start(
        "pulling",
        blobs.values().fold(0, |sum: u64, blob| sum.saturating_add(blob.size)),
    );
    let pulling = Pulling {
        sources,
        layout: layout.clone(),
        watch: Watch {
            counter: progress.counter(),
            stop,
        },
    };
    pulling.run(blobs.into_values().collect()).await?;
    let kind = manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST);
    let name = format!("{}:v{}", model.name, model.version);
    layout
        .publish_bytes(kind, &model.artifact.bytes, Some(&name))
        .map_err(StoreError::from)?;
    staging.publish()?;
    progress.finish("pulled");
    Ok(format!("{}\n", args.reference.with_digest(model.artifact.digest)))
}

/// The manifest: what a tag means is said by the reference's own registry, a digest by any.
async fn resolve(args: &PullArgs, sources: &[Source]) -> Result<Artifact, StoreError> {
    let asked = if args.reference.digest.is_some() {
        sources
    } else {
        sources.split_at(sources.len().saturating_sub(1)).1
    };
    let mut outcome = Err(StoreError::NoSource);
    for source in asked {
        outcome = Artifact::pull(source.registry.clone(), &args.reference, "amd64").await;
        match &outcome {
            Ok(_) => break,
            Err(error) => eprintln!("{}: {error}", source.registry.name()),
        }
    }
    outcome
}

/// Removes what an earlier run left that is not of this model.
fn tidy(layout: &Layout, blobs: &BTreeMap<Digest, Descriptor>) -> Result<(), StoreError> {
    for entry in fs::read_dir(layout.blobs())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let hex = name.strip_suffix(".part").unwrap_or(name);
        if !blobs.keys().any(|digest| digest.hex() == hex) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Refuses early what would not fit.
fn check_room(layout: &Layout, blobs: &BTreeMap<Digest, Descriptor>) -> Result<(), StoreError> {
    let wanted = blobs.values().fold(0, |sum: u64, blob| sum.saturating_add(blob.size));
    let here: u64 = fs::read_dir(layout.blobs())?
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .fold(0, |sum, file| sum.saturating_add(file.len()));
    let needed = wanted.saturating_sub(here);
    let room = rustix::fs::statvfs(layout.root()).map_err(std::io::Error::from)?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if needed > free {
        return Err(StoreError::Room {
            path: layout.root().to_owned(),
            free,
            needed,
        });
    }
    Ok(())
}

/// Why a model was not pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PullError {
    /// The layout's place.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// The registries.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is no model.
    #[error(transparent)]
    Read(#[from] ReadError),
}
