//! One packet: a set of private options, wrapped under one key of the broker.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::error::cut;
use super::options::{decode, exact};
use super::{MAX_PACKET, PacketError, PrivateOptions};
use crate::secret::{Kek, fill_random};

/// A packet of version 1 (as `coco_keyprovider` writes it) or 2, for the provider `kbs` and the wrapping `A256GCM`.
/// Another provider, wrapping or version cannot be in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationPacket {
    kid: String,
    iv: [u8; IV],
    wrapped: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PacketFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    kid: String,
    wrapped_data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    iv: String,
    wrap_type: String,
    /// Without meaning for the provider `kbs`.
    #[serde(default, skip_serializing)]
    #[allow(dead_code)]
    provider_settings: serde_json::Map<String, serde_json::Value>,
    /// Without meaning for the provider `kbs`.
    #[serde(default, skip_serializing)]
    #[allow(dead_code)]
    annotations: serde_json::Map<String, serde_json::Value>,
}

impl AnnotationPacket {
    /// Reads one packet: base64 of JSON.
    ///
    /// # Errors
    /// When it is too long or malformed, when version, provider or wrapping are not spoken here, and for a key id that
    /// is none or is the samples'.
    pub fn parse(base64: &str) -> Result<Self, PacketError> {
        const WHAT: &str = "the annotation packet";
        let json = decode(base64, WHAT, MAX_PACKET)?;
        let file: PacketFile =
            serde_json::from_slice(&json).map_err(|source| PacketError::Json { what: WHAT, source })?;
        require("version", file.version.as_deref(), "0.1.0")?;
        require("provider", file.provider.as_deref(), "kbs")?;
        require("wrap_type", Some(&file.wrap_type), "A256GCM")?;
        check_kid(&file.kid)?;
        let iv = exact(&decode(&file.iv, "iv", 64)?, "iv")?;
        let wrapped = decode(&file.wrapped_data, "wrapped_data", MAX_PACKET)?;
        Ok(Self {
            kid: file.kid,
            iv,
            wrapped,
        })
    }

    /// Wraps private options under the broker's key `kid`, with an IV drawn for this packet.
    ///
    /// # Errors
    /// For a key id that is none, and when the system gives no random bytes.
    pub fn wrap(private: &PrivateOptions, kek: &Kek, kid: &str) -> Result<Self, PacketError> {
        let mut iv = [0; IV];
        fill_random(&mut iv)?;
        Self::wrap_with_iv(private, kek, kid, iv)
    }

    /// With an IV that is given: for known answers only.
    pub(super) fn wrap_with_iv(
        private: &PrivateOptions,
        kek: &Kek,
        kid: &str,
        iv: [u8; IV],
    ) -> Result<Self, PacketError> {
        check_kid(kid)?;
        let mut json = private.to_json();
        let mut bytes = Zeroizing::new(Vec::with_capacity(json.len() + 16));
        bytes.extend_from_slice(json.as_bytes());
        json.zeroize();
        let nonce = Nonce::assume_unique_for_key(iv);
        aes_key(kek)?
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut *bytes)
            .map_err(|_| PacketError::Crypto)?;
        Ok(Self {
            kid: kid.to_owned(),
            iv,
            wrapped: bytes.to_vec(),
        })
    }

    /// The id of the key that opens it.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`PacketError::NotAuthentic`] for the wrong key or a changed packet, [`PacketError::PrivateOptions`] when something
    /// else was wrapped.
    pub fn unwrap(&self, kek: &Kek) -> Result<PrivateOptions, PacketError> {
        let mut bytes = Zeroizing::new(self.wrapped.clone());
        let nonce = Nonce::assume_unique_for_key(self.iv);
        let json = aes_key(kek)?
            .open_in_place(nonce, Aad::empty(), bytes.as_mut_slice())
            .map_err(|_| PacketError::NotAuthentic { kid: self.kid.clone() })?;
        PrivateOptions::from_json(json).map_err(|problem| PacketError::PrivateOptions {
            kid: self.kid.clone(),
            problem,
        })
    }

    /// Base64 of the JSON, in the form of version 1, which every reader takes.
    ///
    /// # Errors
    /// [`PacketError::Json`] when it cannot be written, which no packet brings about.
    pub fn to_base64(&self) -> Result<String, PacketError> {
        let file = PacketFile {
            version: None,
            kid: self.kid.clone(),
            wrapped_data: STANDARD.encode(&self.wrapped),
            provider: None,
            iv: STANDARD.encode(self.iv),
            wrap_type: "A256GCM".to_owned(),
            provider_settings: serde_json::Map::new(),
            annotations: serde_json::Map::new(),
        };
        let json = serde_json::to_vec(&file).map_err(|source| PacketError::Json {
            what: "the annotation packet",
            source,
        })?;
        Ok(STANDARD.encode(json))
    }
}

/// `None` stands for the default, which is the one value supported.
fn require(field: &'static str, value: Option<&str>, supported: &'static str) -> Result<(), PacketError> {
    match value {
        Some(found) if found != supported => Err(PacketError::Unsupported {
            field,
            found: cut(found),
            supported,
        }),
        _ => Ok(()),
    }
}

/// `kbs://[host]/<repository>/<type>/<tag>`. The host is never dialled: it is part of the name that policies compare.
fn check_kid(kid: &str) -> Result<(), PacketError> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let rest = kid
        .strip_prefix("kbs://")
        .filter(|_| kid.len() <= MAX_KID)
        .ok_or(PacketError::KeyId)?;
    let (host, path) = rest.split_once('/').ok_or(PacketError::KeyId)?;
    let segments: Vec<_> = path.split('/').collect();
    let well_formed = segments.len() == 3 && segments.iter().all(|part| !part.is_empty() && plain(part));
    if !well_formed || !host.split(':').all(plain) {
        return Err(PacketError::KeyId);
    }
    if path == SAMPLE_KEY {
        return Err(PacketError::SampleKey { kid: kid.to_owned() });
    }
    Ok(())
}

fn aes_key(kek: &Kek) -> Result<LessSafeKey, PacketError> {
    let key = UnboundKey::new(&AES_256_GCM, kek.expose()).map_err(|_| PacketError::Crypto)?;
    Ok(LessSafeKey::new(key))
}

const IV: usize = 12;
const MAX_KID: usize = 512;
/// The keyprovider's `sample=true`: key and IV are in its source.
const SAMPLE_KEY: &str = "default/test-key/1";

#[cfg(test)]
mod tests;
