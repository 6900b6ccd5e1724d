//! From a descriptor's annotations to a layer's key, and back.
use std::collections::BTreeMap;

use super::error::cut;
use super::{
    AnnotationPacket, Cipher, MAX_PACKET, MAX_PACKETS, PROVIDER_ANNOTATION, PROVIDER_PREFIX, PUBOPTS_ANNOTATION,
    PacketError, PrivateOptions, PubOpts,
};
use crate::PlainDigest;
use crate::layer::LayerKeys;
use crate::secret::{DataKey, Kek};

/// Both options of a layer, opened.
pub struct UnwrappedLayer {
    /// Id of the key that opened the packet.
    pub kid: String,
    /// In the clear.
    pub public: PubOpts,
    /// Unwrapped.
    pub private: PrivateOptions,
}

impl UnwrappedLayer {
    /// What decrypts an image layer.
    ///
    /// # Errors
    /// When the layer uses the models' cipher, or has no nonce.
    pub fn for_image(self) -> Result<LayerKeys, PacketError> {
        let wanted = Cipher::AesCtrHmac.name();
        let (Cipher::AesCtrHmac, Some(hmac)) = (self.public.cipher, self.public.hmac) else {
            return Err(PacketError::WrongCipher {
                found: self.public.cipher.name(),
                wanted,
            });
        };
        let PrivateOptions { symkey, digest, nonce } = self.private;
        let nonce = nonce.ok_or(PacketError::CipherField {
            cipher: wanted,
            field: "nonce",
        })?;
        Ok(LayerKeys {
            key: symkey,
            nonce,
            hmac,
            digest,
        })
    }

    /// Main key and plaintext digest of a sealed model file.
    ///
    /// # Errors
    /// When the layer uses the images' cipher, which releases plaintext before it is checked, or carries a nonce.
    pub fn for_model(self) -> Result<(DataKey, PlainDigest), PacketError> {
        let wanted = Cipher::TinkStream.name();
        match (self.public.cipher, self.private.nonce) {
            (Cipher::TinkStream, None) => Ok((self.private.symkey, self.private.digest)),
            (Cipher::TinkStream, Some(_)) => Err(PacketError::CipherField {
                cipher: wanted,
                field: "nonce",
            }),
            (found, _) => Err(PacketError::WrongCipher {
                found: found.name(),
                wanted,
            }),
        }
    }
}

/// Opens a layer's options with the first packet whose key `find_kek` knows. `find_kek` is asked for ids that the
/// *policy* names for this layer, and gives `None` for all others.
///
/// # Errors
/// Any rule of the module that is broken; [`PacketError::KeyNotNamed`] when no packet is for a known key; else what
/// the last packet tried says.
pub fn unwrap_layer<'k>(
    annotations: &BTreeMap<String, String>,
    find_kek: impl Fn(&str) -> Option<&'k Kek>,
) -> Result<UnwrappedLayer, PacketError> {
    let packets = packets(annotations)?;
    let public = annotations.get(PUBOPTS_ANNOTATION).ok_or(PacketError::Missing {
        key: PUBOPTS_ANNOTATION,
    })?;
    let public = PubOpts::parse(public)?;
    let mut outcome = Err(PacketError::Missing {
        key: PROVIDER_ANNOTATION,
    });
    for (index, packet) in packets.iter().enumerate() {
        match find_kek(packet.kid()).map(|kek| packet.unwrap(kek)) {
            Some(Ok(private)) => {
                return Ok(UnwrappedLayer {
                    kid: packet.kid().to_owned(),
                    public,
                    private,
                });
            }
            Some(Err(error)) => outcome = Err(error),
            None if index == 0 => {
                outcome = Err(PacketError::KeyNotNamed {
                    kid: packet.kid().to_owned(),
                })
            }
            None => {}
        }
    }
    outcome
}

/// The ids of all keys that could open the layer, so that each is fetched once for all layers.
///
/// # Errors
/// As [`unwrap_layer`], for the packets.
pub fn layer_kids(annotations: &BTreeMap<String, String>) -> Result<Vec<String>, PacketError> {
    Ok(packets(annotations)?
        .into_iter()
        .map(|packet| packet.kid().to_owned())
        .collect())
}

/// The annotations of a layer, wrapped under the broker's key `kid`.
///
/// # Errors
/// As [`AnnotationPacket::wrap`].
pub fn wrap_layer(
    public: &PubOpts,
    private: &PrivateOptions,
    kek: &Kek,
    kid: &str,
) -> Result<BTreeMap<String, String>, PacketError> {
    let packet = AnnotationPacket::wrap(private, kek, kid)?.to_base64()?;
    Ok(BTreeMap::from([
        (PROVIDER_ANNOTATION.to_owned(), packet),
        (PUBOPTS_ANNOTATION.to_owned(), public.to_annotation()),
    ]))
}

fn packets(annotations: &BTreeMap<String, String>) -> Result<Vec<AnnotationPacket>, PacketError> {
    let others = annotations.keys().filter_map(|key| key.strip_prefix(PROVIDER_PREFIX));
    if let Some(provider) = others.filter(|name| *name != PROVIDER).map(cut).next() {
        return Err(PacketError::OtherProvider { provider });
    }
    let joined = annotations.get(PROVIDER_ANNOTATION).ok_or(PacketError::Missing {
        key: PROVIDER_ANNOTATION,
    })?;
    let limit = MAX_PACKETS * (MAX_PACKET + 1);
    if joined.len() > limit {
        return Err(PacketError::TooLong {
            what: "the annotation of the packets",
            length: joined.len(),
            limit,
        });
    }
    let found = joined.split(',').count();
    if found > MAX_PACKETS {
        return Err(PacketError::TooManyPackets {
            found,
            limit: MAX_PACKETS,
        });
    }
    joined.split(',').map(AnnotationPacket::parse).collect()
}

const PROVIDER: &str = "attestation-agent";

#[cfg(test)]
mod tests;
