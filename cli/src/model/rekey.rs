//! A sealed model under another key.
//!
//! Without `--deep` the files' keys stay and are wrapped anew: ciphertext, name, version and layer digests are the same, the
//! manifest is another. Whoever had the old key and an old manifest can still open the files: where that matters, `--deep` seals
//! every file anew, under a key of its own that nobody had.

use std::io::{self, Write};
use std::path::PathBuf;

use cella_oci::modelpack::VERSION_ANNOTATION;
use cella_oci::{Manifest, Reference, media_type};
use cella_seal::packet::{self, PROVIDER_ANNOTATION, PUBOPTS_ANNOTATION, PacketError, PrivateOptions};
use cella_seal::place::{self, PlaceError};
use cella_seal::stream::{SealError, SealWriter};
use cella_seal::{DataKey, Kek, PlainDigest, RandomError};

use super::key::{self, KeyArgs, KeyError, RegisterArgs};
use super::opened::{Layer, LayerError, Model, ReadError, Watching};
use super::seal::PUBLIC;
use crate::interrupt::Stop;
use crate::layout::{Layout, LayoutError};
use crate::progress::Progress;
use crate::staging::{Staging, StagingError};
use crate::store::{Access, Location, StoreError};
use crate::transfer;

/// `cellactl model rekey`.
#[derive(Debug, clap::Args)]
pub(crate) struct RekeyArgs {
    /// The model: registry/repository:tag, registry/repository@digest or oci:DIR.
    model: Location,
    /// File of the key that it is under now.
    #[arg(long, value_name = "FILE")]
    old_key_file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    register: RegisterArgs,
    /// Give each file a new key too, and seal it anew.
    #[arg(long)]
    deep: bool,
    /// Version that the new sealing binds. The same by default.
    #[arg(long, requires = "deep", value_parser = clap::value_parser!(u64).range(1..=i64::MAX.unsigned_abs()))]
    version: Option<u64>,
    /// Directory to make: an OCI layout.
    #[arg(long, value_name = "LAYOUT_DIR", required_unless_present = "push")]
    out: Option<PathBuf>,
    /// Where to push the new manifest: the repository that the model lies in, since nothing else changes.
    #[arg(long, value_name = "REFERENCE", conflicts_with_all = ["deep", "out"])]
    push: Option<Reference>,
    #[command(flatten)]
    access: Access,
}

pub(super) async fn run(args: &RekeyArgs, stop: Stop) -> Result<String, RekeyError> {
    let old = key::load(&args.old_key_file)?;
    let model = Model::read(args.model.open(&args.access, "amd64").await?).await?;
    if let (Some(to), from) = (&args.push, &args.model) {
        let same = matches!(from, Location::Registry(from)
            if (&from.registry, &from.repository) == (&to.registry, &to.repository));
        if !same || to.digest.is_some() {
            return Err(RekeyError::OtherRepository { to: to.to_string() });
        }
    }
    // All of them, before a key is made or stored.
    for layer in model.layers.iter().filter(|layer| layer.layout.is_some()) {
        model.unwrap(layer, &old)?;
    }
    let ready = key::ready(&args.key, &args.register).await?;
    if ready.kek.same_as(&old) {
        return Err(RekeyError::SameKey {
            path: args.key.key_file.clone(),
        });
    }
    let job = Job {
        model: &model,
        old: &old,
        new: &ready.kek,
        kid: args.key.key.as_str(),
        version: args.version.unwrap_or(model.version),
    };
    let said = match (&args.out, &args.push) {
        (Some(out), _) => {
            let staging = Staging::fresh(out, 0o755)?;
            let layout = Layout::create(&staging.path())?;
            let progress = Progress::start("rekeying", model.bytes());
            let watch = Watching {
                counter: progress.counter(),
                stop,
            };
            let mut manifest = model.artifact.manifest.clone();
            for layer in &model.layers {
                job.layer(layer, args.deep, &layout, &mut manifest, &watch).await?;
            }
            manifest
                .annotations
                .insert(VERSION_ANNOTATION.to_owned(), job.version.to_string());
            let config = model.artifact.config(cella_oci::modelpack::MAX_CONFIG).await?;
            layout.put(&manifest.config.media_type, &config)?;
            let name = format!("{}:v{}", model.name, job.version);
            let published = layout.publish(&manifest, Some(&name))?;
            staging.publish()?;
            progress.finish("rekeyed");
            format!("{}\n{}\n", out.display(), published.digest)
        }
        (None, Some(to)) => {
            let mut manifest = model.artifact.manifest.clone();
            for layer in &model.layers {
                job.wrap(layer, &mut manifest)?;
            }
            let bytes = manifest.to_json().map_err(StoreError::from)?;
            let registry = args.access.registry(&to.registry)?;
            let digest = transfer::push_manifest(&registry, to, media_type::OCI_MANIFEST, bytes).await?;
            format!("{}\n", to.with_digest(digest))
        }
        // clap demands one of them.
        (None, None) => return Err(RekeyError::NoPlace),
    };
    ready.finish(&model.name, job.version).await?;
    Ok(said)
}

struct Job<'a> {
    model: &'a Model,
    old: &'a Kek,
    new: &'a Kek,
    kid: &'a str,
    version: u64,
}

impl Job<'_> {
    /// One layer into the new layout.
    async fn layer(
        &self,
        layer: &Layer,
        deep: bool,
        layout: &Layout,
        manifest: &mut Manifest,
        watch: &Watching,
    ) -> Result<(), RekeyError> {
        if deep && layer.layout.is_some() {
            return self.seal_anew(layer, layout, manifest, watch).await;
        }
        match self.model.layout() {
            Some(from) => {
                layout.take_over(from, &layer.descriptor)?;
                watch.counter.add(layer.descriptor.size);
            }
            None => {
                let mut staged = layout.stage()?;
                let copied = self.model.artifact.store.stream(&layer.descriptor, |bytes| {
                    if watch.stop.is_set() {
                        return Err(StoreError::Stopped);
                    }
                    watch.counter.add(bytes.len() as u64);
                    staged.write_all(bytes).map_err(StoreError::from)
                });
                copied.await.map_err(|error| layer.error(error))?;
                staged.commit(&layer.descriptor.media_type)?;
            }
        }
        self.wrap(layer, manifest)
    }

    /// The layer's key under the new one; everything else stays.
    fn wrap(&self, layer: &Layer, manifest: &mut Manifest) -> Result<(), RekeyError> {
        if layer.layout.is_none() {
            return Ok(());
        }
        let opened = self.model.unwrap(layer, self.old)?;
        let annotations = packet::wrap_layer(&opened.public, &opened.private, self.new, self.kid)?;
        self.write(layer, manifest, |descriptor| {
            descriptor.annotations.remove(PROVIDER_ANNOTATION);
            descriptor.annotations.remove(PUBOPTS_ANNOTATION);
            descriptor.annotations.extend(annotations);
        });
        Ok(())
    }

    /// Opens the layer and seals it at once again, under a key that is drawn for it.
    async fn seal_anew(
        &self,
        layer: &Layer,
        layout: &Layout,
        manifest: &mut Manifest,
        watch: &Watching,
    ) -> Result<(), RekeyError> {
        let key = DataKey::random()?;
        let data = place::associated_data(&self.model.name, layer.path.as_str(), self.version)?;
        let staged = layout.stage()?;
        let sealing = SealWriter::new(&key, &data, staged)?;
        let (sealing, _) = self.model.open(layer, Some(self.old), NoFlush(sealing), watch).await?;
        let (staged, _) = sealing.0.finish()?;
        let blob = staged.commit(&layer.descriptor.media_type)?;
        let private = PrivateOptions {
            symkey: key,
            digest: PlainDigest(*layer.diff_id.as_bytes()),
            nonce: None,
        };
        let annotations = packet::wrap_layer(&PUBLIC, &private, self.new, self.kid)?;
        self.write(layer, manifest, |descriptor| {
            (descriptor.digest, descriptor.size) = (blob.digest, blob.size);
            descriptor.annotations.remove(PROVIDER_ANNOTATION);
            descriptor.annotations.remove(PUBOPTS_ANNOTATION);
            descriptor.annotations.extend(annotations);
        });
        Ok(())
    }

    fn write(&self, layer: &Layer, manifest: &mut Manifest, change: impl FnOnce(&mut cella_oci::Descriptor)) {
        if let Some(descriptor) = manifest.layers.get_mut(layer.index) {
            change(descriptor);
        }
    }
}

/// Hands writes on; the sealing below is ended by whoever made it.
struct NoFlush<W>(W);

impl<W: Write> Write for NoFlush<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a model was not put under another key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RekeyError {
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Manifest and configuration.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Reading it, or pushing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The new layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Its place.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// The new key is the old one.
    #[error("{} holds the key that the model is under already", path.display())]
    SameKey { path: PathBuf },
    /// The layers are not there.
    #[error("{to}: only the manifest is pushed, and by tag: name the repository that the model lies in, or use --out")]
    OtherRepository { to: String },
    /// Nowhere to write to.
    #[error("name a place for the model: --out or --push")]
    NoPlace,
    /// A file was not sealed anew.
    #[error("sealing a file anew")]
    Seal(#[from] SealError),
    /// Name or path cannot be bound.
    #[error("the model's name or a path in it cannot be bound")]
    Place(#[from] PlaceError),
    /// No random bytes.
    #[error("drawing a file's key")]
    Random(#[from] RandomError),
    /// The key could not be wrapped.
    #[error("wrapping a file's key")]
    Packet(#[from] PacketError),
}
