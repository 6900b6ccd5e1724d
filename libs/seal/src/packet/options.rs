//! Public and private options of an encrypted layer.
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::cut;
use super::{MAX_PUBOPTS, PacketError};
use crate::PlainDigest;
use crate::secret::DataKey;

/// How a layer is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// ocicrypt's cipher, for image layers: [`crate::layer`].
    AesCtrHmac,
    /// Tink's streaming format, for models: [`crate::stream`].
    TinkStream,
}

impl Cipher {
    /// The name in the public options.
    pub fn name(self) -> &'static str {
        match self {
            Self::AesCtrHmac => "AES_256_CTR_HMAC_SHA256",
            Self::TinkStream => "AES256_GCM_HKDF_1MB",
        }
    }

    fn from_name(name: &str) -> Result<Self, PacketError> {
        [Self::AesCtrHmac, Self::TinkStream]
            .into_iter()
            .find(|cipher| cipher.name() == name)
            .ok_or_else(|| PacketError::Unsupported {
                field: "cipher",
                found: cut(name),
                supported: "AES_256_CTR_HMAC_SHA256 or AES256_GCM_HKDF_1MB",
            })
    }
}

/// The public options: cipher, and the MAC if the cipher has one. `cipheroptions` is always empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PubOpts {
    /// The cipher.
    pub cipher: Cipher,
    /// HMAC-SHA256 of the ciphertext: with [`Cipher::AesCtrHmac`] and only there.
    pub hmac: Option<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PubOptsFile<'a> {
    cipher: std::borrow::Cow<'a, str>,
    hmac: String,
    cipheroptions: Option<serde_json::Map<String, serde_json::Value>>,
}

impl PubOpts {
    /// Reads the annotation's value: base64 of JSON.
    ///
    /// # Errors
    /// When it is too long or malformed, the cipher unknown, `cipheroptions` not empty, or the MAC not fitting the cipher.
    pub fn parse(annotation: &str) -> Result<Self, PacketError> {
        const WHAT: &str = "the annotation of the public options";
        let json = decode(annotation, WHAT, MAX_PUBOPTS)?;
        let file: PubOptsFile<'_> =
            serde_json::from_slice(&json).map_err(|source| PacketError::Json { what: WHAT, source })?;
        if file.cipheroptions.is_some_and(|options| !options.is_empty()) {
            return Err(PacketError::PublicCipherOptions);
        }
        let cipher = Cipher::from_name(&file.cipher)?;
        let hmac = match (cipher, file.hmac.as_str()) {
            (Cipher::AesCtrHmac, "") => {
                return Err(PacketError::CipherField {
                    cipher: cipher.name(),
                    field: "hmac",
                });
            }
            (Cipher::AesCtrHmac, text) => Some(exact(&decode(text, "hmac", 64)?, "hmac")?),
            (Cipher::TinkStream, "") => None,
            (Cipher::TinkStream, _) => {
                return Err(PacketError::CipherField {
                    cipher: cipher.name(),
                    field: "hmac",
                });
            }
        };
        Ok(Self { cipher, hmac })
    }

    /// The annotation's value.
    pub fn to_annotation(&self) -> String {
        let hmac = self.hmac.map(|hmac| STANDARD.encode(hmac)).unwrap_or_default();
        STANDARD.encode(format!(
            r#"{{"cipher":"{}","hmac":"{hmac}","cipheroptions":{{}}}}"#,
            self.cipher.name()
        ))
    }
}

/// The private options: what the key broker's key protects.
pub struct PrivateOptions {
    /// The layer's key.
    pub symkey: DataKey,
    /// SHA-256 of the layer before encryption.
    pub digest: PlainDigest,
    /// First counter block: with [`Cipher::AesCtrHmac`] and only there.
    pub nonce: Option<[u8; 16]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrivateFile {
    symkey: Zeroizing<String>,
    digest: String,
    cipheroptions: Option<PrivateCipherOptions>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrivateCipherOptions {
    nonce: Option<String>,
}

impl PrivateOptions {
    /// Reads the JSON text that was wrapped. Its errors are constant texts, since the text may hold a key.
    pub(super) fn from_json(json: &[u8]) -> Result<Self, &'static str> {
        let file: PrivateFile = serde_json::from_slice(json).map_err(|_| "not the JSON that it should be")?;
        let symkey = STANDARD
            .decode(file.symkey.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| "symkey is not base64")?;
        let nonce = match file.cipheroptions.unwrap_or_default().nonce {
            None => None,
            Some(text) => {
                let bytes = STANDARD.decode(text).map_err(|_| "nonce is not base64")?;
                Some(bytes.as_slice().try_into().map_err(|_| "nonce is not 16 bytes long")?)
            }
        };
        Ok(Self {
            symkey: DataKey::from_slice(&symkey).map_err(|_| "symkey is not 32 bytes long")?,
            digest: file.digest.parse().map_err(|_| "digest is not a SHA-256 digest")?,
            nonce,
        })
    }

    /// The JSON text to be wrapped.
    pub(super) fn to_json(&self) -> Zeroizing<String> {
        // Room for all of it at once: a growing string would leave copies of the key behind.
        let mut json = Zeroizing::new(String::with_capacity(512));
        json.push_str(r#"{"symkey":""#);
        STANDARD.encode_string(self.symkey.expose(), &mut json);
        // Writing to a string cannot fail.
        let _ = write!(json, r#"","digest":"{}","cipheroptions":{{"#, self.digest);
        if let Some(nonce) = self.nonce {
            let _ = write!(json, r#""nonce":"{}""#, STANDARD.encode(nonce));
        }
        json.push_str("}}");
        json
    }
}

/// Bounded base64.
pub(super) fn decode(text: &str, what: &'static str, limit: usize) -> Result<Vec<u8>, PacketError> {
    if text.len() > limit {
        return Err(PacketError::TooLong {
            what,
            length: text.len(),
            limit,
        });
    }
    STANDARD.decode(text).map_err(|_| PacketError::Base64 { what })
}

/// Exactly `N` bytes.
pub(super) fn exact<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], PacketError> {
    bytes.try_into().map_err(|_| PacketError::Length {
        field,
        found: bytes.len(),
        expected: N,
    })
}
