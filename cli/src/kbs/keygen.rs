//! Key pairs of admins and owners: Ed25519, the private half a file of mode 0600 that never leaves the desk.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::signing::SPKI_PREFIX;

/// `cellactl kbs keygen`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeygenArgs {
    /// Where the private key goes; the public key goes beside it, with `.pub` behind the name.
    pub(super) file: PathBuf,
}

pub(super) fn run(args: &KeygenArgs) -> Result<String, KeygenError> {
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeygenError::Random)?;
    let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).map_err(|_| KeygenError::Random)?;
    let public = [SPKI_PREFIX.as_slice(), pair.public_key().as_ref()].concat();
    let mut name = args.file.clone().into_os_string();
    name.push(".pub");
    let beside = PathBuf::from(name);
    create(&args.file, 0o600, &pem("PRIVATE KEY", der.as_ref()))?;
    create(&beside, 0o644, &pem("PUBLIC KEY", &public))?;
    Ok(format!("{}\n{}\n", args.file.display(), beside.display()))
}

fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(body.len() + 128));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for (index, character) in body.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

/// Fails where there is a file already.
fn create(path: &Path, mode: u32, text: &str) -> Result<(), KeygenError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| KeygenError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Why there is no key pair.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KeygenError {
    /// The system gives no randomness.
    #[error("the system gives no randomness for a key")]
    Random,
    /// A file is there already, or cannot be written.
    #[error("writing {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::signing::key_pair;

    #[test]
    fn a_pair_is_made_once_and_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let args = KeygenArgs {
            file: folder.path().join("alice.key"),
        };
        run(&args).unwrap();
        let mode = std::fs::metadata(&args.file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let pair = key_pair(&args.file).unwrap();
        let public = std::fs::read_to_string(folder.path().join("alice.key.pub")).unwrap();
        let body: String = public.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).unwrap();
        assert_eq!(der.strip_prefix(&SPKI_PREFIX).unwrap(), pair.public_key().as_ref());
        assert!(matches!(run(&args), Err(KeygenError::Write { .. })));
        assert_eq!(
            key_pair(&args.file).unwrap().public_key().as_ref(),
            pair.public_key().as_ref()
        );
    }
}
