//! A sealed model as plain files again.
//!
//! The folder gets its name when every file in it is whole and right; until then it lies beside, readable by its owner alone, and
//! is removed on failure. Paths come from the manifest: they are relative and in normal form, or the model is refused.

use std::fs::{self, DirBuilder, File};
use std::io::BufWriter;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::key::{self, KeyError};
use super::opened::{Layer, LayerError, Model, Problem, ReadError, Watching, each_layer, model_digest};
use crate::files::parent;
use crate::interrupt::Stop;
use crate::progress::Progress;
use crate::staging::{Staging, StagingError};
use crate::store::{Access, Location, StoreError};
use crate::units;

/// `cellactl model unseal`.
#[derive(Debug, clap::Args)]
pub(crate) struct UnsealArgs {
    /// The model: registry/repository:tag, registry/repository@digest or oci:DIR.
    model: Location,
    /// File of the key: 32 raw bytes, mode 0600.
    #[arg(long, visible_alias = "kek", value_name = "FILE")]
    key_file: PathBuf,
    /// Directory to make, mode 0700.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name that the model must have.
    #[arg(long, value_parser = super::seal::model_name)]
    name: Option<String>,
    /// Version that the model must be.
    #[arg(long)]
    version: Option<u64>,
    #[command(flatten)]
    access: Access,
}

pub(super) async fn run(args: &UnsealArgs, stop: Stop) -> Result<String, UnsealError> {
    let kek = Arc::new(key::load(&args.key_file)?);
    let model = Arc::new(Model::read(args.model.open(&args.access, "amd64").await?).await?);
    model.expect(args.name.as_deref(), args.version)?;
    for layer in model.layers.iter().filter(|layer| layer.layout.is_some()) {
        model.unwrap(layer, &kek)?;
    }
    let staging = Staging::fresh(&args.out, 0o700)?;
    let root = staging.path();
    let progress = Progress::start("unsealing", model.bytes());
    let watch = Watching {
        counter: progress.counter(),
        stop,
    };
    let opened = each_layer(&model, |model, layer| {
        let (kek, watch, root) = (Arc::clone(&kek), watch.clone(), root.clone());
        async move {
            let file = create(&root, &layer)?;
            let (file, digest) = model.open(&layer, Some(&kek), BufWriter::new(file), &watch).await?;
            let written = file.into_inner().map_err(std::io::IntoInnerError::into_error);
            written
                .and_then(|file| file.sync_data())
                .map_err(|source| layer.error(StoreError::from(source)))?;
            Ok((layer.index, digest))
        }
    });
    let digests = opened.await?;
    staging.publish()?;
    progress.finish("unsealed");
    let plain = model.layers.iter().fold(0_u64, |sum, layer| {
        let length = layer
            .layout
            .map_or(layer.descriptor.size, |layout| layout.plaintext_len());
        sum.saturating_add(length)
    });
    let pin = model_digest(&model, &digests).map(|digest| format!("{}\n", super::pinned(digest)));
    Ok(format!(
        "{}: {} version {}, {} files, {} bytes\n{}",
        args.out.display(),
        model.name,
        model.version,
        model.layers.len(),
        units::grouped(plain),
        pin.unwrap_or_default()
    ))
}

/// A new file of the model below `root`.
fn create(root: &Path, layer: &Layer) -> Result<File, LayerError> {
    let path = root.join(layer.path.as_ref());
    let failed = |source| {
        layer.error(Problem::Write {
            file: layer.path.to_string(),
            source,
        })
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent(&path))
        .map_err(failed)?;
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)
}

/// Why a model was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum UnsealError {
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Manifest and configuration.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Reading it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The folder's place.
    #[error(transparent)]
    Staging(#[from] StagingError),
}
