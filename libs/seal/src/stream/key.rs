//! The key of one sealed file and the nonces of its segments.
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use zeroize::Zeroizing;

use super::{Header, TAG};
use crate::secret::DataKey;

/// Opens and seals segments. Whoever holds it keeps the rule that no index is sealed twice.
pub(super) struct StreamKey {
    key: LessSafeKey,
    prefix: [u8; 7],
}

impl StreamKey {
    /// Derives the file's key. `None` is what ring says when it was given wrong lengths, which cannot be here.
    pub(super) fn derive(main_key: &DataKey, header: &Header, associated_data: &[u8]) -> Option<Self> {
        let key = derive_bytes(main_key, header, associated_data)?;
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).ok()?;
        Some(Self {
            key: LessSafeKey::new(key),
            prefix: header.prefix,
        })
    }

    /// Opens `body` in place. `false`: not authentic, and `body` holds nothing of use.
    #[must_use]
    pub(super) fn open(&self, index: u32, last: bool, body: &mut [u8], tag: &[u8; TAG]) -> bool {
        let nonce = self.nonce(index, last);
        self.key
            .open_in_place_separate_tag(nonce, Aad::empty(), Tag::from(*tag), body, 0..)
            .is_ok()
    }

    /// Opens what lies in `window` from `ciphertext` on, its tag behind it, to the window's start. `false`: not authentic, and the
    /// start holds nothing of use.
    #[must_use]
    pub(super) fn open_within(&self, index: u32, last: bool, window: &mut [u8], ciphertext: usize) -> bool {
        let nonce = self.nonce(index, last);
        self.key.open_within(nonce, Aad::empty(), window, ciphertext..).is_ok()
    }

    /// Seals `body` in place and gives its tag. `None` when it is longer than GCM allows.
    pub(super) fn seal(&self, index: u32, last: bool, body: &mut [u8]) -> Option<[u8; TAG]> {
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(index, last), Aad::empty(), body)
            .ok()?;
        tag.as_ref().try_into().ok()
    }

    fn nonce(&self, index: u32, last: bool) -> Nonce {
        let [a, b, c, d, e, f, g] = self.prefix;
        let [i, j, k, l] = index.to_be_bytes();
        Nonce::assume_unique_for_key([a, b, c, d, e, f, g, i, j, k, l, u8::from(last)])
    }
}

fn derive_bytes(main_key: &DataKey, header: &Header, associated_data: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    let extracted: Prk = Salt::new(HKDF_SHA256, &header.salt).extract(main_key.expose());
    extracted
        .expand(&[associated_data], HKDF_SHA256)
        .ok()?
        .fill(key.as_mut_slice())
        .ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{HEADER_BYTES, main_key};
    use super::*;

    #[test]
    fn derived_keys_are_tinks() {
        let header = Header::parse(&HEADER_BYTES).unwrap();
        let derived = |data: &[u8]| hex::encode(derive_bytes(&main_key(), &header, data).unwrap().as_slice());
        assert_eq!(
            derived(b"model-weights/v1"),
            "ca908564ecf2ff2a1c285bf5905d4333999e78b38ec619c28a15948bb54ddfc2"
        );
        let place = crate::place::associated_data("models/demo", "model.safetensors", 7).unwrap();
        assert_eq!(
            derived(&place),
            "57c6321611f61459bd54b7f6069730fa6b37086cf7e2a2bff2781600b4649545"
        );
    }
}
