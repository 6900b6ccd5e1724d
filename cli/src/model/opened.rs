//! A sealed model on the desk: manifest and configuration read together, layers opened with the key.

use std::io::{self, Write};
use std::sync::Arc;

use cella_oci::modelpack::{MAX_CONFIG, ModelConfig, ModelError, ModelPath, Rules, sealed_model};
use cella_oci::{Descriptor, Digest, Verifier};
use cella_seal::packet::{self, PacketError, UnwrappedLayer};
use cella_seal::place::{self, PlaceError};
use cella_seal::stream::{Layout, LayoutError, OpenError, OpenWriter};
use cella_seal::tree::{self, Blake3Digest, Blake3DigestError, InOrder};
use cella_seal::{Kek, PlainDigest};

use super::facts::{FactsError, MAX_BYTES, blake3, place as place_of};
use crate::interrupt::Stop;
use crate::progress::Counter;
use crate::store::{Artifact, Store, StoreError};

/// A model whose manifest and configuration were checked; nothing of its content was looked at.
pub(super) struct Model {
    pub(super) artifact: Artifact,
    /// As the manifest says that it was bound into the sealing.
    pub(super) name: String,
    /// As the manifest says that it was bound into the sealing.
    pub(super) version: u64,
    pub(super) config: ModelConfig,
    /// In the order of the manifest.
    pub(super) layers: Vec<Layer>,
}

/// One file.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) index: usize,
    pub(super) path: ModelPath,
    pub(super) descriptor: Descriptor,
    /// Digest of the plaintext, as the configuration says.
    pub(super) diff_id: Digest,
    /// Digest of the plaintext, as the manifest says.
    pub(super) blake3: Option<Blake3Digest>,
    /// Of a sealed file.
    pub(super) layout: Option<Layout>,
}

impl Model {
    /// Reads manifest and configuration.
    pub(super) async fn read(artifact: Artifact) -> Result<Self, ReadError> {
        let (name, version) = place_of(&artifact.manifest)?;
        let (name, rules) = (name.to_owned(), Rules::lenient(name, version, MAX_BYTES));
        let found = sealed_model(&artifact.manifest, &rules)?;
        let config = ModelConfig::parse(&artifact.config(MAX_CONFIG).await?)?;
        let diff_ids = found.diff_ids(&config)?.to_vec();
        let sealed = found
            .sealed
            .into_iter()
            .map(|layer| (layer.index, layer.path, layer.descriptor, true));
        let plain = found
            .plain
            .into_iter()
            .map(|layer| (layer.index, layer.path, layer.descriptor, false));
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (index, path, descriptor, is_sealed) in sealed.chain(plain) {
            let layout = match is_sealed {
                true => {
                    packet::layer_kids(&descriptor.annotations)
                        .map_err(|source| ReadError::at(index, &path, source))?;
                    let layout = Layout::from_ciphertext_len(descriptor.size);
                    Some(layout.map_err(|source| ReadError::at(index, &path, source))?)
                }
                false => None,
            };
            // There are as many as layers: that was compared.
            let diff_id = *diff_ids.get(index).unwrap_or(&descriptor.digest);
            let blake3 = blake3(&descriptor).map_err(|source| ReadError::at(index, &path, source))?;
            layers.push(Layer {
                index,
                path,
                descriptor,
                diff_id,
                blake3,
                layout,
            });
        }
        layers.sort_by_key(|layer| layer.index);
        Ok(Self {
            artifact,
            name,
            version,
            config,
            layers,
        })
    }

    /// Refuses a model that is another than the one meant.
    pub(super) fn expect(&self, name: Option<&str>, version: Option<u64>) -> Result<(), ReadError> {
        match (name, version) {
            (Some(wanted), _) if wanted != self.name => Err(ReadError::Name {
                found: self.name.clone(),
                wanted: wanted.to_owned(),
            }),
            (_, Some(wanted)) if wanted != self.version => Err(ReadError::Version {
                found: self.version,
                wanted,
            }),
            _ => Ok(()),
        }
    }

    /// Bytes of all layers as stored.
    pub(super) fn bytes(&self) -> u64 {
        self.layers
            .iter()
            .fold(0, |sum, layer| sum.saturating_add(layer.descriptor.size))
    }

    /// The private options of a sealed layer.
    pub(super) fn unwrap(&self, layer: &Layer, kek: &Kek) -> Result<UnwrappedLayer, LayerError> {
        packet::unwrap_layer(&layer.descriptor.annotations, |_| Some(kek)).map_err(|source| layer.error(source))
    }

    /// Streams one layer: its digest is checked, and with `kek` every segment and the plaintext's digest too, and what comes
    /// out goes to `out`, each segment once it was authentic. Only `Ok` says that all of it was right, and has the plaintext's BLAKE3.
    pub(super) async fn open<W: Write>(
        &self,
        layer: &Layer,
        kek: Option<&Kek>,
        out: W,
        watch: &Watching,
    ) -> Result<(W, Blake3Digest), LayerError> {
        let (mut hashing, mut sealed, expected) = match (layer.layout, kek) {
            (Some(layout), Some(kek)) => {
                let (key, plain) = self
                    .unwrap(layer, kek)?
                    .for_model()
                    .map_err(|source| layer.error(source))?;
                let data = place::associated_data(&self.name, layer.path.as_str(), self.version);
                let data = data.map_err(|source| layer.error(source))?;
                let opener = OpenWriter::new(key, data, layout, Hashing::new(out));
                (None, Some(opener), Some(plain))
            }
            // Without the key there is no plaintext to be hashed.
            (Some(_), None) => (None, None, None),
            (None, _) => (Some(Hashing::new(out)), None, None),
        };
        let streamed = self.artifact.store.stream(&layer.descriptor, |bytes| {
            if watch.stop.is_set() {
                return Err(Problem::from(StoreError::Stopped));
            }
            if let Some(opener) = &mut sealed {
                opener.push(bytes)?;
            } else if let Some(hashing) = &mut hashing {
                hashing.write_all(bytes).map_err(StoreError::from)?;
            }
            watch.counter.add(bytes.len() as u64);
            Ok(())
        });
        streamed.await.map_err(|problem: Problem| layer.error(problem))?;
        let hashing = match (sealed, hashing) {
            (Some(opener), _) => opener.finish().map_err(|source| layer.error(source))?,
            (None, Some(hashing)) => hashing,
            (None, None) => return Err(layer.error(Problem::NoKey)),
        };
        let found = hashing.verifier.digest();
        if found != layer.diff_id {
            return Err(layer.error(Problem::DiffId {
                found,
                named: layer.diff_id,
            }));
        }
        if let Some(PlainDigest(expected)) = expected
            && expected != *found.as_bytes()
        {
            return Err(layer.error(Problem::Wrapped { found }));
        }
        let found = hashing.tree.digest();
        match layer.blake3 {
            Some(named) if named != found => Err(layer.error(Problem::Blake3 { found, named })),
            _ => Ok((hashing.out, found)),
        }
    }

    /// Streams one sealed layer and checks its ciphertext alone.
    pub(super) async fn check_stored(&self, layer: &Layer, watch: &Watching) -> Result<(), LayerError> {
        let streamed = self.artifact.store.stream(&layer.descriptor, |bytes| {
            if watch.stop.is_set() {
                return Err(Problem::from(StoreError::Stopped));
            }
            watch.counter.add(bytes.len() as u64);
            Ok(())
        });
        streamed.await.map_err(|problem: Problem| layer.error(problem))
    }

    /// The layout that the model lies in, if it does not lie in a registry.
    pub(super) fn layout(&self) -> Option<&crate::layout::Layout> {
        match &self.artifact.store {
            Store::Layout(layout) => Some(layout),
            Store::Registry { .. } => None,
        }
    }
}

impl Layer {
    pub(super) fn error(&self, problem: impl Into<Problem>) -> LayerError {
        LayerError {
            index: self.index,
            path: self.path.to_string(),
            problem: Box::new(problem.into()),
        }
    }
}

/// What a long work on layers has beside them.
#[derive(Clone)]
pub(super) struct Watching {
    pub(super) counter: Counter,
    pub(super) stop: Stop,
}

/// What `provenance = "digest"` of a policy pins: the sealed files' plaintexts, whose digests are given by number of layer.
pub(super) fn model_digest(model: &Model, digests: &[(usize, Blake3Digest)]) -> Option<Blake3Digest> {
    let sealed = model.layers.iter().filter(|layer| layer.layout.is_some());
    let files = sealed.map(|layer| {
        let (_, digest) = digests.iter().find(|(index, _)| *index == layer.index)?;
        Some((layer.path.as_str(), *digest))
    });
    files.collect::<Option<Vec<_>>>().map(tree::model_digest)
}

/// Works on all layers, as many at once as there are processors; the first error ends the others. Gives what came of them as it came.
pub(super) async fn each_layer<T, F>(
    model: &Arc<Model>,
    work: impl Fn(Arc<Model>, Layer) -> F,
) -> Result<Vec<T>, LayerError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, LayerError>> + Send + 'static,
{
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    let mut tasks = tokio::task::JoinSet::new();
    let mut layers = model.layers.iter().cloned();
    let mut results = Vec::with_capacity(model.layers.len());
    loop {
        while tasks.len() < most
            && let Some(layer) = layers.next()
        {
            tasks.spawn(work(Arc::clone(model), layer));
        }
        match tasks.join_next().await {
            None => return Ok(results),
            Some(Ok(done)) => results.push(done?),
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// Hashes what passes.
struct Hashing<W> {
    out: W,
    verifier: Verifier,
    tree: InOrder,
}

impl<W> Hashing<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            verifier: Verifier::new(),
            tree: InOrder::default(),
        }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.verifier.update(bytes);
        self.tree.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Why a model cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ReadError {
    /// Manifest or configuration cannot be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The manifest is not that of a sealed model.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// Manifest or configuration break a rule.
    #[error("the artifact is not a model that can be used")]
    Model(#[from] ModelError),
    /// A layer breaks a rule.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// Another model.
    #[error("the artifact is the model {found}, and {wanted} was asked for")]
    Name { found: String, wanted: String },
    /// Another version.
    #[error("the artifact is version {found} of its model, and version {wanted} was asked for")]
    Version { found: u64, wanted: u64 },
}

impl ReadError {
    fn at(index: usize, path: &ModelPath, problem: impl Into<Problem>) -> Self {
        Self::Layer(LayerError {
            index,
            path: path.to_string(),
            problem: Box::new(problem.into()),
        })
    }
}

/// What is wrong with one layer.
#[derive(Debug, thiserror::Error)]
#[error("layer {index}, {path}: {}", headline(.problem))]
pub(crate) struct LayerError {
    index: usize,
    path: String,
    #[source]
    problem: Box<Problem>,
}

/// The segment, where the problem is one's.
fn headline(problem: &Problem) -> &'static str {
    match problem {
        Problem::Packet(_) => "its key cannot be had",
        Problem::Open(_) => "it does not open",
        Problem::Store(StoreError::Stopped) => "not reached",
        Problem::Store(_) | Problem::Length(_) => "it is damaged or cannot be read",
        Problem::Place(_)
        | Problem::DiffId { .. }
        | Problem::Wrapped { .. }
        | Problem::Blake3 { .. }
        | Problem::Blake3Text(_) => "it is not what it says",
        Problem::Write { .. } | Problem::NoKey => "it was not opened",
    }
}

/// See [`LayerError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Problem {
    /// Its key annotation.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// A segment.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its blob.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its length.
    #[error(transparent)]
    Length(#[from] LayoutError),
    /// Name or path cannot have been bound.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The configuration names another plaintext.
    #[error("its plaintext has the digest {found}, the configuration's diffIds say {named}")]
    DiffId { found: Digest, named: Digest },
    /// The wrapped options name another plaintext.
    #[error("its plaintext has the digest {found}, and another was wrapped with its key")]
    Wrapped { found: Digest },
    /// The manifest names another plaintext.
    #[error("its plaintext has the digest {found}, the manifest's annotation says {named}")]
    Blake3 { found: Blake3Digest, named: Blake3Digest },
    /// What the manifest names is no digest.
    #[error("the manifest's annotation dev.cella.model.blake3")]
    Blake3Text(#[from] Blake3DigestError),
    /// The plaintext cannot be written.
    #[error("writing {file}")]
    Write { file: String, source: io::Error },
    /// Plaintext was asked for.
    #[error("it is sealed, and no key was given")]
    NoKey,
}
