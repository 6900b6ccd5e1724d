//! The keys at rest, and values under them.
//!
//! A sealed value is `2 || key id (8) || nonce (12) || ciphertext || tag (16)`: AES-256-GCM, with its table and its key in
//! the table as associated data. The key id says which of the keys at hand sealed it, so that a new key can be brought in
//! while the values of the old one are still there.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::StorageError;
use super::backend::Table;

/// First byte of a sealed value.
const VERSION: u8 = 2;
/// Length of a key's id.
pub(super) const ID_LEN: usize = 8;

/// A key that seals stored values: AES-256-GCM. Has neither `Debug` nor a way out.
pub struct StorageKey {
    key: LessSafeKey,
    id: [u8; ID_LEN],
    /// For keys that are derived from this one.
    prk: hkdf::Prk,
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
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"cella-kbs storage key id\0");
        context.update(bytes.as_ref());
        let mut id = [0; ID_LEN];
        id.iter_mut()
            .zip(context.finish().as_ref())
            .for_each(|(to, from)| *to = *from);
        Ok(Self {
            key: LessSafeKey::new(key),
            id,
            prk: hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, bytes.as_ref()),
        })
    }

    /// Which key this is, as hex: a digest, from which the key cannot be had.
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }

    pub(super) fn raw_id(&self) -> &[u8; ID_LEN] {
        &self.id
    }

    /// A key of 32 bytes for another purpose (HKDF-SHA256, RFC 5869, this key as PRK). The parts of `purpose` stand one after
    /// the other: all but the last have a fixed length.
    pub(super) fn derive(&self, purpose: &[&[u8]]) -> Option<Zeroizing<[u8; 32]>> {
        let mut out = Zeroizing::new([0; 32]);
        let info: Vec<&[u8]> = [b"cella-kbs derived\0".as_slice()]
            .into_iter()
            .chain(purpose.iter().copied())
            .collect();
        self.prk
            .expand(&info, hkdf::HKDF_SHA256)
            .ok()?
            .fill(out.as_mut())
            .ok()?;
        Some(out)
    }

    fn seal(&self, place: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut body = Zeroizing::new(plain.to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place),
                body.as_mut_slice(),
            )
            .ok()?;
        Some([&[VERSION], self.id.as_slice(), &nonce, &body, tag.as_ref()].concat())
    }

    fn open(&self, place: &[u8], nonce: [u8; NONCE_LEN], body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut body)
            .ok()?
            .len();
        body.truncate(length);
        Some(body)
    }
}

/// The key that seals, and those that only open what they sealed earlier.
pub struct KeyRing {
    current: StorageKey,
    earlier: Vec<StorageKey>,
}

impl KeyRing {
    /// A ring. `earlier` are the keys that `current` takes the place of.
    pub fn new(current: StorageKey, earlier: Vec<StorageKey>) -> Self {
        Self { current, earlier }
    }

    /// The key that seals.
    pub fn current(&self) -> &StorageKey {
        &self.current
    }

    /// Whether the current key sealed a value.
    pub(super) fn is_current(&self, sealed: &[u8]) -> bool {
        split(sealed).is_some_and(|(id, _, _)| *id == self.current.id)
    }

    /// Whether there is a key for a value here. Says nothing about whether it opens.
    pub(super) fn knows(&self, sealed: &[u8]) -> bool {
        split(sealed).is_some_and(|(id, _, _)| self.find(id).is_some())
    }

    /// Seals a value for its place. `None` when there is no randomness.
    pub(super) fn seal(&self, table: Table, key: &str, plain: &[u8]) -> Option<Vec<u8>> {
        self.current.seal(&place(table, key), plain)
    }

    /// Opens a value. `None` when none of the keys sealed it for this place.
    pub(super) fn open(&self, table: Table, key: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (id, nonce, body) = split(sealed)?;
        self.find(id)?.open(&place(table, key), *nonce, body)
    }

    /// [`open`](Self::open), where anything but a value is an error.
    pub(super) fn unseal(&self, table: Table, key: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StorageError> {
        self.open(table, key, sealed)
            .ok_or_else(|| StorageError::NotAuthentic { path: key.to_owned() })
    }

    pub(super) fn find(&self, id: &[u8; ID_LEN]) -> Option<&StorageKey> {
        self.all().find(|key| key.id == *id)
    }

    /// Every key, the one that seals first.
    pub(super) fn all(&self) -> impl Iterator<Item = &StorageKey> {
        std::iter::once(&self.current).chain(&self.earlier)
    }
}

/// Key id, nonce, ciphertext with tag.
fn split(sealed: &[u8]) -> Option<(&[u8; ID_LEN], &[u8; NONCE_LEN], &[u8])> {
    let (&version, rest) = sealed.split_first()?;
    let (id, rest) = rest.split_first_chunk()?;
    let (nonce, body) = rest.split_first_chunk()?;
    (version == VERSION).then_some((id, nonce, body))
}

/// Whether a value was sealed in the form of this version, by whichever key.
pub(super) fn is_of_this_form(sealed: &[u8]) -> bool {
    split(sealed).is_some()
}

/// What a value is bound to. Neither a table's name nor a key has a zero byte, so no two places look alike.
fn place(table: Table, key: &str) -> Vec<u8> {
    [b"cella-kbs-v2", table.name().as_bytes(), key.as_bytes()].join(&0)
}

/// The text is not 64 hex digits, or the system gives no randomness for a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a storage key file holds 64 hex digits")]
pub struct KeyFormatError;
