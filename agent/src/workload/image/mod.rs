//! Images: pulled by the policy's digest, decrypted, unpacked, and shown only when every layer is right.
//!
//! ```text
//!  manifest ─▶ configuration ─▶ keys ─▶ layers, several at once ─▶ all right? ─▶ rename to ready
//!  (digest)    (digest)                 (see `layer`)               no: removed
//! ```
//! Bytes parsed here: manifest and configuration after their digests were checked; layers, which are checked at their end,
//! in [`layer`], [`archive`] and [`unpack`].

mod archive;
mod budget;
mod layer;
mod unpack;
mod zstd;

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use cella_oci::image::{ImageConfig, ImageLayer, MAX_CONFIG, layers};
use cella_policy::{ContainerPolicy, KeyId};
use cella_seal::{layer::LayerKeys, packet};
use slog::{Logger, info};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
};

pub(crate) use budget::Budget;

use self::layer::{LayerFailure, LayerPlan, unpack_layer};
use super::{
    error::{Cause, LayerFault, Subject, WorkloadError},
    keys::Keyring,
    outcome::Outcome,
    registries::{Artifact, Registries},
    store::Store,
};

/// Most layers of an image; Docker's own limit.
const MAX_LAYERS: usize = 127;

/// Chunks of one layer that wait for its thread.
const QUEUE: usize = 16;

/// A root file system to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// Directories for overlayfs, the highest first. Read-only from now on.
    pub lower_dirs: Vec<PathBuf>,
    /// Whom the image's configuration runs as: user, and group after a colon, by name or number; empty = root.
    pub user: String,
}

/// What the policy says about one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageRules {
    /// Keys that its layers may be encrypted with.
    keys: Vec<KeyId>,
    /// Layers that are not encrypted are refused.
    require_encrypted: bool,
}

impl ImageRules {
    /// The rules for the image of `container`.
    pub(crate) fn of(container: &ContainerPolicy) -> Self {
        Self {
            keys: container.image_keys.clone(),
            require_encrypted: container.require_encrypted,
        }
    }
}

/// Everything that pulling one image takes.
#[derive(Clone, Debug)]
pub(crate) struct ImagePull {
    artifact: Artifact,
    rules: ImageRules,
    store: Arc<Store>,
    budget: Arc<Budget>,
    /// One permit for each layer that is worked on.
    workers: Arc<Semaphore>,
    log: Logger,
}

impl ImagePull {
    /// A pull of the image of `container` into `store`, with at most `parallel` layers at a time.
    pub(crate) fn new(
        container: &ContainerPolicy,
        registries: &Registries,
        store: Arc<Store>,
        budget: Arc<Budget>,
        parallel: usize,
        log: &Logger,
    ) -> Result<Self, WorkloadError> {
        let image = &container.image;
        let subject = Subject::Image(format!("{}/{}", image.registry(), image.repository()));
        Ok(Self {
            artifact: registries.artifact(image, subject)?,
            rules: ImageRules::of(container),
            store,
            budget,
            workers: Arc::new(Semaphore::new(parallel.max(1))),
            log: log.clone(),
        })
    }

    /// Pulls it. Keys are waited for when the first encrypted layer is known.
    pub(crate) async fn run(self, keys: Outcome<Arc<Keyring>>) -> Result<Rootfs, WorkloadError> {
        let manifest = self.artifact.manifest().await?;
        let config = self.artifact.blob(&manifest.config, MAX_CONFIG).await?;
        let config = ImageConfig::parse(&config).map_err(|error| self.artifact.content(error))?;
        let layers = layers(&manifest, &config).map_err(|error| self.artifact.content(error))?;
        if layers.is_empty() || layers.len() > MAX_LAYERS {
            return Err(self.artifact.content(LayerCount { found: layers.len() }));
        }
        let plans = self.plans(layers, keys).await?;
        let staging = self
            .store
            .stage()
            .map_err(|error| WorkloadError::internal("making room for an image", error))?;
        let count = plans.len();
        let result = self.layers(plans, staging.path()).await;
        let result = result.and_then(|()| self.artifact.check_dates());
        // Blocking: thousands of files may have to go.
        let placed = tokio::task::spawn_blocking(move || match result {
            Ok(()) => staging
                .publish()
                .map_err(|error| WorkloadError::internal("publishing an image", error)),
            Err(error) => {
                drop(staging);
                Err(error)
            }
        });
        let ready = placed
            .await
            .map_err(|error| WorkloadError::internal("publishing an image", error))??;
        info!(self.log, "image ready"; "image" => %self.artifact.subject, "layers" => count);
        Ok(Rootfs {
            lower_dirs: (0..count).rev().map(|index| ready.join(index.to_string())).collect(),
            user: config.config.user,
        })
    }

    /// Checks every layer against the rules and finds its key, before any of them is fetched.
    async fn plans(
        &self,
        layers: Vec<ImageLayer>,
        keys: Outcome<Arc<Keyring>>,
    ) -> Result<Vec<(ImageLayer, Option<LayerKeys>)>, WorkloadError> {
        let naked = layers.iter().position(|layer| !layer.encrypted);
        if let (true, Some((index, layer))) = (
            self.rules.require_encrypted,
            naked.and_then(|at| Some((at, layers.get(at)?))),
        ) {
            return Err(self.fault(index, layer, LayerFault::NotEncrypted));
        }
        let keyring = if layers.iter().any(|layer| layer.encrypted) {
            keys.wait().await?
        } else {
            Arc::new(Keyring::empty())
        };
        let mut plans = Vec::with_capacity(layers.len());
        for (index, layer) in layers.into_iter().enumerate() {
            let keys = if layer.encrypted {
                let find = |kid: &str| keyring.find(&self.rules.keys, kid);
                let unwrapped = packet::unwrap_layer(&layer.descriptor.annotations, find);
                let keys = unwrapped.and_then(packet::UnwrappedLayer::for_image);
                Some(keys.map_err(|error| self.fault(index, &layer, LayerFault::Key(Cause::new(error))))?)
            } else {
                None
            };
            plans.push((layer, keys));
        }
        Ok(plans)
    }

    /// All layers, each into its own directory under `root`. When this returns, no thread writes there any more.
    async fn layers(&self, plans: Vec<(ImageLayer, Option<LayerKeys>)>, root: &Path) -> Result<(), WorkloadError> {
        let all = u32::try_from(self.workers.available_permits()).unwrap_or(u32::MAX);
        let mut pulls = JoinSet::new();
        for (index, (layer, keys)) in plans.into_iter().enumerate() {
            let (this, into) = (self.clone(), root.join(index.to_string()));
            pulls.spawn(async move { this.layer(index, layer, keys, into).await });
        }
        let mut result = Ok(());
        while result.is_ok() {
            let Some(ended) = pulls.join_next().await else { break };
            result = ended.unwrap_or_else(|error| Err(WorkloadError::internal("pulling a layer", error)));
        }
        pulls.shutdown().await;
        // Each thread holds its permit to its end.
        let _quiet = self.workers.acquire_many(all).await;
        result
    }

    /// One layer: fetches it, and feeds the thread that unpacks it.
    async fn layer(
        &self,
        index: usize,
        layer: ImageLayer,
        keys: Option<LayerKeys>,
        into: PathBuf,
    ) -> Result<(), WorkloadError> {
        let permit = Arc::clone(&self.workers).acquire_owned().await;
        let permit = permit.map_err(|error| WorkloadError::internal("waiting for a thread", error))?;
        DirBuilder::new()
            .mode(0o755)
            .create(&into)
            .map_err(|error| WorkloadError::internal("making room for a layer", error))?;
        let plan = LayerPlan {
            digest: layer.descriptor.digest,
            size: layer.descriptor.size,
            compression: layer.compression,
            keys,
            diff_id: layer.diff_id,
        };
        let (feed, chunks) = mpsc::channel(QUEUE);
        let unpacked = self.unpack(plan, chunks, into, permit)?;
        self.feed(&layer, feed).await?;
        match unpacked.await {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(devices)) => {
                info!(self.log, "device nodes left out"; "image" => %self.artifact.subject, "layer" => index,
                    "count" => devices);
                Ok(())
            }
            Ok(Err(LayerFailure::Fault(fault))) => Err(self.fault(index, &layer, fault)),
            Ok(Err(LayerFailure::Space)) => Err(WorkloadError::ImageMemory {
                image: self.name(),
                free: self.budget.limit(),
            }),
            Ok(Err(LayerFailure::Internal(cause))) => Err(WorkloadError::Internal {
                doing: "unpacking a layer",
                cause,
            }),
            Err(error) => Err(WorkloadError::internal("unpacking a layer", error)),
        }
    }

    /// Starts the layer's thread. It is not one of the runtime's: it gets another root directory.
    fn unpack(
        &self,
        plan: LayerPlan,
        chunks: mpsc::Receiver<Bytes>,
        into: PathBuf,
        permit: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<u64, LayerFailure>>, WorkloadError> {
        let (done, unpacked) = oneshot::channel();
        let budget = Arc::clone(&self.budget);
        let work = move || {
            let result = unpack_layer(plan, chunks, &into, budget);
            // Nobody waits any more when the pull was given up.
            let _ = done.send(result);
            drop(permit);
        };
        let thread = std::thread::Builder::new().name("unpack".to_owned()).spawn(work);
        thread.map_err(|error| WorkloadError::internal("starting a thread", error))?;
        Ok(unpacked)
    }

    /// Sends the blob, chunk by chunk. A connection that breaks is taken up again where it broke. What comes is at most one chunk
    /// longer than the manifest says; the thread compares the length.
    async fn feed(&self, layer: &ImageLayer, feed: mpsc::Sender<Bytes>) -> Result<(), WorkloadError> {
        let (digest, size) = (&layer.descriptor.digest, layer.descriptor.size);
        let mut patience = self.artifact.patience();
        let mut sent = 0;
        loop {
            let range = (sent > 0).then_some(sent..size);
            let error = match self.artifact.stream(&patience, digest, range).await {
                Err(error) => error,
                Ok(mut stream) => loop {
                    match stream.chunk().await {
                        Ok(None) => return Ok(()),
                        Ok(Some(chunk)) => {
                            patience.renew();
                            sent = stream.offset();
                            // A thread that takes no more has found a fault, and its answer says which.
                            if feed.send(chunk).await.is_err() || sent > size {
                                return Ok(());
                            }
                        }
                        Err(error) => break error,
                    }
                },
            };
            if sent == size {
                return Ok(());
            }
            patience
                .after(error)
                .await
                .map_err(|error| self.artifact.failed(error))?;
        }
    }

    fn fault(&self, layer: usize, of: &ImageLayer, fault: LayerFault) -> WorkloadError {
        WorkloadError::Layer {
            image: self.name(),
            layer,
            digest: of.descriptor.digest,
            fault,
        }
    }

    fn name(&self) -> String {
        match &self.artifact.subject {
            Subject::Image(name) | Subject::Model(name) | Subject::Output(name) => name.clone(),
        }
    }
}

/// Too few layers, or too many.
#[derive(Debug, thiserror::Error)]
#[error("an image has 1 to {MAX_LAYERS} layers, this one {found}")]
struct LayerCount {
    found: usize,
}

#[cfg(test)]
mod tests;
