//! From a layout to a registry.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use cella_oci::{Descriptor, Digest, MAX_MANIFEST, Manifest, Reference, Registry, media_type};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::note::Note;
use super::{CHUNK, JOBS, Lost, Sending, Tries, Watch};
use crate::interrupt::Stop;
use crate::layout::Layout;
use crate::progress::{Part, Progress};
use crate::store::{Access, StoreError};

/// Pushes the artifact in a layout, several blobs at once; those that the registry has are not sent again, and an upload that
/// was interrupted goes on. Gives the reference by digest.
pub(crate) async fn push(
    layout: &Layout,
    to: &Reference,
    access: &Access,
    stop: Option<Stop>,
) -> Result<Reference, StoreError> {
    if to.digest.is_some() {
        return Err(StoreError::PushByDigest {
            reference: to.to_string(),
        });
    }
    let entry = layout.entry()?;
    let bytes = layout.bytes(&entry, MAX_MANIFEST as u64)?;
    let manifest = Manifest::parse(&bytes)?;
    let blobs: BTreeMap<Digest, &Descriptor> = manifest
        .layers
        .iter()
        .chain([&manifest.config])
        .map(|blob| (blob.digest, blob))
        .collect();
    // What is not whole here is not worth beginning with.
    for blob in blobs.values() {
        layout.file(blob)?;
    }
    let total = blobs.values().fold(0, |sum: u64, blob| sum.saturating_add(blob.size));
    let progress = Progress::start("pushing", total);
    let job = Arc::new(Job {
        registry: access.registry(&to.registry)?,
        repository: to.repository.clone(),
        layout: layout.clone(),
        note: Note::open(layout.root(), to),
        watch: Watch {
            counter: progress.counter(),
            stop: stop.unwrap_or_default(),
        },
    });
    let places = Arc::new(Semaphore::new(JOBS));
    let mut tasks = JoinSet::new();
    for blob in blobs.into_values().cloned() {
        let (job, places) = (Arc::clone(&job), Arc::clone(&places));
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire_owned().await;
            job.send(&blob).await.map_err(|source| StoreError::Blob {
                what: format!("pushing blob {} of {} bytes", blob.digest, blob.size),
                source: Box::new(source),
            })
        });
    }
    first_error(tasks).await?;
    let kind = manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST);
    let digest = push_manifest(&job.registry, to, kind, bytes).await?;
    progress.finish("pushed");
    if let Some(job) = Arc::into_inner(job) {
        job.note.remove();
    }
    Ok(to.with_digest(digest))
}

/// Pushes a manifest whose blobs are there.
pub(crate) async fn push_manifest(
    registry: &Registry,
    to: &Reference,
    media_type: &str,
    bytes: Vec<u8>,
) -> Result<Digest, StoreError> {
    let mut tries = Tries::default();
    let bytes = Bytes::from(bytes);
    loop {
        let pushed = registry.push_manifest(&to.repository, to.tag.as_deref(), media_type, bytes.clone());
        match pushed.await {
            Ok(digest) => return Ok(digest),
            Err(error) if tries.again(&error, |text| eprintln!("{text}")).await => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for all tasks; the first error ends the others.
pub(super) async fn first_error(mut tasks: JoinSet<Result<(), StoreError>>) -> Result<(), StoreError> {
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| StoreError::Sink {
            source: std::io::Error::other(error),
        })??;
    }
    Ok(())
}

struct Job {
    registry: Registry,
    repository: String,
    layout: Layout,
    note: Note,
    watch: Watch,
}

impl Job {
    async fn send(&self, blob: &Descriptor) -> Result<(), StoreError> {
        let mut part = Part::new(&self.watch.counter);
        let mut anew = Tries::default();
        loop {
            if self.exists(blob).await? {
                self.note.set(&blob.digest, None)?;
                part.reach(blob.size);
                return Ok(());
            }
            let error = match self.attempt(blob, &mut part).await {
                Ok(()) => return Ok(()),
                Err(Lost::Failed(error)) => return Err(error),
                Err(Lost::Upload(error)) => error,
            };
            self.note.set(&blob.digest, None)?;
            let refuses_chunks = part.at() == 0;
            part.reach(0);
            if refuses_chunks {
                return self.send_at_once(blob, &mut part).await;
            }
            if !anew.once_more(&error, |text| self.watch.counter.say(text)).await {
                return Err(error.into());
            }
        }
    }

    /// Sends the blob, or the rest of it, in chunks.
    async fn attempt(&self, blob: &Descriptor, part: &mut Part) -> Result<(), Lost> {
        let say = |text: &str| self.watch.counter.say(text);
        let failed = |error: StoreError| Lost::Failed(error);
        let file = self.layout.file(blob).map_err(|error| failed(error.into()))?;
        let mut sending = match self.resume(blob).await.map_err(failed)? {
            Some(sending) => sending,
            None => Sending::start(&self.registry, &self.repository, say)
                .await
                .map_err(failed)?,
        };
        part.reach(sending.upload().offset());
        let least = usize::try_from(sending.upload().min_chunk()).unwrap_or(MAX_CHUNK);
        let size = CHUNK.max(least.min(MAX_CHUNK)) as u64;
        while sending.upload().offset() < blob.size {
            if self.watch.stop.is_set() {
                return Err(Lost::Failed(StoreError::Stopped));
            }
            let at = sending.upload().offset();
            let length = usize::try_from((blob.size - at).min(size)).unwrap_or(CHUNK);
            let mut chunk = vec![0; length];
            file.read_exact_at(&mut chunk, at)
                .map_err(|source| failed(StoreError::Read { source }))?;
            sending.send(chunk.into(), say).await?;
            part.reach(sending.upload().offset());
            self.note
                .set(&blob.digest, Some(sending.upload().place()))
                .map_err(failed)?;
        }
        sending.finish(&blob.digest, say).await?;
        self.note.set(&blob.digest, None).map_err(failed)
    }

    /// The upload of an earlier run, where the registry goes on with it.
    async fn resume(&self, blob: &Descriptor) -> Result<Option<Sending<'_>>, StoreError> {
        let Some(place) = self.note.place(&blob.digest) else {
            return Ok(None);
        };
        let status = self.registry.upload_status(&self.repository, &place).await;
        let upload = match status {
            Ok(upload) => upload.filter(|upload| upload.offset() <= blob.size),
            Err(error) if error.is_transient() => return Err(error.into()),
            // A note from another time, or from another hand.
            Err(_) => None,
        };
        Ok(upload.map(|upload| Sending::resume(&self.registry, &self.repository, upload)))
    }

    /// One request with all bytes, for registries that take no chunks.
    async fn send_at_once(&self, blob: &Descriptor, part: &mut Part) -> Result<(), StoreError> {
        let mut tries = Tries::default();
        loop {
            let file = self.layout.file(blob)?;
            let reader = tokio::fs::File::from_std(file);
            let sent = self
                .registry
                .push_blob_from(&self.repository, &blob.digest, blob.size, reader);
            match sent.await {
                Ok(()) => {
                    part.reach(blob.size);
                    return Ok(());
                }
                Err(error) if tries.again(&error, |text| self.watch.counter.say(text)).await => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn exists(&self, blob: &Descriptor) -> Result<bool, StoreError> {
        let mut tries = Tries::default();
        loop {
            match self.registry.blob_exists(&self.repository, &blob.digest).await {
                Ok(exists) => return Ok(exists),
                Err(error) if tries.again(&error, |text| self.watch.counter.say(text)).await => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The most that is held in memory for a registry that demands large chunks.
const MAX_CHUNK: usize = 128 << 20;
