//! One sealed file on its way from the registry into memory.
//!
//! ```text
//!  header ─▶ last segment ─▶ the others over several connections ─▶ whole?
//!  (40 B)    (length right?)   each: bytes to their final address, opened there by a thread
//! ```
//! The last segment is opened first: only with it is the length genuine. Order of completion is free after that, positions are
//! fixed. A connection that breaks is taken up again at the segment that it broke in.

use std::{ops::Range, sync::Arc};

use cella_oci::{BlobStream, Digest, RegistryError};
use cella_seal::{
    DataKey,
    stream::{HEADER, Header, Layout, OpenError, Opener, Segment},
};
use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet},
};

use super::{
    region::{Piece, Region},
    segments::{Placer, Sealed},
};
use crate::workload::{
    error::{Cause, FileFault, Subject, WorkloadError},
    registries::{Artifact, Patience},
};

/// Connections over which one file is fetched at the same time, at most.
const CONNECTIONS: usize = 4;

/// Segments that are worth a connection of their own.
const SEGMENTS_PER_CONNECTION: usize = 8;

/// A sealed file in a registry.
#[derive(Clone, Debug)]
pub(crate) struct SealedBlob {
    /// The model that it belongs to.
    pub(crate) artifact: Artifact,
    /// Path in the model, for errors.
    pub(crate) path: String,
    /// Digest of the ciphertext: its name in the registry. The segments authenticate themselves.
    pub(crate) digest: Digest,
    /// Lengths.
    pub(crate) layout: Layout,
}

impl SealedBlob {
    /// Fetches the file into `region` and opens it there, with at most `parallel` segments at a time. `Ok` means that every
    /// segment was authentic, the last one as the last. When this returns, nobody writes to `region` any more.
    pub(crate) async fn fill(
        &self,
        region: &mut Region,
        key: &DataKey,
        associated_data: &[u8],
        parallel: usize,
    ) -> Result<(), WorkloadError> {
        let lengths = self.layout.iter().map(|segment| segment.plaintext_len());
        let pieces = region
            .pieces(lengths)
            .map_err(|error| WorkloadError::internal("dividing memory", error))?;
        let mut segments: Vec<_> = self.layout.iter().zip(pieces).collect();
        let header = self.header().await?;
        let opener = Opener::new(key, &header, associated_data, self.layout);
        let opener = Arc::new(opener.map_err(|error| WorkloadError::internal("preparing a key", error))?);
        let workers = Arc::new(Semaphore::new(parallel.max(1)));
        let last = segments.pop();
        let stream = |segments| Stream {
            blob: self.clone(),
            placer: Placer::new(segments),
            opener: Arc::clone(&opener),
            workers: Arc::clone(&workers),
        };
        let mut result = stream(Vec::from_iter(last)).run().await;
        if result.is_ok() {
            let mut streams = JoinSet::new();
            for part in parts(segments) {
                streams.spawn(stream(part).run());
            }
            while result.is_ok() {
                let Some(ended) = streams.join_next().await else { break };
                result = ended.unwrap_or_else(|error| Err(WorkloadError::internal("fetching a model", error)));
            }
            streams.shutdown().await;
        }
        // Each segment that is being opened holds a permit until it has let go of its memory.
        let _quiet = workers
            .acquire_many(u32::try_from(parallel.max(1)).unwrap_or(u32::MAX))
            .await;
        result?;
        opener.finish().map_err(|error| self.not_opened(error))
    }

    async fn header(&self) -> Result<Header, WorkloadError> {
        let mut patience = Patience::new();
        let mut bytes = Vec::with_capacity(HEADER);
        loop {
            bytes.clear();
            let error = match self.stream(0..HEADER as u64).await {
                Err(error) => error,
                Ok(mut stream) => loop {
                    match stream.chunk().await {
                        Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                        Ok(None) => return self.parse_header(&bytes),
                        Err(error) => break error,
                    }
                },
            };
            let failed = |error| self.failed(0..HEADER as u64, error);
            patience.after(error).await.map_err(failed)?;
        }
    }

    fn parse_header(&self, bytes: &[u8]) -> Result<Header, WorkloadError> {
        // A stream that ends without an error yielded exactly what it was asked for.
        let bytes = bytes
            .try_into()
            .map_err(|error| WorkloadError::internal("reading a header", error))?;
        Header::parse(bytes).map_err(|error| self.fault(FileFault::Header(Cause::new(error))))
    }

    async fn stream(&self, range: Range<u64>) -> Result<BlobStream, RegistryError> {
        let Artifact {
            registry, repository, ..
        } = &self.artifact;
        registry.blob_stream(repository, &self.digest, Some(range)).await
    }

    /// Sorts what the registry's client says about `range` by blame.
    fn failed(&self, range: Range<u64>, error: RegistryError) -> WorkloadError {
        match error {
            RegistryError::ContentRange { .. } | RegistryError::Status { status: 416, .. } => {
                self.fault(FileFault::Missing {
                    range,
                    expected: self.layout.ciphertext_len(),
                })
            }
            error => self.artifact.failed(error),
        }
    }

    /// What became of a segment.
    fn opened(&self, ended: Result<Result<(), OpenError>, JoinError>) -> Result<(), WorkloadError> {
        match ended {
            Ok(result) => result.map_err(|error| self.not_opened(error)),
            Err(error) => Err(WorkloadError::internal("opening a segment", error)),
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
        match &self.artifact.subject {
            Subject::Model(name) | Subject::Image(name) => name.clone(),
        }
    }
}

/// Consecutive segments over one connection at a time.
struct Stream {
    blob: SealedBlob,
    placer: Placer<Piece>,
    opener: Arc<Opener>,
    workers: Arc<Semaphore>,
}

impl Stream {
    async fn run(mut self) -> Result<(), WorkloadError> {
        let mut patience = Patience::new();
        let mut opening = JoinSet::new();
        while let Some(range) = self.placer.resume() {
            match self.connection(range.clone(), &mut opening, &mut patience).await {
                Ok(()) => {}
                Err(Broken::Registry(error)) => {
                    let failed = |error| self.blob.failed(range, error);
                    patience.after(error).await.map_err(failed)?;
                }
                Err(Broken::Workload(error)) => return Err(error),
            }
        }
        while let Some(opened) = opening.join_next().await {
            self.blob.opened(opened)?;
        }
        Ok(())
    }

    /// Fetches `range` over one connection, as far as it goes.
    async fn connection(
        &mut self,
        range: Range<u64>,
        opening: &mut JoinSet<Result<(), OpenError>>,
        patience: &mut Patience,
    ) -> Result<(), Broken> {
        let mut stream = self.blob.stream(range).await?;
        while let Some(mut chunk) = stream.chunk().await? {
            while let Some(sealed) = self.placer.place(&mut chunk) {
                patience.renew();
                self.open(sealed, opening).await?;
            }
        }
        Ok(())
    }

    /// Opens a segment on a thread of its own, as soon as one is free; looks at those that have ended.
    async fn open(
        &self,
        sealed: Sealed<Piece>,
        opening: &mut JoinSet<Result<(), OpenError>>,
    ) -> Result<(), WorkloadError> {
        let permit = Arc::clone(&self.workers).acquire_owned().await;
        let permit = permit.map_err(|error| WorkloadError::internal("waiting for a thread", error))?;
        let opener = Arc::clone(&self.opener);
        opening.spawn_blocking(move || {
            let Sealed { index, mut body, tag } = sealed;
            let result = opener.open_in_place(index, &mut body, &tag);
            // The memory before the permit: who has all permits knows that all memory is let go of.
            drop(body);
            drop(permit);
            result
        });
        while let Some(opened) = opening.try_join_next() {
            self.blob.opened(opened)?;
        }
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
