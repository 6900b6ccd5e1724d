//! One layer on its way from the network into a directory.
//!
//! ```text
//!  registry ──chunks──▶ Feed ─▶ Blob ─────────────────▶ decompress ─▶ diff_id ─▶ tar ─▶ directory
//!  (async)    (bounded)         SHA-256, decrypt + MAC   (thread)      SHA-256
//! ```
//! Everything right of the chunks runs on one thread of the layer's own, which is confined to the layer's directory. What
//! comes out of the archive is there before it is authenticated; it is good only when [`unpack_layer`] returns `Ok`, after
//! the blob was read to its very end, and is deleted by the caller otherwise.
//!
//! Which fault is reported does not depend on where a change was noticed first: whatever stopped the archive, the rest of
//! the blob is read, and a wrong digest or MAC is named before a broken archive is.

use std::{
    io::{self, BufReader, Read},
    path::Path,
    sync::Arc,
};

use bytes::{Buf, Bytes};
use cella_oci::{Digest, Verifier, image::Compression};
use cella_seal::layer::{LayerDecryptor, LayerError, LayerKeys};
use flate2::bufread::MultiGzDecoder;
use tokio::sync::mpsc;

use super::{
    archive::Archive,
    budget::Budget,
    unpack::{Confined, UnpackError, Unpacker},
    zstd::ZstdReader,
};
use crate::workload::error::{Cause, LayerFault};

/// What is known of a layer before its first byte.
pub(crate) struct LayerPlan {
    /// SHA-256 of the blob, from the manifest.
    pub(crate) digest: Digest,
    /// Length of the blob, from the manifest.
    pub(crate) size: u64,
    /// How it is compressed.
    pub(crate) compression: Compression,
    /// What decrypts it; `None` for a plain layer.
    pub(crate) keys: Option<LayerKeys>,
    /// SHA-256 of the archive, from the configuration.
    pub(crate) diff_id: Digest,
}

/// Why a layer was not unpacked.
#[derive(Debug)]
pub(crate) enum LayerFailure {
    /// The layer is bad.
    Fault(LayerFault),
    /// There is no room for it.
    Space,
    /// The guest failed.
    Internal(Cause),
}

/// Unpacks the blob that comes through `chunks` into the directory `into`. Returns the number of device nodes that were left
/// out.
///
/// Confines the calling thread to `into` for good: call it on a thread of its own.
pub(crate) fn unpack_layer(
    plan: LayerPlan,
    chunks: mpsc::Receiver<Bytes>,
    into: &Path,
    budget: Arc<Budget>,
) -> Result<u64, LayerFailure> {
    let confined = Confined::enter(into).map_err(|error| LayerFailure::Internal(Cause::new(error)))?;
    let blob = Blob {
        feed: Feed {
            chunks,
            current: Bytes::new(),
        },
        hash: Verifier::new(),
        decryptor: plan.keys.as_ref().map(LayerDecryptor::new),
        length: 0,
    };
    let source = BufReader::with_capacity(BUFFER, blob);
    let mut archive = Archive::new(DiffId {
        source: Decompressor::new(plan.compression, source),
        hash: Verifier::new(),
    });
    let mut unpacked = Unpacker::new(confined, budget).unpack(&mut archive);
    let mut layer = archive.into_inner();
    if unpacked.is_ok() {
        // Behind an archive's end marker there may be more that the diff_id covers.
        if let Err(source) = io::copy(&mut layer, &mut io::sink()) {
            unpacked = Err(UnpackError::Trailer(source));
        }
    }
    let mut blob = layer.source.into_blob();
    // The feed itself never fails; it ends when the last chunk was taken or the sender gave up.
    io::copy(&mut blob, &mut io::sink()).map_err(|error| LayerFailure::Internal(Cause::new(error)))?;
    authenticate(plan.digest, plan.size, blob).map_err(LayerFailure::Fault)?;
    match unpacked {
        Ok(devices) if layer.hash.finish(&plan.diff_id).is_ok() => Ok(devices),
        Ok(_) => Err(LayerFailure::Fault(LayerFault::DiffId)),
        Err(UnpackError::Space { .. }) => Err(LayerFailure::Space),
        Err(error @ (UnpackError::Io { .. } | UnpackError::Confine(_))) => {
            Err(LayerFailure::Internal(Cause::new(error)))
        }
        Err(error) => Err(LayerFailure::Fault(LayerFault::Unpack(Cause::new(error)))),
    }
}

/// Length and digest of the blob, then MAC and digest of what was decrypted.
fn authenticate(digest: Digest, size: u64, blob: Blob) -> Result<(), LayerFault> {
    if blob.length != size {
        return Err(LayerFault::Length {
            found: blob.length,
            expected: size,
        });
    }
    blob.hash.finish(&digest).map_err(|_| LayerFault::Digest)?;
    match blob.decryptor.map(LayerDecryptor::finish) {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(LayerError::Digest)) => Err(LayerFault::PlainDigest),
        Some(Err(_)) => Err(LayerFault::Hmac),
    }
}

/// Chunks of the network as a reader.
struct Feed {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buffer.len());
        if let Some(part) = buffer.get_mut(..count) {
            self.current.copy_to_slice(part);
        }
        Ok(count)
    }
}

/// The blob, hashed and decrypted as it is read.
struct Blob {
    feed: Feed,
    hash: Verifier,
    decryptor: Option<LayerDecryptor>,
    length: u64,
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.feed.read(buffer)?;
        let part = buffer.get_mut(..count).unwrap_or_default();
        self.length = self.length.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        self.hash.update(part);
        if let Some(decryptor) = &mut self.decryptor {
            decryptor.update(part);
        }
        Ok(count)
    }
}

/// The archive as it was before compression.
enum Decompressor {
    Plain(Box<BufReader<Blob>>),
    Gzip(Box<MultiGzDecoder<BufReader<Blob>>>),
    Zstd(Box<ZstdReader<BufReader<Blob>>>),
}

impl Decompressor {
    fn new(compression: Compression, source: BufReader<Blob>) -> Self {
        match compression {
            Compression::None => Self::Plain(Box::new(source)),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(source))),
            Compression::Zstd => Self::Zstd(Box::new(ZstdReader::new(source))),
        }
    }

    /// The blob, wherever it stands; what was buffered of it has been hashed.
    fn into_blob(self) -> Blob {
        match self {
            Self::Plain(source) => source.into_inner(),
            Self::Gzip(decoder) => decoder.into_inner().into_inner(),
            Self::Zstd(decoder) => decoder.into_inner().into_inner(),
        }
    }
}

impl Read for Decompressor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// The archive, hashed as it is read.
struct DiffId {
    source: Decompressor,
    hash: Verifier,
}

impl Read for DiffId {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Bytes that are hashed and decrypted at a time.
const BUFFER: usize = 128 * 1024;
