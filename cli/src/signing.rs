//! Ed25519 keys on disk: private ones in PKCS#8 PEM of mode 0600, public ones in PEM. `cellactl kbs keygen` makes both.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::Ed25519KeyPair;
use zeroize::Zeroizing;

use crate::files::{self, FileError, MAX_TEXT};

/// What precedes the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410, 4).
pub(crate) const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The key in a PKCS#8 PEM that only its owner can read.
pub(crate) fn key_pair(path: &Path) -> Result<Ed25519KeyPair, SigningKeyError> {
    check_mode(path)?;
    let pem = Zeroizing::new(files::read_text(path, MAX_TEXT)?);
    let not_a_key = || SigningKeyError::NotPrivate { path: path.to_owned() };
    let der = body(&pem, "PRIVATE KEY").ok_or_else(not_a_key)?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| not_a_key())
}

/// The key in a PEM `PUBLIC KEY`.
pub(crate) fn public_key(path: &Path) -> Result<[u8; 32], SigningKeyError> {
    let pem = files::read_text(path, MAX_TEXT)?;
    body(&pem, "PUBLIC KEY")
        .and_then(|der| der.strip_prefix(&SPKI_PREFIX)?.try_into().ok())
        .ok_or_else(|| SigningKeyError::NotPublic { path: path.to_owned() })
}

fn check_mode(path: &Path) -> Result<(), SigningKeyError> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(path).map_err(|source| {
        SigningKeyError::File(FileError::Read {
            path: path.to_owned(),
            source,
        })
    })?;
    match metadata.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => Err(SigningKeyError::Mode { path: path.to_owned() }),
    }
}

/// The bytes of a PEM block with this label.
fn body(pem: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let body = pem
        .split_once(&format!("-----BEGIN {label}-----"))?
        .1
        .split_once(&format!("-----END {label}-----"))?
        .0;
    let mut encoded = Zeroizing::new(String::with_capacity(body.len()));
    encoded.extend(body.split_whitespace());
    STANDARD.decode(encoded.as_bytes()).ok().map(Zeroizing::new)
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SigningKeyError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Others may read it.
    #[error("the key {} may be read by others; replace it, or run chmod 600 on it if nobody did", path.display())]
    Mode { path: PathBuf },
    /// No private key.
    #[error("{} is not an Ed25519 private key in PKCS#8 PEM, as cella-kbs init or cellactl kbs keygen makes it", path.display())]
    NotPrivate { path: PathBuf },
    /// No public key.
    #[error("{} is not an Ed25519 public key in PEM", path.display())]
    NotPublic { path: PathBuf },
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn other_files_are_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path();
        let mode = |mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        mode(0o640);
        assert!(matches!(key_pair(path), Err(SigningKeyError::Mode { .. })));
        mode(0o600);
        for text in [
            "",
            "-----BEGIN PUBLIC KEY-----",
            "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----",
            "-----BEGIN PUBLIC KEY-----\nMAMCAQU=\n-----END PUBLIC KEY-----",
        ] {
            fs::write(path, text).unwrap();
            assert!(
                matches!(key_pair(path), Err(SigningKeyError::NotPrivate { .. })),
                "{text}"
            );
            assert!(
                matches!(public_key(path), Err(SigningKeyError::NotPublic { .. })),
                "{text}"
            );
        }
        let absent = Path::new("/nonexistent");
        assert!(matches!(key_pair(absent), Err(SigningKeyError::File(_))));
        assert!(matches!(public_key(absent), Err(SigningKeyError::File(_))));
    }
}
