//! The key at rest, and values under it.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// First byte of a sealed value; then nonce, ciphertext, tag.
const VERSION: u8 = 1;
/// By how much sealing makes a value longer.
pub(super) const OVERHEAD: usize = 1 + NONCE_LEN + 16;

/// The key that seals stored values: AES-256-GCM. Has neither `Debug` nor a way out.
pub struct StorageKey {
    key: LessSafeKey,
    rng: SystemRandom,
}

impl StorageKey {
    /// The text of a new key file: 64 hex digits and a line feed.
    pub fn generate() -> Result<Zeroizing<String>, KeyFormatError> {
        let mut bytes = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(bytes.as_mut()).map_err(|_| KeyFormatError)?;
        // Exactly as long as the text, which then never moves and leaves no copy.
        let mut text = Zeroizing::new(String::with_capacity(65));
        for byte in bytes.iter() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(nibble.into(), 16).unwrap_or_default());
            }
        }
        text.push('\n');
        Ok(text)
    }

    /// Reads the text of a key file.
    pub fn parse(text: &[u8]) -> Result<Self, KeyFormatError> {
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim_ascii(), bytes.as_mut()).map_err(|_| KeyFormatError)?;
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_ref()).map_err(|_| KeyFormatError)?;
        Ok(Self {
            key: LessSafeKey::new(key),
            rng: SystemRandom::new(),
        })
    }

    /// Seals a value for its place. `None` when there is no randomness.
    pub(super) fn seal(&self, table: &str, path: &str, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.rng.fill(&mut nonce).ok()?;
        let mut body = Zeroizing::new(plain.to_vec());
        let aad = Aad::from(place(table, path));
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, body.as_mut_slice())
            .ok()?;
        Some([&[VERSION], nonce.as_slice(), &body, tag.as_ref()].concat())
    }

    /// Opens a value. `None` when it was not sealed with this key for this place.
    pub(super) fn open(&self, table: &str, path: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (&version, rest) = sealed.split_first()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        if version != VERSION {
            return None;
        }
        let mut body = Zeroizing::new(body.to_vec());
        let aad = Aad::from(place(table, path));
        let length = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut body)
            .ok()?
            .len();
        body.truncate(length);
        Some(body)
    }
}

/// What a value is bound to. Neither a table's name nor a path has a zero byte, so no two places look alike.
fn place(table: &str, path: &str) -> Vec<u8> {
    [b"cella-kbs-v1", table.as_bytes(), path.as_bytes()].join(&0)
}

/// The text is not 64 hex digits, or the system gives no randomness for a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a storage key file holds 64 hex digits")]
pub struct KeyFormatError;
