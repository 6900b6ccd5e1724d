//! The administrator's token: a short-lived JWT, signed for one command and never stored.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::Ed25519KeyPair;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::files::{self, FileError, MAX_TEXT};

/// Signs tokens.
pub(super) struct Signer {
    pair: Ed25519KeyPair,
    subject: String,
}

impl Signer {
    /// With the PKCS#8 PEM in `path`, in the name of `subject`.
    pub(super) fn load(path: &Path, subject: &str) -> Result<Self, TokenError> {
        if !(1..=64).contains(&subject.len()) || !subject.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Err(TokenError::Subject);
        }
        Ok(Self {
            pair: key_pair(path)?,
            subject: subject.to_owned(),
        })
    }

    /// A token for the next two minutes.
    pub(super) fn token(&self) -> Result<Zeroizing<String>, TokenError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|_| TokenError::Clock)?
            .as_secs();
        let claims = Claims {
            aud: AUDIENCE,
            sub: &self.subject,
            iat: now,
            exp: now + LIFETIME_S,
        };
        let claims = serde_json::to_vec(&claims).map_err(|source| TokenError::Claims { source })?;
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.sign(signed.as_bytes());
        Ok(Zeroizing::new(format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(signature)
        )))
    }
}

/// The Ed25519 key in a PKCS#8 PEM that only its owner can read.
pub(super) fn key_pair(path: &Path) -> Result<Ed25519KeyPair, TokenError> {
    check_mode(path)?;
    let pem = Zeroizing::new(files::read_text(path, MAX_TEXT)?);
    let der = der(&pem).ok_or_else(|| TokenError::NotAKey { path: path.to_owned() })?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| TokenError::NotAKey { path: path.to_owned() })
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
}

fn check_mode(path: &Path) -> Result<(), TokenError> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(path).map_err(|source| {
        TokenError::File(FileError::Read {
            path: path.to_owned(),
            source,
        })
    })?;
    match metadata.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => Err(TokenError::Mode { path: path.to_owned() }),
    }
}

/// The body of a `PRIVATE KEY` block.
fn der(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let body = pem
        .split_once("-----BEGIN PRIVATE KEY-----")?
        .1
        .split_once("-----END PRIVATE KEY-----")?
        .0;
    let mut encoded = Zeroizing::new(String::with_capacity(body.len()));
    encoded.extend(body.split_whitespace());
    STANDARD.decode(encoded.as_bytes()).ok().map(Zeroizing::new)
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Others may read it.
    #[error("the key {} may be read by others; replace it, or run chmod 600 on it if nobody did", path.display())]
    Mode { path: PathBuf },
    /// No Ed25519 key.
    #[error("{} is not an Ed25519 private key in PKCS#8 PEM, as cella-kbs init or cellactl kbs keygen makes it", path.display())]
    NotAKey { path: PathBuf },
    /// A name that the audit log does not take.
    #[error("--subject must be 1 to 64 printable ASCII characters")]
    Subject,
    /// The clock stands before 1970.
    #[error("the clock of this machine stands before 1970")]
    Clock,
    /// The claims could not be written.
    #[error("writing the token's claims")]
    Claims { source: serde_json::Error },
}

const HEADER: &[u8] = br#"{"alg":"EdDSA","typ":"JWT"}"#;
const AUDIENCE: &str = "cella-kbs";
const LIFETIME_S: u64 = 120;

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use ring::rand::SystemRandom;
    use ring::signature::{ED25519, KeyPair as _, UnparsedPublicKey};

    use super::*;

    fn key_file(mode: u32) -> (tempfile::NamedTempFile, Vec<u8>) {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let public = Ed25519KeyPair::from_pkcs8(der.as_ref())
            .unwrap()
            .public_key()
            .as_ref()
            .to_vec();
        let encoded = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = encoded
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            lines.join("\n")
        );
        fs::write(file.path(), pem).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        (file, public)
    }

    #[test]
    fn tokens_are_signed_and_short_lived() {
        let (file, public) = key_file(0o600);
        let token = Signer::load(file.path(), "alice").unwrap().token().unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(&ED25519, public)
            .verify(signed.as_bytes(), &signature)
            .unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(header).unwrap(), HEADER);
        let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        assert_eq!(
            (claims["aud"].as_str(), claims["sub"].as_str()),
            (Some("cella-kbs"), Some("alice"))
        );
        assert_eq!(
            claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
            LIFETIME_S
        );
    }

    #[test]
    fn other_files_and_names_are_refused() {
        let (file, _) = key_file(0o644);
        assert!(matches!(
            Signer::load(file.path(), "a").err(),
            Some(TokenError::Mode { .. })
        ));
        let (file, _) = key_file(0o600);
        assert!(matches!(Signer::load(file.path(), "").err(), Some(TokenError::Subject)));
        assert!(matches!(
            Signer::load(file.path(), "a\n").err(),
            Some(TokenError::Subject)
        ));
        fs::write(file.path(), "-----BEGIN PUBLIC KEY-----").unwrap();
        assert!(matches!(
            Signer::load(file.path(), "a").err(),
            Some(TokenError::NotAKey { .. })
        ));
        assert!(matches!(
            Signer::load(Path::new("/nonexistent"), "a").err(),
            Some(TokenError::File(_))
        ));
    }
}
