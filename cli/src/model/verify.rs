//! Whether a sealed model is whole and what it says.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::key::{self, KeyError};
use super::opened::{LayerError, Model, ReadError, Watching, each_layer, model_digest};
use crate::interrupt::Stop;
use crate::progress::Progress;
use crate::store::{Access, Location};
use crate::terminal::escaped;
use crate::units;

/// `cellactl model verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The model: registry/repository:tag, registry/repository@digest or oci:DIR.
    model: Location,
    /// File of the key: 32 raw bytes, mode 0600. With it every segment is opened; without it digests and structure are checked.
    #[arg(long, visible_alias = "kek", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Name that the model must have.
    #[arg(long, value_parser = super::seal::model_name)]
    name: Option<String>,
    /// Version that the model must be.
    #[arg(long)]
    version: Option<u64>,
    #[command(flatten)]
    access: Access,
}

pub(super) async fn run(args: &VerifyArgs, stop: Stop) -> Result<String, VerifyError> {
    let kek = args.key_file.as_deref().map(key::load).transpose()?.map(Arc::new);
    let model = Arc::new(Model::read(args.model.open(&args.access, "amd64").await?).await?);
    model.expect(args.name.as_deref(), args.version)?;
    // Before gigabytes are read: does the key fit?
    if let Some(kek) = &kek {
        for layer in model.layers.iter().filter(|layer| layer.layout.is_some()) {
            model.unwrap(layer, kek)?;
        }
    }
    let progress = Progress::start("verifying", model.bytes());
    let watch = Watching {
        counter: progress.counter(),
        stop,
    };
    let opened = each_layer(&model, |model, layer| {
        let (kek, watch) = (kek.clone(), watch.clone());
        async move {
            if layer.layout.is_some() && kek.is_none() {
                return model.check_stored(&layer, &watch).await.map(|()| None);
            }
            let opened = model.open(&layer, kek.as_deref(), io::sink(), &watch).await;
            opened.map(|(_, digest)| Some((layer.index, digest)))
        }
    });
    let digests: Vec<_> = opened.await?.into_iter().flatten().collect();
    progress.finish("verified");
    let sealed = model.layers.iter().filter_map(|layer| layer.layout);
    let segments = sealed.fold(0_u64, |sum, layout| sum + u64::from(layout.segments()));
    let said = match kek {
        Some(_) => format!(
            "{} segments are authentic, plaintext digests are right",
            units::grouped(segments)
        ),
        None => "digests are right; whether it opens is known with --key-file".to_owned(),
    };
    let (name, version, count) = (&model.name, model.version, model.layers.len());
    let mut out = format!("{name} version {version}, {count} files: {said}\n");
    if let Some(digest) = model_digest(&model, &digests) {
        for layer in model.layers.iter().filter(|layer| layer.layout.is_some()) {
            if let Some((_, digest)) = digests.iter().find(|(index, _)| *index == layer.index) {
                let _ = writeln!(out, "tree {digest}  {}", escaped(layer.path.as_str(), 1024));
            }
        }
        let _ = writeln!(out, "{}", super::pinned(digest));
    }
    let _ = writeln!(out, "{}", model.artifact.digest);
    Ok(out)
}

/// Why a model is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum VerifyError {
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Manifest and configuration.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Reading it.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
}
