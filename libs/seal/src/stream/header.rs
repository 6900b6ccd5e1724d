//! The 40 bytes in front of a sealed file.
use super::HEADER;
use crate::secret::{RandomError, fill_random};

/// Salt and nonce prefix of one sealing. Neither is secret; both are random and never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub(super) salt: [u8; SALT],
    pub(super) prefix: [u8; PREFIX],
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// When its length byte is not 40: another Tink key type, or no sealed file at all.
    pub fn parse(bytes: &[u8; HEADER]) -> Result<Self, HeaderError> {
        let [length, rest @ ..] = bytes;
        if *length != LENGTH {
            return Err(HeaderError { found: *length });
        }
        let mut header = Self {
            salt: [0; SALT],
            prefix: [0; PREFIX],
        };
        let (salt, prefix) = rest.split_at(SALT);
        header.salt.copy_from_slice(salt);
        header.prefix.copy_from_slice(prefix);
        Ok(header)
    }

    /// The header as it stands in the file.
    pub fn to_bytes(&self) -> [u8; HEADER] {
        let mut bytes = [LENGTH; HEADER];
        let (_, rest) = bytes.split_at_mut(1);
        let (salt, prefix) = rest.split_at_mut(SALT);
        salt.copy_from_slice(&self.salt);
        prefix.copy_from_slice(&self.prefix);
        bytes
    }

    /// Draws salt and prefix for a new sealing.
    pub(super) fn random() -> Result<Self, RandomError> {
        let mut header = Self {
            salt: [0; SALT],
            prefix: [0; PREFIX],
        };
        fill_random(&mut header.salt)?;
        fill_random(&mut header.prefix)?;
        Ok(header)
    }
}

/// The first byte of a sealed file is not its header's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header starts with {found}, a sealed file with 40: not AES256_GCM_HKDF_1MB")]
pub struct HeaderError {
    /// The byte that was found.
    pub found: u8,
}

const SALT: usize = 32;
const PREFIX: usize = 7;
const LENGTH: u8 = 40;
