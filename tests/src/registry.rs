//! The registry's storage, as its operator (an attacker) can change it.
use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{Stack, process::wait_until};

/// A second registry on the same storage, with another certificate; ends when dropped.
pub struct Second {
    port: u16,
    process: Child,
}

impl Second {
    /// Starts it; its files lie in `dir`.
    ///
    /// # Errors
    /// When it does not start to listen within 20 seconds.
    pub fn start(stack: &Stack, dir: &Path, certificate: &Path, key: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = dir.join("registry.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{ level: warn }}\nstorage: {{ filesystem: {{ rootdirectory: {root} }} }}\n\
                 http: {{ addr: \"127.0.0.1:{port}\", tls: {{ certificate: {certificate}, key: {key} }} }}\n",
                root = stack.var("REGISTRY_ROOT"),
                certificate = certificate.display(),
                key = key.display(),
            ),
        )?;
        let log = fs::File::create(dir.join("registry.log"))?;
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("docker-registry")?;
        let second = Self { port, process };
        wait_until(Duration::from_secs(20), || {
            Ok(TcpStream::connect(("127.0.0.1", port)).ok())
        })?;
        Ok(second)
    }

    /// Where the guest finds it.
    #[must_use]
    pub fn guest_url(&self) -> String {
        format!("https://10.0.2.2:{}", self.port)
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

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
