//! One file sealed.

use std::fs::File;
use std::num::NonZeroUsize;

use cella_oci::Digest;
use cella_oci::modelpack::{BLAKE3_ANNOTATION, Form, LayerType, NewLayer};
use cella_seal::packet::{self, Cipher, PrivateOptions, PubOpts};
use cella_seal::place;
use cella_seal::stream::{SealError, SealedFile, Sealing};
use cella_seal::{DataKey, Kek, PlainDigest};

use super::super::files::{self, ModelFile};
use super::SealModelError;
use crate::interrupt::Stop;
use crate::layout::Layout;
use crate::progress::Counter;

/// What all files of a model have in common.
pub(super) struct Job<'k> {
    pub(super) name: String,
    pub(super) version: u64,
    pub(super) kek: &'k Kek,
    pub(super) kid: &'k str,
    pub(super) threads: NonZeroUsize,
    pub(super) counter: Counter,
    pub(super) stop: Stop,
}

/// A file about to be sealed, under a key of its own.
pub(super) struct Ready {
    pub(super) key: DataKey,
    pub(super) associated_data: Vec<u8>,
    pub(super) from: File,
}

impl Job<'_> {
    /// Draws the file's key and opens it; refuses it when it is not what was found at first.
    pub(super) fn ready(&self, file: &ModelFile) -> Result<Ready, SealModelError> {
        let from = files::open(&file.on_disk)?;
        let metadata = from.metadata().map_err(|source| SealModelError::Open {
            path: file.on_disk.clone(),
            source,
        })?;
        if metadata.len() != file.length {
            return Err(SealModelError::Seal {
                path: file.on_disk.clone(),
                source: SealError::Changed { expected: file.length },
            });
        }
        Ok(Ready {
            key: DataKey::random()?,
            associated_data: place::associated_data(&self.name, file.path.as_str(), self.version)?,
            from,
        })
    }

    /// Seals one file into a blob of a layout.
    pub(super) fn seal(&self, file: &ModelFile, layout: &Layout) -> Result<NewLayer, SealModelError> {
        let ready = self.ready(file)?;
        let staged = layout.stage()?;
        let watch = |bytes| self.went_on(bytes);
        let sealing = Sealing {
            main_key: &ready.key,
            associated_data: &ready.associated_data,
            from: &ready.from,
            threads: self.threads,
            watch: &watch,
        };
        let sealed = sealing
            .into_file(staged.file())
            .map_err(|error| self.failed(file, error))?;
        let media_type = LayerType {
            kind: file.kind,
            form: Form::Raw,
            sealed: true,
        };
        let digest = Digest::from(sealed.ciphertext_sha256);
        staged.commit_as(&media_type.to_string(), digest, sealed.layout.ciphertext_len())?;
        self.layer(file, ready.key, &sealed)
    }

    /// Counts, and says whether to go on.
    pub(super) fn went_on(&self, bytes: u64) -> bool {
        self.counter.add(bytes);
        !self.stop.is_set()
    }

    pub(super) fn failed(&self, file: &ModelFile, source: SealError) -> SealModelError {
        match source {
            SealError::GivenUp if self.stop.is_set() => SealModelError::Stopped,
            source => SealModelError::Seal {
                path: file.on_disk.clone(),
                source,
            },
        }
    }

    /// The layer of a file that was sealed, its key wrapped.
    pub(super) fn layer(
        &self,
        file: &ModelFile,
        key: DataKey,
        sealed: &SealedFile,
    ) -> Result<NewLayer, SealModelError> {
        let private = PrivateOptions {
            symkey: key,
            digest: PlainDigest(sealed.plaintext_sha256),
            nonce: None,
        };
        let mut annotations = packet::wrap_layer(&PUBLIC, &private, self.kek, self.kid)?;
        annotations.insert(BLAKE3_ANNOTATION.to_owned(), sealed.plaintext_blake3.to_string());
        Ok(NewLayer {
            path: file.path.clone(),
            kind: file.kind,
            digest: Digest::from(sealed.ciphertext_sha256),
            size: sealed.layout.ciphertext_len(),
            diff_id: Digest::from(sealed.plaintext_sha256),
            key_annotations: Some(annotations),
        })
    }
}

/// The public options of a sealed file.
pub(in super::super) const PUBLIC: PubOpts = PubOpts {
    cipher: Cipher::TinkStream,
    hmac: None,
};
