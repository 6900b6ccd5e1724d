//! The registry's storage, as its operator (an attacker) can change it.
use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use crate::Stack;

/// A blob in the registry's storage; put back when dropped.
pub struct Blob {
    path: PathBuf,
    original: Vec<u8>,
}

impl Blob {
    /// By digest, `sha256:…`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(stack: &Stack, digest: &str) -> Result<Self> {
        let hex = digest.strip_prefix("sha256:").context("digest")?;
        let fan = hex.get(..2).context("digest")?;
        let root = PathBuf::from(stack.var("REGISTRY_ROOT"));
        let path = root.join(format!("docker/registry/v2/blobs/sha256/{fan}/{hex}/data"));
        let original = fs::read(&path).with_context(|| format!("blob {digest}"))?;
        Ok(Self { path, original })
    }

    /// Its bytes before any change.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.original
    }

    /// Writes other bytes in its place.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn replace(&self, bytes: &[u8]) -> Result<()> {
        Ok(fs::write(&self.path, bytes)?)
    }

    /// Flips one bit of one byte.
    ///
    /// # Errors
    /// When the blob is shorter.
    pub fn flip(&self, at: usize) -> Result<()> {
        let mut bytes = self.original.clone();
        ensure!(at < bytes.len(), "the blob has only {} bytes", bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1;
        }
        self.replace(&bytes)
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        fs::write(&self.path, &self.original).ok();
    }
}

/// The manifest that a digest reference names, from the registry's storage.
///
/// # Errors
/// When it is not there or not JSON.
pub fn manifest(stack: &Stack, reference: &str) -> Result<serde_json::Value> {
    let digest = reference.split_once('@').context("a digest reference")?.1;
    Ok(serde_json::from_slice(Blob::open(stack, digest)?.bytes())?)
}

/// Digests of the layers that a digest reference names.
///
/// # Errors
/// As [`manifest`].
pub fn layers(stack: &Stack, reference: &str) -> Result<Vec<String>> {
    let manifest = manifest(stack, reference)?;
    let layers = manifest.get("layers").and_then(|l| l.as_array()).context("layers")?;
    Ok(layers
        .iter()
        .filter_map(|l| l.get("digest")?.as_str().map(str::to_owned))
        .collect())
}
