//! JSON Web Encryption, flattened JSON, in the one form the protocol uses: `ECDH-ES+A256KW` with `A256GCM`.
//!
//! Opening takes the protected header's text as it came for the additional data, so the order of its members and its
//! blanks are the sender's business. Sealing writes `{"alg","enc","epk":{"crv","kty","x","y"}}` without blanks, because
//! clients exist that write the header anew before they check it.
use std::fmt;

use aes_kw::{KeyInit, KwAes256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::{ALGORITHM, CURVE, KEY_TYPE, KeyError, TeeKey, TeePubKey};

/// An encrypted message. Every member is base64url without padding.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwe {
    protected: String,
    encrypted_key: String,
    iv: String,
    ciphertext: String,
    tag: String,
}

impl fmt::Debug for Jwe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwe({} characters of ciphertext)", self.ciphertext.len())
    }
}

/// Opens a message with the guest's key.
///
/// # Errors
/// When the header is not of the one supported form, a member has the wrong length, or the message was made for another
/// key or changed on the way.
pub fn decrypt(key: &TeeKey, message: &Jwe) -> Result<Zeroizing<Vec<u8>>, JweError> {
    let header = Header::parse(&message.protected)?;
    let peer = TeePubKey::from_coordinates(&header.epk.x, &header.epk.y).map_err(JweError::Epk)?;
    let wrapped: [u8; WRAPPED_LEN] = fixed(&message.encrypted_key, "encrypted_key")?;
    let iv: [u8; IV_LEN] = fixed(&message.iv, "iv")?;
    let tag: [u8; TAG_LEN] = fixed(&message.tag, "tag")?;
    let mut text = Zeroizing::new(decode(&message.ciphertext, "ciphertext")?);
    text.extend_from_slice(&tag);

    let kek = derive(&key.agree(&peer));
    let mut cek = Zeroizing::new([0; KEY_LEN]);
    KwAes256::new(&(*kek).into())
        .unwrap_key(&wrapped, cek.as_mut())
        .map_err(|_| JweError::NotForThisKey)?;
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, cek.as_ref()).map_err(|_| JweError::Cipher)?);
    let length = cipher
        .open_in_place(
            Nonce::assume_unique_for_key(iv),
            Aad::from(message.protected.as_bytes()),
            &mut text,
        )
        .map_err(|_| JweError::NotAuthentic)?
        .len();
    text.truncate(length);
    Ok(text)
}

/// Encrypts a message for a guest, under a key and a number used for nothing else.
///
/// # Errors
/// When the system gives no random bytes.
pub fn encrypt(recipient: &TeePubKey, plaintext: &[u8]) -> Result<Jwe, JweError> {
    let random = SystemRandom::new();
    let mut cek = Zeroizing::new([0; KEY_LEN]);
    let mut iv = [0; IV_LEN];
    random
        .fill(cek.as_mut())
        .and_then(|()| random.fill(&mut iv))
        .map_err(|_| JweError::Key(KeyError::Random))?;
    let ephemeral = TeeKey::generate().map_err(JweError::Key)?;
    encrypt_with(recipient, &ephemeral, &cek, iv, plaintext)
}

/// Why a message cannot be opened, or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JweError {
    /// A member is not base64url without padding, or not as long as it must be.
    #[error("the member {0} of the message has the wrong form or length")]
    Member(&'static str),
    /// The protected header is not JSON of the expected members.
    #[error("the protected header of the message has the wrong form")]
    Header,
    /// The header names algorithms that the guest's key cannot serve.
    #[error("the message is not encrypted with ECDH-ES+A256KW and A256GCM on P-256")]
    Algorithm,
    /// The sender's key is no point on the curve.
    #[error("the ephemeral key in the message is not valid")]
    Epk(#[source] KeyError),
    /// The content key does not unwrap: made for another key, or changed.
    #[error("the message was not made for this key")]
    NotForThisKey,
    /// The ciphertext or the header was changed.
    #[error("the message is not authentic")]
    NotAuthentic,
    /// A key for sealing could not be made.
    #[error("no key to encrypt the message with")]
    Key(#[source] KeyError),
    /// The cipher refuses a key or a length it always takes.
    #[error("the cipher refuses its input")]
    Cipher,
}

fn encrypt_with(
    recipient: &TeePubKey,
    ephemeral: &TeeKey,
    cek: &[u8; KEY_LEN],
    iv: [u8; IV_LEN],
    plaintext: &[u8],
) -> Result<Jwe, JweError> {
    let protected = URL_SAFE_NO_PAD.encode(Header::write(&ephemeral.public()));
    let kek = derive(&ephemeral.agree(recipient));
    let mut wrapped = [0; WRAPPED_LEN];
    KwAes256::new(&(*kek).into())
        .wrap_key(cek, &mut wrapped)
        .map_err(|_| JweError::Cipher)?;
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, cek).map_err(|_| JweError::Cipher)?);
    let mut text = Zeroizing::new(plaintext.to_vec());
    let tag = cipher
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(iv),
            Aad::from(protected.as_bytes()),
            text.as_mut_slice(),
        )
        .map_err(|_| JweError::Cipher)?;
    Ok(Jwe {
        protected,
        encrypted_key: URL_SAFE_NO_PAD.encode(wrapped),
        iv: URL_SAFE_NO_PAD.encode(iv),
        ciphertext: URL_SAFE_NO_PAD.encode(&*text),
        tag: URL_SAFE_NO_PAD.encode(tag),
    })
}

/// Concat KDF of RFC 7518, section 4.6.2, with empty party information, to 256 bits.
fn derive(z: &[u8; 32]) -> Zeroizing<[u8; KEY_LEN]> {
    let mut context = Context::new(&SHA256);
    context.update(&1_u32.to_be_bytes());
    context.update(z);
    context.update(&ALGORITHM_LEN.to_be_bytes());
    context.update(ALGORITHM.as_bytes());
    context.update(&[0; 8]);
    context.update(&256_u32.to_be_bytes());
    let mut key = Zeroizing::new([0; KEY_LEN]);
    for (to, from) in key.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    key
}

/// The protected header. Further members would have a meaning that nobody here gives them, so they are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    enc: String,
    epk: EphemeralKey,
}

#[derive(Deserialize)]
struct EphemeralKey {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

impl Header {
    fn parse(protected: &str) -> Result<Self, JweError> {
        if protected.len() > MAX_HEADER {
            return Err(JweError::Header);
        }
        let header: Self = serde_json::from_slice(&decode(protected, "protected")?).map_err(|_| JweError::Header)?;
        let names = [&header.alg, &header.enc, &header.epk.kty, &header.epk.crv].map(String::as_str);
        if names == [ALGORITHM, "A256GCM", KEY_TYPE, CURVE] {
            Ok(header)
        } else {
            Err(JweError::Algorithm)
        }
    }

    fn write(ephemeral: &TeePubKey) -> String {
        let (x, y) = ephemeral.coordinates();
        format!(
            r#"{{"alg":"{ALGORITHM}","enc":"A256GCM","epk":{{"crv":"{CURVE}","kty":"{KEY_TYPE}","x":"{x}","y":"{y}"}}}}"#
        )
    }
}

fn decode(text: &str, member: &'static str) -> Result<Vec<u8>, JweError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| JweError::Member(member))
}

fn fixed<const N: usize>(text: &str, member: &'static str) -> Result<[u8; N], JweError> {
    decode(text, member)?.try_into().map_err(|_| JweError::Member(member))
}

const KEY_LEN: usize = 32;
const WRAPPED_LEN: usize = 40;
const IV_LEN: usize = 12;
const TAG_LEN: usize = 16;
const ALGORITHM_LEN: u32 = 14;
const MAX_HEADER: usize = 4096;

#[cfg(test)]
mod tests;
