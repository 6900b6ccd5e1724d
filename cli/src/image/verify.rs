//! A second look at an encrypted image, as whoever pulls it would see it: tools are known to leave images plain after
//! an error without saying so.

use cella_oci::Digest;
use cella_oci::image::{self, ImageConfig, ImageError, MAX_CONFIG};
use cella_seal::packet::{self, PROVIDER_ANNOTATION, PUBOPTS_ANNOTATION, PacketError};

use super::encrypt::{PlainImage, Wrapping};
use crate::store::{Artifact, StoreError};

/// Checks that every layer is encrypted, opens with the key, and that no plain layer can be reached.
pub(super) async fn check(result: &Artifact, plain: &PlainImage, wrapping: &Wrapping<'_>) -> Result<(), VerifyError> {
    let config = ImageConfig::parse(&result.config(MAX_CONFIG).await?)?;
    let layers = image::layers(&result.manifest, &config)?;
    if layers.len() != plain.layers.len() {
        return Err(VerifyError::Count {
            found: layers.len(),
            expected: plain.layers.len(),
        });
    }
    let in_clear = plain.digests();
    for (index, layer) in layers.iter().enumerate() {
        let descriptor = &layer.descriptor;
        if !layer.encrypted {
            return Err(VerifyError::Plain {
                index,
                digest: descriptor.digest,
            });
        }
        if in_clear.contains(&descriptor.digest) {
            return Err(VerifyError::Reachable {
                index,
                digest: descriptor.digest,
            });
        }
        for key in [PROVIDER_ANNOTATION, PUBOPTS_ANNOTATION] {
            if !descriptor.annotations.contains_key(key) {
                return Err(VerifyError::Annotation { index, key });
            }
        }
        let opened = packet::unwrap_layer(&descriptor.annotations, |kid| {
            (kid == wrapping.kid.as_str()).then_some(wrapping.kek)
        })
        .and_then(|unwrapped| unwrapped.for_image());
        opened.map_err(|source| VerifyError::Key { index, source })?;
    }
    Ok(())
}

/// What is wrong with the result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum VerifyError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is no image.
    #[error("the result is not an image that can be used")]
    Image(#[from] ImageError),
    /// Layers are missing.
    #[error("the result has {found} layers, the source {expected}")]
    Count { found: usize, expected: usize },
    /// A layer is in the clear.
    #[error("layer {index}, {digest}, is not encrypted")]
    Plain { index: usize, digest: Digest },
    /// A layer's ciphertext is a plain layer.
    #[error("layer {index} is the plain layer {digest}")]
    Reachable { index: usize, digest: Digest },
    /// An annotation is missing.
    #[error("layer {index} has no annotation {key}")]
    Annotation { index: usize, key: &'static str },
    /// The key does not open it.
    #[error("layer {index} does not open with the key")]
    Key { index: usize, source: PacketError },
}
