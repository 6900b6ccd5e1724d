//! The document's two envelopes, Kata's block device and Kata's pod annotation, and the bounded inflater.
//!
//! ```text
//! offset 0      8 bytes   ASCII "initdata"
//! offset 8      8 bytes   u64 little-endian, L
//! offset 16     L bytes   gzip(document), one member
//! offset 16+L             zeros up to a multiple of 512
//! ```

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};

use super::{InitdataError, MAX_COMPRESSED, MAX_DOCUMENT};

/// How many bytes to read from a device of `device_size` bytes that begins with `header`: content and padding.
pub fn device_read_length(header: &[u8; HEADER], device_size: u64) -> Result<usize, InitdataError> {
    let (magic, length) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(InitdataError::Magic);
    }
    let found = length
        .iter()
        .rev()
        .fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    let length = usize::try_from(found)
        .ok()
        .filter(|length| (MIN_COMPRESSED..=MAX_COMPRESSED).contains(length))
        .ok_or(InitdataError::Length { found })?;
    let total = (HEADER + length).next_multiple_of(BLOCK);
    let needed = u64::try_from(total).unwrap_or(u64::MAX);
    match device_size {
        size if size < needed => Err(InitdataError::Short { found: size, needed }),
        size if size > needed => Err(InitdataError::Long {
            found: size,
            expected: needed,
        }),
        _ => Ok(total),
    }
}

/// The document on a device. `device` is the whole device, copied into private memory once.
pub fn inflate_device(device: &[u8]) -> Result<Vec<u8>, InitdataError> {
    let size = u64::try_from(device.len()).unwrap_or(u64::MAX);
    let header = device.first_chunk::<HEADER>().ok_or(InitdataError::Short {
        found: size,
        needed: u64::try_from(BLOCK).unwrap_or(u64::MAX),
    })?;
    device_read_length(header, size)?;
    let length = header
        .last_chunk::<8>()
        .map(|field| u64::from_le_bytes(*field))
        .unwrap_or_default();
    let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(HEADER);
    let (content, padding) = device.split_at_checked(end).ok_or(InitdataError::Short {
        found: size,
        needed: length,
    })?;
    if let Some(index) = padding.iter().position(|byte| *byte != 0) {
        return Err(InitdataError::Padding { offset: end + index });
    }
    inflate(content.get(HEADER..).unwrap_or_default())
}

/// A device image of a document.
pub fn encode_device(document: &[u8]) -> Vec<u8> {
    let compressed = deflate(document);
    let mut device = Vec::with_capacity((HEADER + compressed.len()).next_multiple_of(BLOCK));
    device.extend_from_slice(MAGIC);
    device.extend_from_slice(&u64::try_from(compressed.len()).unwrap_or(u64::MAX).to_le_bytes());
    device.extend_from_slice(&compressed);
    device.resize(device.len().next_multiple_of(BLOCK), 0);
    device
}

/// The document in a pod annotation: base64(gzip(document)).
pub fn inflate_annotation(annotation: &str) -> Result<Vec<u8>, InitdataError> {
    let limit = MAX_COMPRESSED.div_ceil(3) * 4;
    if annotation.len() > limit {
        return Err(InitdataError::AnnotationTooLong {
            found: annotation.len(),
            limit,
        });
    }
    inflate(&STANDARD.decode(annotation).map_err(|_| InitdataError::Base64)?)
}

/// The annotation for a document.
pub fn encode_annotation(document: &[u8]) -> String {
    STANDARD.encode(deflate(document))
}

/// One gzip member, whole, with nothing behind it; never more than [`MAX_DOCUMENT`] bytes of output.
fn inflate(compressed: &[u8]) -> Result<Vec<u8>, InitdataError> {
    let ratio_limit = compressed.len().saturating_mul(MAX_RATIO);
    let limit = ratio_limit.min(MAX_DOCUMENT);
    let mut document = Vec::with_capacity(compressed.len().saturating_mul(4).min(limit));
    let mut member = GzDecoder::new(compressed);
    let mut bounded = (&mut member).take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1));
    bounded
        .read_to_end(&mut document)
        .map_err(|source| InitdataError::Gzip { source })?;
    if document.len() > MAX_DOCUMENT {
        return Err(InitdataError::TooLong);
    }
    if document.len() > ratio_limit {
        return Err(InitdataError::Bomb { limit: MAX_RATIO });
    }
    match member.into_inner().len() {
        0 => Ok(document),
        found => Err(InitdataError::Trailing { found }),
    }
}

/// The same bytes for the same document: no time, no file name.
fn deflate(document: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    // Writing into memory cannot fail.
    let _ = encoder.write_all(document);
    encoder.finish().unwrap_or_default()
}

const MAGIC: &[u8] = b"initdata";
const HEADER: usize = 16;
const BLOCK: usize = 512;
/// 10 bytes of header, 2 of an empty deflate stream, 8 of trailer.
const MIN_COMPRESSED: usize = 20;
/// TOML text compresses three to ten times; deflate's limit is 1032.
const MAX_RATIO: usize = 100;
