//! Sealing straight to a registry: chunks go up while the next ones are sealed, and nothing is kept on disk.
//!
//! A chunk that did not arrive is sent again from memory. Where the registry forgets the whole upload, the file is sealed
//! anew, under another key: sealing other bytes under the same one is what must never be.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use cella_oci::modelpack::NewLayer;
use cella_oci::{Digest, Registry};
use cella_seal::stream::{SealError, Sealing};
use tokio::sync::mpsc;

use super::super::files::ModelFile;
use super::SealModelError;
use super::job::Job;
use crate::transfer::{CHUNK, Lost, Sending, Tries};

/// Seals one file into a blob of a repository.
pub(super) async fn send(
    job: &Job<'_>,
    file: &ModelFile,
    registry: &Registry,
    repository: &str,
) -> Result<NewLayer, SealModelError> {
    let mut anew = Tries::default();
    loop {
        let outcome = attempt(job, file, registry, repository).await?;
        let error = match outcome {
            Ok(layer) => return Ok(layer),
            Err(error) => error,
        };
        let say = |text: &str| job.counter.say(&format!("{}: {text}, sealed anew", file.path));
        if !anew.once_more(&error, say).await {
            return Err(SealModelError::Upload {
                path: file.on_disk.clone(),
                source: Box::new(error),
            });
        }
    }
}

/// The inner error: the registry has lost the upload.
async fn attempt(
    job: &Job<'_>,
    file: &ModelFile,
    registry: &Registry,
    repository: &str,
) -> Result<Result<NewLayer, cella_oci::RegistryError>, SealModelError> {
    let say = |text: &str| job.counter.say(text);
    let ready = job.ready(file)?;
    let mut sending = Sending::start(registry, repository, say).await?;
    let (to_send, mut chunks) = mpsc::channel(1);
    let (counter, stop, threads) = (job.counter.clone(), job.stop.clone(), job.threads);
    let sealing = tokio::task::spawn_blocking(move || {
        let mut chunks = Chunks {
            buffer: BytesMut::with_capacity(CHUNK),
            to_send,
        };
        let counted = AtomicU64::new(0);
        let watch = |bytes: u64| {
            counted.fetch_add(bytes, Ordering::Relaxed);
            counter.add(bytes);
            !stop.is_set()
        };
        let sealing = Sealing {
            main_key: &ready.key,
            associated_data: &ready.associated_data,
            from: &ready.from,
            threads,
            watch: &watch,
        };
        let sealed = sealing
            .into_writer(&mut chunks)
            .and_then(|sealed| chunks.finish().map(|()| sealed));
        (sealed, ready.key, counted.into_inner())
    });
    let mut sent = Ok(());
    while let Some(chunk) = chunks.recv().await {
        sent = sending.send(chunk, say).await;
        if sent.is_err() {
            break;
        }
    }
    // A sealer that waits to hand on a chunk must not wait for ever.
    drop(chunks);
    let (sealed, key, counted) = sealing.await.map_err(|error| SealModelError::Open {
        path: file.on_disk.clone(),
        source: io::Error::other(error),
    })?;
    let sealed = match sent {
        Ok(()) => {
            let sealed = sealed.map_err(|error| job.failed(file, error))?;
            let digest = Digest::from(sealed.ciphertext_sha256);
            sending.finish(&digest, say).await.map(|()| sealed)
        }
        Err(lost) => Err(lost),
    };
    match sealed {
        Ok(sealed) => job.layer(file, key, &sealed).map(Ok),
        Err(Lost::Failed(error)) => Err(error.into()),
        Err(Lost::Upload(error)) => {
            job.counter.take_back(counted);
            Ok(Err(error))
        }
    }
}

/// Pushes a small blob, whole.
pub(super) async fn send_small(registry: &Registry, repository: &str, bytes: Vec<u8>) -> Result<(), SealModelError> {
    let bytes = Bytes::from(bytes);
    let mut tries = Tries::default();
    loop {
        match registry.push_blob(repository, bytes.clone()).await {
            Ok(_digest) => return Ok(()),
            Err(error) if tries.again(&error, |text| eprintln!("{text}")).await => {}
            Err(error) => return Err(crate::store::StoreError::from(error).into()),
        }
    }
}

/// Gathers what is written into chunks and hands them on; waits while one waits and one is on its way.
struct Chunks {
    buffer: BytesMut,
    to_send: mpsc::Sender<Bytes>,
}

impl Chunks {
    fn hand_on(&mut self) -> io::Result<()> {
        let chunk = self.buffer.split().freeze();
        self.buffer.reserve(CHUNK);
        self.to_send
            .blocking_send(chunk)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn finish(mut self) -> Result<(), SealError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.hand_on().map_err(|source| SealError::Write { index: 0, source })
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (now, _) = bytes.split_at(bytes.len().min(CHUNK - self.buffer.len()));
        self.buffer.extend_from_slice(now);
        if self.buffer.len() == CHUNK {
            self.hand_on()?;
        }
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
