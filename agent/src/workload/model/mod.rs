//! Models: pulled by the policy's digest, opened in place in locked memory, and shown only when every segment is right.
//!
//! ```text
//!  manifest, configuration ─▶ room? ─▶ memory ─▶ keys ─▶ segments ─▶ digest ─▶ lock, check ─▶ rename to ready
//!  (digests; rules)           (sizes)  (populated)       (see `fetch`)                        any failure: zeroed, removed
//! ```
//! Name and version that go into the decryption come from the policy; what the manifest says is only compared. Sealed
//! files are loaded, files in the clear are documentation and are left where they are.

mod fetch;
mod hashing;
mod locked;
mod region;
mod segments;

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    num::NonZeroUsize,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use cella_oci::{
    Digest,
    modelpack::{self, Kind, MAX_CONFIG, ModelConfig, Rules, SealedLayer},
};
use cella_policy::{ModelDigest, ModelPolicy, Provenance};
use cella_seal::{
    DataKey, packet, place,
    stream::Layout,
    tree::{self, Blake3Digest},
};
use slog::{Logger, info, warn};
use tokio::task::JoinSet;

pub(crate) use locked::LockedFile;
pub(crate) use region::HUGE_PAGE;

use self::{fetch::SealedFile, region::Region};
use super::{
    error::{Cause, FileFault, Subject, WorkloadError},
    keys::Keyring,
    memory,
    outcome::Outcome,
    registries::{Artifact, Registries},
    store::{Staging, Store},
};

/// A model to be mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelMount {
    /// Directory of complete, read-only files. Every page of them is locked.
    pub source: PathBuf,
    /// Where the container sees it.
    pub destination: PathBuf,
}

/// A model that is complete and locked. Its memory is zeroed when this is dropped.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: u64,
    /// Its artifact, as the policy has it.
    pub(crate) artifact: String,
    /// Where its files are.
    pub(crate) directory: PathBuf,
    /// Its files.
    pub(crate) files: Vec<LockedFile>,
    /// Of the plaintext, where the policy asks for one.
    pub(crate) digest: Option<Blake3Digest>,
}

/// Everything that loading one model takes.
#[derive(Clone, Debug)]
pub(crate) struct ModelPull {
    artifact: Artifact,
    policy: ModelPolicy,
    store: Arc<Store>,
    /// Threads that open segments or populate memory.
    parallel: usize,
    /// Whether it is a dataset, which has other kinds of files.
    is_dataset: bool,
    log: Logger,
}

impl ModelPull {
    /// A pull of the model of `policy` into `store`, on `parallel` threads.
    pub(crate) fn new(
        policy: &ModelPolicy,
        registries: &Registries,
        store: Arc<Store>,
        parallel: usize,
        log: &Logger,
    ) -> Result<Self, WorkloadError> {
        let artifact = registries.artifact(&policy.artifact, Subject::Model(policy.name.clone()))?;
        Ok(Self {
            artifact,
            policy: policy.clone(),
            store,
            parallel: parallel.max(1),
            is_dataset: false,
            log: log.clone(),
        })
    }

    /// The same, of a dataset.
    pub(crate) fn for_dataset(self) -> Self {
        Self {
            is_dataset: true,
            ..self
        }
    }

    /// Loads it. Keys are waited for when memory is ready for the content.
    pub(crate) async fn run(self, keys: Outcome<Arc<Keyring>>) -> Result<Arc<LoadedModel>, WorkloadError> {
        let files = self.plan().await?;
        let mut loading = self.make_room(files)?;
        let result = self.load(&mut loading, keys).await;
        // Blocking: memory is locked, or zeroed.
        let finished = tokio::task::spawn_blocking(move || match result {
            Ok(()) => loading.finish(),
            Err(error) => {
                drop(loading);
                Err(error)
            }
        });
        let (directory, files) = finished
            .await
            .map_err(|error| WorkloadError::internal("locking model memory", error))??;
        let (locked, huge) = files
            .iter()
            .fold((0, 0), |(l, h), file| (l + file.locked, h + file.huge));
        if huge < locked {
            warn!(self.log, "part of a model is not in huge pages"; "model" => &self.policy.name,
                "locked_bytes" => locked, "huge_bytes" => huge);
        }
        info!(self.log, "model ready"; "model" => &self.policy.name, "version" => self.policy.version,
            "files" => files.len(), "locked_bytes" => locked);
        Ok(Arc::new(LoadedModel {
            name: self.policy.name.clone(),
            version: self.policy.version,
            artifact: self.policy.artifact.to_string(),
            directory,
            digest: model_digest(files.iter().map(|file| (file.path.as_str(), file.blake3))),
            files,
        }))
    }

    /// Manifest and configuration: which files there are, and that they are as many bytes as the policy says.
    async fn plan(&self) -> Result<Vec<FilePlan>, WorkloadError> {
        let manifest = self.artifact.manifest().await?;
        // The layers' sizes are compared with the policy's below, where they are known without their seals.
        let rules = match self.is_dataset {
            true => Rules::dataset(&self.policy.name, self.policy.version, u64::MAX),
            false => Rules::new(&self.policy.name, self.policy.version, u64::MAX),
        };
        let model = modelpack::sealed_model(&manifest, &rules).map_err(|error| self.artifact.content(error))?;
        let config = self.artifact.blob(&model.config, MAX_CONFIG).await?;
        let config = ModelConfig::parse(&config).map_err(|error| self.artifact.content(error))?;
        let digests = model.diff_ids(&config).map_err(|error| self.artifact.content(error))?;
        if let Some(layer) = model.plain.iter().find(|layer| layer.kind != Kind::Doc) {
            let media_type = layer.descriptor.media_type.clone();
            return Err(self.fault(layer.path.as_str(), FileFault::NotSealed { media_type }));
        }
        let files = model.sealed.into_iter().map(|layer| {
            let layout = Layout::from_ciphertext_len(layer.descriptor.size);
            let layout =
                layout.map_err(|error| self.fault(layer.path.as_str(), FileFault::Layout(Cause::new(error))))?;
            // As many as layers.
            let digest = digests.get(layer.index).copied();
            Ok(FilePlan { layer, layout, digest })
        });
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let found = files
            .iter()
            .fold(0, |sum: u64, file| sum.saturating_add(file.layout.plaintext_len()));
        if found != self.policy.bytes {
            return Err(self.artifact.content(WrongSize {
                found,
                policy: self.policy.bytes,
            }));
        }
        Ok(files)
    }

    /// Files of the right lengths in a staging directory. Takes no memory yet.
    fn make_room(&self, files: Vec<FilePlan>) -> Result<Loading, WorkloadError> {
        let needs = files.iter().fold(0, |sum: u64, file| {
            sum.saturating_add(memory::rounded(file.layout.plaintext_len()))
        });
        let free = memory::free().map_err(|error| WorkloadError::internal("reading /proc/meminfo", error))?;
        if needs > free {
            return Err(WorkloadError::ModelMemory {
                model: self.policy.name.clone(),
                needs,
                free,
            });
        }
        let failed = |error: io::Error| WorkloadError::internal("making room for a model", error);
        let staging = self.store.stage().map_err(failed)?;
        let mut loading = Loading {
            files: Vec::with_capacity(files.len()),
            staging,
        };
        for plan in files {
            let at = loading.staging.path().join(&plan.layer.path);
            let region = region(&at, plan.layout.plaintext_len()).map_err(failed)?;
            loading.files.push(LoadingFile {
                plan,
                region: Arc::new(region),
                blake3: None,
            });
        }
        Ok(loading)
    }

    /// Memory, keys, content, and what the policy says of it.
    async fn load(&self, loading: &mut Loading, keys: Outcome<Arc<Keyring>>) -> Result<(), WorkloadError> {
        for file in &loading.files {
            self.populate(file).await?;
        }
        let unwrapped = {
            let keyring = keys.wait().await?;
            let keys = loading.files.iter().map(|file| self.key(&file.plan, &keyring));
            keys.collect::<Result<Vec<_>, _>>()?
        };
        let mut sealed = Vec::with_capacity(loading.files.len());
        for (file, key) in loading.files.iter_mut().zip(unwrapped) {
            sealed.push(self.sealed(file, key)?);
        }
        let provenance = self.policy.provenance != Provenance::Sealed;
        let digests = fetch::fill(&self.artifact, sealed, self.parallel, provenance).await?;
        for (file, digest) in loading.files.iter_mut().zip(digests) {
            file.blake3 = digest;
        }
        self.check_provenance(&loading.files)?;
        self.artifact.check_dates()
    }

    /// What is to be fetched of a file, and where to.
    fn sealed(&self, file: &mut LoadingFile, key: DataKey) -> Result<SealedFile, WorkloadError> {
        let FilePlan { layer, layout, .. } = &file.plan;
        let path = layer.path.as_str();
        let place = place::associated_data(&self.policy.name, path, self.policy.version);
        let lengths = layout.iter().map(|segment| segment.plaintext_len());
        let region = Arc::get_mut(&mut file.region).ok_or(MemoryInUse);
        let region = region.map_err(|error| WorkloadError::internal("loading a model", error))?;
        Ok(SealedFile {
            path: path.to_owned(),
            digest: layer.descriptor.digest,
            layout: *layout,
            key,
            place: place.map_err(|error| self.artifact.content(error))?,
            pieces: region
                .pieces(lengths)
                .map_err(|error| WorkloadError::internal("dividing memory", error))?,
        })
    }

    /// Compares what was opened with the digest that the policy pins.
    fn check_provenance(&self, files: &[LoadingFile]) -> Result<(), WorkloadError> {
        let Provenance::Digest(Some(policy)) = self.policy.provenance else {
            return Ok(());
        };
        let found = model_digest(files.iter().map(|file| (file.plan.layer.path.as_str(), file.blake3)));
        match found.map(|found| ModelDigest(found.0)) {
            Some(found) if found == policy => Ok(()),
            Some(found) => Err(WorkloadError::Provenance {
                model: self.policy.name.clone(),
                found,
                policy,
            }),
            None => Err(WorkloadError::internal("comparing a digest", NoDigest)),
        }
    }

    fn key(&self, plan: &FilePlan, keyring: &Keyring) -> Result<DataKey, WorkloadError> {
        let find = |kid: &str| keyring.find(&self.policy.keys, kid);
        let unwrapped = packet::unwrap_layer(&plan.layer.descriptor.annotations, find);
        let key = unwrapped.and_then(packet::UnwrappedLayer::for_model);
        let (key, _digest) =
            key.map_err(|error| self.fault(plan.layer.path.as_str(), FileFault::Key(Cause::new(error))))?;
        Ok(key)
    }

    /// Allocates all pages of a file, on several threads. When this returns, none of them holds its region any more.
    async fn populate(&self, file: &LoadingFile) -> Result<(), WorkloadError> {
        let region = &file.region;
        let next = Arc::new(AtomicUsize::new(0));
        let mut threads = JoinSet::new();
        for _ in 0..self.parallel.min(region.parts()) {
            let (region, next) = (Arc::clone(region), Arc::clone(&next));
            threads.spawn_blocking(move || {
                loop {
                    let part = next.fetch_add(1, Ordering::Relaxed);
                    if part >= region.parts() {
                        return Ok(());
                    }
                    region.populate(part)?;
                }
            });
        }
        let mut result = Ok(());
        while let Some(ended) = threads.join_next().await {
            let ended: io::Result<()> = ended.map_err(io::Error::other).flatten();
            result = result.and(ended);
        }
        // The memory was free a moment ago: something else took it.
        result.map_err(|_| WorkloadError::ModelMemoryGone {
            model: self.policy.name.clone(),
            path: file.plan.layer.path.to_string(),
            needs: region.len(),
            free: memory::free().unwrap_or(0),
        })
    }

    fn fault(&self, path: &str, fault: FileFault) -> WorkloadError {
        WorkloadError::File {
            model: self.policy.name.clone(),
            path: path.to_owned(),
            fault,
        }
    }
}

/// One sealed file and its lengths.
#[derive(Debug)]
struct FilePlan {
    layer: SealedLayer,
    layout: Layout,
    /// Of the plaintext, as the configuration has it.
    digest: Option<Digest>,
}

/// A model between nothing and ready. Dropping it zeroes the memory first and removes the files then.
#[derive(Debug)]
struct Loading {
    files: Vec<LoadingFile>,
    staging: Staging,
}

/// One file of it.
#[derive(Debug)]
struct LoadingFile {
    plan: FilePlan,
    region: Arc<Region>,
    /// Of the plaintext, when it is there and where the policy asks for one.
    blake3: Option<Blake3Digest>,
}

impl Loading {
    /// Locks every file and publishes the directory. Blocks.
    fn finish(self) -> Result<(PathBuf, Vec<LockedFile>), WorkloadError> {
        let Self { files, staging } = self;
        let mut locked = Vec::with_capacity(files.len());
        for LoadingFile { plan, region, blake3 } in files {
            let region =
                Arc::into_inner(region).ok_or_else(|| WorkloadError::internal("locking a model", MemoryInUse))?;
            let at = staging.path().join(&plan.layer.path);
            let file = LockedFile::lock(plan.layer.path.as_str(), plan.digest, blake3, &at, region);
            locked.push(file.map_err(|error| WorkloadError::internal("locking a model", error))?);
        }
        let directory = staging
            .publish()
            .map_err(|error| WorkloadError::internal("publishing a model", error))?;
        Ok((directory, locked))
    }
}

/// The digest of a model whose files all have one.
fn model_digest<'p>(files: impl Iterator<Item = (&'p str, Option<Blake3Digest>)>) -> Option<Blake3Digest> {
    let files: Option<Vec<_>> = files.map(|(path, digest)| Some((path, digest?))).collect();
    files.map(tree::model_digest)
}

/// Makes the file `at` with its directories and maps it.
fn region(at: &Path, bytes: u64) -> io::Result<Region> {
    if let Some(parent) = at.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(at)?;
    Region::create(&file, usize::try_from(bytes).map_err(io::Error::other)?)
}

/// Threads that the guest has.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The artifact is of another size than the policy says.
#[derive(Debug, thiserror::Error)]
#[error("its sealed files have {found} bytes together, the policy says {policy}")]
struct WrongSize {
    found: u64,
    policy: u64,
}

/// A file has no digest where all have one.
#[derive(Debug, thiserror::Error)]
#[error("a file has no digest")]
struct NoDigest;

/// Memory is shared where it must not be.
#[derive(Debug, thiserror::Error)]
#[error("its memory is still in use")]
struct MemoryInUse;

#[cfg(test)]
mod tests;
