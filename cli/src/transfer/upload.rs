//! Sending one blob in chunks that are in memory: a chunk that did not arrive is sent again, from where the registry has it.

use bytes::Bytes;
use cella_oci::{Digest, Registry, RegistryError, Upload};

use super::Tries;
use crate::store::StoreError;

/// An upload, and what to do when it falters.
pub(crate) struct Sending<'r> {
    registry: &'r Registry,
    repository: &'r str,
    upload: Upload,
    /// Part of it was sent by an earlier run, which the registry may still be busy with.
    resumed: bool,
    tries: Tries,
}

/// Why a chunk was not sent.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The registry has forgotten the upload, or does not take chunks: the blob has to be sent anew.
    Upload(RegistryError),
    /// It cannot be sent.
    Failed(StoreError),
}

impl<'r> Sending<'r> {
    /// Begins.
    pub(crate) async fn start(
        registry: &'r Registry,
        repository: &'r str,
        say: impl Fn(&str),
    ) -> Result<Self, StoreError> {
        let mut tries = Tries::default();
        loop {
            match registry.start_upload(repository).await {
                Ok(upload) => return Ok(Self::resume(registry, repository, upload)),
                Err(error) if tries.again(&error, &say).await => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Goes on with an upload.
    pub(crate) fn resume(registry: &'r Registry, repository: &'r str, upload: Upload) -> Self {
        Self {
            registry,
            repository,
            resumed: upload.offset() > 0,
            upload,
            tries: Tries::default(),
        }
    }

    pub(crate) fn upload(&self) -> &Upload {
        &self.upload
    }

    /// Sends a chunk, all of it.
    pub(crate) async fn send(&mut self, chunk: Bytes, say: impl Fn(&str)) -> Result<(), Lost> {
        let start = self.upload.offset();
        let end = start + chunk.len() as u64;
        while self.upload.offset() < end {
            let sent = usize::try_from(self.upload.offset().saturating_sub(start)).unwrap_or(usize::MAX);
            let rest = chunk.slice(sent.min(chunk.len())..);
            let error = match self.registry.append(self.repository, &mut self.upload, rest).await {
                Ok(()) => break,
                Err(error) => error,
            };
            let resumable = error.is_transient() || is_out_of_step(&error);
            if !resumable || !self.tries.once_more(&error, &say).await {
                return Err(if is_about_upload(&error) {
                    Lost::Upload(error)
                } else {
                    Lost::Failed(error.into())
                });
            }
            let before = self.upload.offset();
            self.find(error, &say).await?;
            // Where the registry lost what it had acknowledged, or has what was never sent, nothing can be trusted.
            if !(start..=end).contains(&self.upload.offset()) {
                return Err(Lost::Upload(self.out_of_step(before)));
            }
        }
        self.tries.went_on();
        Ok(())
    }

    /// Asks the registry how far it is.
    async fn find(&mut self, cause: RegistryError, say: impl Fn(&str)) -> Result<(), Lost> {
        loop {
            match self.registry.upload_status(self.repository, self.upload.place()).await {
                Ok(Some(upload)) => {
                    self.upload = upload;
                    return Ok(());
                }
                Ok(None) => return Err(Lost::Upload(cause)),
                Err(error) if self.tries.again(&error, &say).await => {}
                Err(error) => return Err(Lost::Failed(error.into())),
            }
        }
    }

    /// Ends the upload.
    pub(crate) async fn finish(mut self, digest: &Digest, say: impl Fn(&str)) -> Result<(), Lost> {
        loop {
            let done = self
                .registry
                .finish_upload(self.repository, self.upload.clone(), digest)
                .await;
            let error = match done {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // The answer may be what was lost.
            if error.is_transient()
                && self
                    .registry
                    .blob_exists(self.repository, digest)
                    .await
                    .unwrap_or(false)
            {
                return Ok(());
            }
            // What an earlier run had begun is gone, or other bytes came into it at its end.
            let begun_before = self.resumed && is_about_upload(&error);
            if matches!(error, RegistryError::NotFound { .. }) || begun_before {
                return Err(Lost::Upload(error));
            }
            if !self.tries.again(&error, &say).await {
                return Err(Lost::Failed(error.into()));
            }
        }
    }

    fn out_of_step(&self, before: u64) -> RegistryError {
        // Said as the registry's own words would be: what it has, and from where it was sent on.
        RegistryError::UploadRange {
            operation: self.registry.sending_operation(self.repository, before),
            found: format!("0-{}", self.upload.offset()),
        }
    }
}

/// The registry has another part of the upload than it was sent.
fn is_out_of_step(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::UploadRange { .. } | RegistryError::Status { status: 416, .. }
    )
}

/// It says no to the upload, not to the sender.
fn is_about_upload(error: &RegistryError) -> bool {
    match error {
        RegistryError::NotFound { .. } | RegistryError::UploadRange { .. } => true,
        RegistryError::Status { status, .. } => matches!(status, 400 | 404 | 405 | 410 | 411 | 413 | 416 | 501),
        _ => false,
    }
}
