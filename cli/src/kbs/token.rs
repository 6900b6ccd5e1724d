//! The administrator's token: a short-lived JWT, signed for one command and never stored.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::Ed25519KeyPair;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::signing::{SigningKeyError, key_pair};

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

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// The key.
    #[error(transparent)]
    Key(#[from] SigningKeyError),
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
    use std::path::PathBuf;

    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;
    use crate::kbs::test_keys;

    /// A private key's file, and its public key.
    fn key_file() -> (tempfile::TempDir, PathBuf, [u8; 32]) {
        let folder = tempfile::tempdir().unwrap();
        let (key, public) = test_keys(folder.path(), "alice");
        let public = crate::signing::public_key(Path::new(&public)).unwrap();
        (folder, PathBuf::from(key), public)
    }

    #[test]
    fn tokens_are_signed_and_short_lived() {
        let (_folder, file, public) = key_file();
        let token = Signer::load(&file, "alice").unwrap().token().unwrap();
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
        let (_folder, file, _) = key_file();
        for name in ["", "a\n", &"a".repeat(65)] {
            let refused = Signer::load(&file, name).err();
            assert!(matches!(refused, Some(TokenError::Subject)), "{name:?}");
        }
        let absent = Signer::load(Path::new("/nonexistent"), "a").err();
        assert!(matches!(absent, Some(TokenError::Key(SigningKeyError::File(_)))));
    }
}
