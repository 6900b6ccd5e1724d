//! The sealed files of one model on their way from the registry into memory.
//!
//! ```text
//!  each file: header ─▶ last segment ─▶ │ all files: the other segments, over several connections ─▶ whole? ─▶ digest
//!             (40 B)    (length right?) │ each: received at its final address, opened there at once
//! ```
//! The last segments are opened first: only with them are the lengths genuine, so a file that was cut is known before the bulk is
//! fetched. Order of completion is free after that, positions are fixed. A connection that breaks is taken up again at the segment
//! that it broke in, from the next mirror where there is one.
//!
//! One task a connection receives a segment and opens it before it receives the next: what was just written is still in the cache of the
//! processor that opens it, and nothing is handed from thread to thread (ADR 0024). Beside the files' own memory there is nothing that grows
//! with their size.

use std::{ops::Range, sync::Arc};

use cella_oci::{Digest, RegistryError};
use cella_seal::{
    DataKey,
    stream::{HEADER, Header, Layout, OpenError, Opener, Segment},
    tree::Blake3Digest,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use super::{
    hashing::Hashing,
    region::Piece,
    segments::{Placer, Sealed},
};
use crate::workload::{
    error::{Cause, FileFault, Subject, WorkloadError},
    registries::{Artifact, Patience},
};

/// Connections over which one model is fetched at the same time, at most.
const CONNECTIONS: usize = 4;

/// Segments that are worth a connection of their own.
const SEGMENTS_PER_CONNECTION: usize = 8;

/// A sealed file in a registry, and the memory that it goes to.
pub(crate) struct SealedFile {
    /// Path in the model, for errors.
    pub(crate) path: String,
    /// Digest of the ciphertext: its name in the registry. The segments authenticate themselves.
    pub(crate) digest: Digest,
    /// Lengths.
    pub(crate) layout: Layout,
    /// Opens it.
    pub(crate) key: DataKey,
    /// What the sealing is bound to.
    pub(crate) place: Vec<u8>,
    /// Memory of each segment's plaintext, in order.
    pub(crate) pieces: Vec<Piece>,
}

/// Fetches `files` of `artifact` and opens them, with at most `parallel` segments at a time. `Ok` means that every segment was
/// authentic, the last ones as the last; with `provenance`, it holds the digests of the plaintexts, in order. When this returns, nobody
/// writes to the memory any more.
pub(crate) async fn fill(
    artifact: &Artifact,
    files: Vec<SealedFile>,
    parallel: usize,
    provenance: bool,
) -> Result<Vec<Option<Blake3Digest>>, WorkloadError> {
    let shared = Shared {
        artifact: artifact.clone(),
        connections: Arc::new(Semaphore::new(CONNECTIONS)),
        workers: Arc::new(Semaphore::new(parallel.max(1))),
    };
    shared.fill(files, provenance).await
}

/// What all files have in common.
#[derive(Clone)]
struct Shared {
    artifact: Artifact,
    connections: Arc<Semaphore>,
    workers: Arc<Semaphore>,
}

impl Shared {
    async fn fill(&self, files: Vec<SealedFile>, provenance: bool) -> Result<Vec<Option<Blake3Digest>>, WorkloadError> {
        let count = files.len();
        let mut heads = JoinSet::new();
        for (index, file) in files.into_iter().enumerate() {
            let shared = self.clone();
            heads.spawn(async move { Ok((index, shared.head(file, provenance).await?)) });
        }
        let mut begun: Vec<(usize, Begun)> = Vec::with_capacity(count);
        all(&mut heads, |head| begun.push(head)).await?;
        // The bulk in the manifest's order.
        begun.sort_unstable_by_key(|(index, _)| *index);
        let mut bulk = JoinSet::new();
        let mut blobs = Vec::with_capacity(count);
        for (_, Begun { blob, rest }) in begun {
            for part in parts(rest) {
                bulk.spawn(Stream::new(&blob, part).run());
            }
            blobs.push(blob);
        }
        all(&mut bulk, |()| {}).await?;
        blobs.iter().map(|blob| blob.finish()).collect()
    }

    /// Header and last segment of a file.
    async fn head(&self, file: SealedFile, provenance: bool) -> Result<Begun, WorkloadError> {
        let SealedFile {
            path,
            digest,
            layout,
            key,
            place,
            pieces,
        } = file;
        let name = Name {
            shared: self.clone(),
            path,
            digest,
            layout,
        };
        let header = name.header().await?;
        let opener = Opener::new(&key, &header, &place, layout);
        let opener = opener.map_err(|error| WorkloadError::internal("preparing a key", error))?;
        let blob = Arc::new(Blob {
            name,
            opener,
            hashing: provenance.then(|| Hashing::new(&layout)),
        });
        let mut rest: Vec<_> = layout.iter().zip(pieces).collect();
        let last = Vec::from_iter(rest.pop());
        Stream::new(&blob, last).run().await?;
        Ok(Begun { blob, rest })
    }
}

/// A file whose length is genuine, and the segments that are still to come.
struct Begun {
    blob: Arc<Blob>,
    rest: Vec<(Segment, Piece)>,
}

/// Waits for every task of `tasks`; at the first failure all others are ended. Nothing of them is left when this returns.
async fn all<T: 'static>(
    tasks: &mut JoinSet<Result<T, WorkloadError>>,
    mut each: impl FnMut(T),
) -> Result<(), WorkloadError> {
    while let Some(ended) = tasks.join_next().await {
        match ended.unwrap_or_else(|error| Err(WorkloadError::internal("fetching a model", error))) {
            Ok(value) => each(value),
            Err(error) => {
                tasks.shutdown().await;
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Which file of which artifact.
struct Name {
    shared: Shared,
    path: String,
    digest: Digest,
    layout: Layout,
}

impl Name {
    async fn header(&self) -> Result<Header, WorkloadError> {
        let _connection = self.connection().await?;
        let (mut patience, range) = (self.shared.artifact.patience(), 0..HEADER as u64);
        let mut bytes = [0; HEADER];
        loop {
            match self.read_header(&patience, range.clone(), &mut bytes).await {
                Ok(()) => {
                    let header = Header::parse(&bytes);
                    return header.map_err(|error| self.fault(FileFault::Header(Cause::new(error))));
                }
                Err(error) => {
                    let failed = |error| self.failed(0, range.clone(), error);
                    patience.after(error).await.map_err(failed)?;
                }
            }
        }
    }

    async fn read_header(
        &self,
        patience: &Patience,
        range: Range<u64>,
        into: &mut [u8; HEADER],
    ) -> Result<(), RegistryError> {
        let reader = self.shared.artifact.reader(patience, &self.digest, range).await;
        reader?.read_exact(into).await
    }

    async fn connection(&self) -> Result<OwnedSemaphorePermit, WorkloadError> {
        let permit = Arc::clone(&self.shared.connections).acquire_owned().await;
        permit.map_err(|error| WorkloadError::internal("waiting for a connection", error))
    }

    /// Sorts what the registry's client says about `range`, which begins with `segment`.
    fn failed(&self, segment: u32, range: Range<u64>, error: RegistryError) -> WorkloadError {
        match error {
            RegistryError::ContentRange { status: 206, .. } | RegistryError::Status { status: 416, .. } => {
                self.fault(FileFault::Missing {
                    segment,
                    range,
                    expected: self.layout.ciphertext_len(),
                })
            }
            error => WorkloadError::Fetch {
                model: self.model(),
                path: self.path.clone(),
                segment,
                cause: Cause::new(error),
            },
        }
    }

    fn not_opened(&self, error: OpenError) -> WorkloadError {
        match error {
            OpenError::NotAuthentic { index } => WorkloadError::Segment {
                model: self.model(),
                path: self.path.clone(),
                segment: index,
            },
            error => WorkloadError::internal("opening a segment", error),
        }
    }

    fn fault(&self, fault: FileFault) -> WorkloadError {
        WorkloadError::File {
            model: self.model(),
            path: self.path.clone(),
            fault,
        }
    }

    fn model(&self) -> String {
        match &self.shared.artifact.subject {
            Subject::Model(name) | Subject::Image(name) | Subject::Output(name) => name.clone(),
        }
    }
}

/// A file that is being fetched.
struct Blob {
    name: Name,
    opener: Opener,
    /// Where a digest of the plaintext is wanted.
    hashing: Option<Hashing>,
}

impl Blob {
    /// Opens one segment; hashes what is complete with it. Blocks.
    fn open(&self, sealed: Sealed<Piece>) -> Result<(), OpenError> {
        let Sealed { segment, mut body, tag } = sealed;
        self.opener.open_in_place(segment.index, &mut body, &tag)?;
        if let Some(hashing) = &self.hashing {
            hashing.settle(&segment, body);
        }
        Ok(())
    }

    /// Whether the file is whole, and its digest, if it is wanted.
    fn finish(&self) -> Result<Option<Blake3Digest>, WorkloadError> {
        self.opener.finish().map_err(|error| self.name.not_opened(error))?;
        match &self.hashing {
            None => Ok(None),
            Some(hashing) => match hashing.finish() {
                Some(digest) => Ok(Some(digest)),
                None => Err(WorkloadError::internal("computing a digest", NoDigest)),
            },
        }
    }
}

/// A leaf of the tree was not hashed.
#[derive(Debug, thiserror::Error)]
#[error("a part of the plaintext was not hashed")]
struct NoDigest;

/// Consecutive segments over one connection at a time.
struct Stream {
    blob: Arc<Blob>,
    placer: Placer<Piece>,
}

impl Stream {
    fn new(blob: &Arc<Blob>, segments: Vec<(Segment, Piece)>) -> Self {
        Self {
            blob: Arc::clone(blob),
            placer: Placer::new(segments),
        }
    }

    async fn run(mut self) -> Result<(), WorkloadError> {
        let _connection = self.blob.name.connection().await?;
        let mut patience = self.blob.name.shared.artifact.patience();
        while let Some(range) = self.placer.resume() {
            match self.connection(range.clone(), &mut patience).await {
                Ok(()) => {}
                Err(Broken::Registry(error)) => {
                    let segment = self.placer.current().map_or(0, |sealed| sealed.segment.index);
                    let failed = |error| self.blob.name.failed(segment, range, error);
                    patience.after(error).await.map_err(failed)?;
                }
                Err(Broken::Workload(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fetches `range` over one connection, as far as it goes.
    async fn connection(&mut self, range: Range<u64>, patience: &mut Patience) -> Result<(), Broken> {
        let Name { shared, digest, .. } = &self.blob.name;
        let mut reader = shared.artifact.reader(patience, digest, range).await?;
        while let Some(Sealed { body, tag, .. }) = self.placer.current() {
            reader.read_exact(body).await?;
            reader.read_exact(tag).await?;
            patience.renew();
            if let Some(sealed) = self.placer.complete() {
                self.open(sealed).await?;
            }
        }
        Ok(())
    }

    /// Opens a segment on this thread, as soon as fewer than the allowed number are being opened.
    async fn open(&self, sealed: Sealed<Piece>) -> Result<(), WorkloadError> {
        let permit = self.blob.name.shared.workers.acquire().await;
        let permit = permit.map_err(|error| WorkloadError::internal("waiting for a processor", error))?;
        let opened = self.blob.open(sealed);
        drop(permit);
        opened.map_err(|error| self.blob.name.not_opened(error))?;
        // However fast the network is, whatever else the agent has to do has its turn after each segment.
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// Why a connection ended before its time.
enum Broken {
    /// The registry or the way to it: may be tried again.
    Registry(RegistryError),
    /// Everything else.
    Workload(WorkloadError),
}

impl From<RegistryError> for Broken {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<WorkloadError> for Broken {
    fn from(error: WorkloadError) -> Self {
        Self::Workload(error)
    }
}

/// Cuts the segments into consecutive parts, one for each connection.
fn parts<P>(mut segments: Vec<(Segment, P)>) -> Vec<Vec<(Segment, P)>> {
    let connections = segments.len().div_ceil(SEGMENTS_PER_CONNECTION).clamp(1, CONNECTIONS);
    let length = segments.len().div_ceil(connections).max(1);
    let mut parts = Vec::with_capacity(connections);
    while !segments.is_empty() {
        let rest = segments.split_off(length.min(segments.len()));
        parts.push(segments);
        segments = rest;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_consecutive_and_complete() {
        for count in [0u32, 1, 7, 8, 9, 31, 32, 33, 1000] {
            let layout = Layout::from_plaintext_len(u64::from(count) << 20).unwrap();
            let segments: Vec<_> = layout
                .iter()
                .map(|segment| (segment, ()))
                .take(usize::try_from(count).unwrap())
                .collect();
            let parts = parts(segments.clone());
            assert!(
                parts.len() <= CONNECTIONS && parts.iter().all(|part| !part.is_empty()),
                "{count}"
            );
            assert_eq!(parts.concat(), segments, "{count}");
        }
    }
}
