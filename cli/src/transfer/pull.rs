//! From registries to a layout.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use cella_oci::{Descriptor, Digest, DigestMismatch, Registry, Verifier};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::push::first_error;
use super::{JOBS, Watch, read_blob};
use crate::layout::{Layout, LayoutError};
use crate::progress::Part;
use crate::store::StoreError;

/// A registry that may have the blobs.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) registry: Registry,
    pub(crate) repository: String,
}

/// Blobs on their way into a layout.
pub(crate) struct Pulling {
    /// In the order in which they are asked.
    pub(crate) sources: Vec<Source>,
    pub(crate) layout: Layout,
    pub(crate) watch: Watch,
}

impl Pulling {
    /// Fetches what the layout does not have yet, several blobs at once.
    pub(crate) async fn run(self, blobs: Vec<Descriptor>) -> Result<(), StoreError> {
        let pulling = Arc::new(self);
        let places = Arc::new(Semaphore::new(JOBS));
        let mut tasks = JoinSet::new();
        for blob in blobs {
            let (pulling, places) = (Arc::clone(&pulling), Arc::clone(&places));
            tasks.spawn(async move {
                // The semaphore is never closed.
                let _place = places.acquire_owned().await;
                pulling.fetch(&blob).await.map_err(|source| StoreError::Blob {
                    what: format!("pulling blob {} of {} bytes", blob.digest, blob.size),
                    source: Box::new(source),
                })
            });
        }
        first_error(tasks).await
    }

    async fn fetch(&self, blob: &Descriptor) -> Result<(), StoreError> {
        let mut part = Part::new(&self.watch.counter);
        // A blob has its name only since its digest was right.
        if fs::metadata(self.layout.path(&blob.digest)).is_ok_and(|file| file.len() == blob.size) {
            part.reach(blob.size);
            return Ok(());
        }
        let mut partial = Partial::open(&self.layout, blob)?;
        let mut outcome = Err(StoreError::NoSource);
        for source in &self.sources {
            // What an earlier run or another source gave may be what is wrong: then this source gives all of it.
            for _ in 0..2 {
                let resumed = partial.at > 0;
                outcome = self.read(source, blob, &mut partial, &mut part).await;
                match &outcome {
                    Ok(()) => return partial.commit(&self.layout, blob),
                    Err(StoreError::Stopped) => return outcome,
                    Err(StoreError::Content { .. }) => {
                        partial.clear()?;
                        part.reach(0);
                        if !resumed {
                            break;
                        }
                    }
                    Err(_) => break,
                }
            }
            if let Err(error) = &outcome {
                let registry = source.registry.name();
                self.watch.counter.say(&format!("{registry}: {error}"));
            }
        }
        outcome
    }

    /// Reads the rest of the blob from one source and checks all of it.
    async fn read(
        &self,
        source: &Source,
        blob: &Descriptor,
        partial: &mut Partial,
        part: &mut Part,
    ) -> Result<(), StoreError> {
        part.reach(partial.at);
        let mut at = partial.at;
        let read = read_blob(&source.registry, &source.repository, blob, &mut at, |bytes| {
            if self.watch.stop.is_set() {
                return Err(StoreError::Stopped);
            }
            partial.write(bytes)?;
            part.reach(partial.at);
            Ok(())
        });
        read.await?;
        partial.check(&blob.digest)
    }
}

/// A blob as far as it is here.
struct Partial {
    path: PathBuf,
    file: File,
    at: u64,
    verifier: Verifier,
}

impl Partial {
    /// What an earlier run left, hashed again; nothing where it left more than the blob.
    fn open(layout: &Layout, blob: &Descriptor) -> Result<Self, StoreError> {
        let path = layout.blobs().join(format!("{}.part", blob.digest.hex()));
        let failed = |source| LayoutError::Write {
            path: path.clone(),
            source,
        };
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        let mut partial = Self {
            path: path.clone(),
            file,
            at: 0,
            verifier: Verifier::new(),
        };
        if partial.file.metadata().map_err(failed)?.len() > blob.size {
            partial.clear()?;
        }
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = partial.file.read(&mut buffer).map_err(failed)?;
            match buffer.get(..count) {
                Some([]) | None => return Ok(partial),
                Some(bytes) => partial.take(bytes),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all_at(bytes, self.at)?;
        self.take(bytes);
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        self.verifier.update(bytes);
        self.at += bytes.len() as u64;
    }

    fn check(&self, digest: &Digest) -> Result<(), StoreError> {
        let checked: Result<(), DigestMismatch> = self.verifier.clone().finish(digest);
        checked.map_err(|source| StoreError::Content { source })
    }

    fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.at = 0;
        self.verifier = Verifier::new();
        Ok(())
    }

    fn commit(self, layout: &Layout, blob: &Descriptor) -> Result<(), StoreError> {
        self.file.sync_data()?;
        fs::rename(&self.path, layout.path(&blob.digest))?;
        Ok(())
    }
}
