//! Where artifacts are: an OCI layout on disk (`oci:DIR`) or a repository of a registry. Both are read alike, and
//! neither is trusted: what is whole is checked before it is returned, what streams is checked at its end.

use std::fmt;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::str::FromStr;

use cella_http::{Origin, OriginError, TlsRoots, TlsRootsError};
use cella_oci::{
    Descriptor, Digest, DigestMismatch, Index, MAX_MANIFEST, Manifest, ManifestError, Reference, ReferenceError,
    Registry, RegistryError, Verifier,
};

use crate::files::{self, FileError, MAX_TEXT};
use crate::layout::{Layout, LayoutError};
use crate::transfer;

/// How registries are reached.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Access {
    /// PEM of the authority that signed the registry's certificate. Without it a registry on this machine (localhost,
    /// 127.0.0.1, ::1) is spoken to over plain http.
    #[arg(long, value_name = "PEM")]
    pub(crate) registry_ca: Option<PathBuf>,
    /// Speak plain http to a registry on another machine. Content is checked by digest; names and tags are not.
    #[arg(long)]
    pub(crate) plain_http: bool,
}

impl Access {
    /// The registry that references call `name`.
    pub(crate) fn registry(&self, name: &str) -> Result<Registry, StoreError> {
        let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
        let is_local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        let scheme = match &self.registry_ca {
            None if self.plain_http || is_local => "http",
            None => {
                return Err(StoreError::NoAuthority {
                    registry: name.to_owned(),
                });
            }
            Some(_) => "https",
        };
        self.registry_at(name, &format!("{scheme}://{name}"))
    }

    /// The registry that references call `name`, at an address of its own.
    pub(crate) fn registry_at(&self, name: &str, url: &str) -> Result<Registry, StoreError> {
        let origin: Origin = url.parse().map_err(|source| StoreError::Origin {
            registry: name.to_owned(),
            source,
        })?;
        let roots = self.registry_ca.as_deref().map(|path| {
            let pem = files::read_text(path, MAX_TEXT)?;
            TlsRoots::from_pem(&pem).map_err(|source| StoreError::Authority {
                path: path.to_owned(),
                source,
            })
        });
        Ok(Registry::new(origin, roots.transpose()?, name)?)
    }
}

/// `oci:DIR` or `registry/repository[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A layout.
    Layout(PathBuf),
    /// A registry.
    Registry(Reference),
}

impl Location {
    /// Opens what is there and reads its manifest; of an index, the manifest for `linux/<architecture>`.
    pub(crate) async fn open(&self, access: &Access, architecture: &str) -> Result<Artifact, StoreError> {
        match self {
            Self::Layout(path) => {
                let layout = Layout::open(path)?;
                let entry = layout.entry()?;
                let bytes = layout.bytes(&entry, MAX_MANIFEST as u64)?;
                Artifact::new(Store::Layout(layout), entry.digest, &bytes, architecture).await
            }
            Self::Registry(reference) => {
                Artifact::pull(access.registry(&reference.registry)?, reference, architecture).await
            }
        }
    }
}

impl FromStr for Location {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        match text.strip_prefix("oci:") {
            Some(path) => Ok(Self::Layout(PathBuf::from(path))),
            None => text.parse().map(Self::Registry),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout(path) => write!(f, "oci:{}", path.display()),
            Self::Registry(reference) => reference.fmt(f),
        }
    }
}

/// A manifest, and where its blobs are.
pub(crate) struct Artifact {
    pub(crate) store: Store,
    pub(crate) digest: Digest,
    pub(crate) manifest: Manifest,
    /// The manifest's very bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Artifact {
    /// What `reference` means at `registry`: by its digest if it has one, else by its tag, else by `latest`.
    pub(crate) async fn pull(
        registry: Registry,
        reference: &Reference,
        architecture: &str,
    ) -> Result<Self, StoreError> {
        let repository = reference.repository.clone();
        let (digest, bytes) = match &reference.digest {
            Some(digest) => (*digest, registry.manifest(&repository, digest).await?),
            None => {
                registry
                    .resolve_tag(&repository, reference.tag.as_deref().unwrap_or("latest"))
                    .await?
            }
        };
        Self::new(Store::Registry { registry, repository }, digest, &bytes, architecture).await
    }

    async fn new(store: Store, digest: Digest, bytes: &[u8], architecture: &str) -> Result<Self, StoreError> {
        let Ok(index) = Index::parse(bytes) else {
            let manifest = Manifest::parse(bytes)?;
            return Ok(Self {
                store,
                digest,
                manifest,
                bytes: bytes.to_vec(),
            });
        };
        let chosen = index.select("linux", architecture)?;
        let bytes = store.manifest(chosen).await?;
        Ok(Self {
            digest: chosen.digest,
            manifest: Manifest::parse(&bytes)?,
            store,
            bytes,
        })
    }

    /// The configuration's bytes, checked.
    pub(crate) async fn config(&self, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.store.bytes(&self.manifest.config, limit).await
    }
}

/// What holds an artifact's blobs.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    /// A directory.
    Layout(Layout),
    /// A repository.
    Registry { registry: Registry, repository: String },
}

impl Store {
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Layout(layout) => Ok(layout.bytes(descriptor, MAX_MANIFEST as u64)?),
            Self::Registry { registry, repository } => Ok(registry.manifest(repository, &descriptor.digest).await?),
        }
    }

    /// A small blob, whole and checked.
    pub(crate) async fn bytes(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Layout(layout) => Ok(layout.bytes(descriptor, limit)?),
            Self::Registry { registry, repository } => Ok(registry.blob(repository, descriptor, limit).await?),
        }
    }

    /// A blob of any length, piece by piece; goes on by range where a connection broke. Only `Ok` says that the pieces were
    /// the blob.
    pub(crate) async fn stream<E: From<StoreError>>(
        &self,
        descriptor: &Descriptor,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut verifier = Verifier::new();
        let mut take = |bytes: &[u8]| {
            verifier.update(bytes);
            sink(bytes)
        };
        match self {
            Self::Layout(layout) => {
                let mut file = layout.file(descriptor).map_err(StoreError::from)?;
                let mut buffer = vec![0; CHUNK];
                loop {
                    let count = file.read(&mut buffer).map_err(|source| StoreError::Read { source })?;
                    match buffer.get(..count) {
                        Some([]) | None => break,
                        Some(bytes) => take(bytes)?,
                    }
                }
            }
            Self::Registry { registry, repository } => {
                transfer::read_blob(registry, repository, descriptor, &mut 0, take).await?;
            }
        }
        verifier
            .finish(&descriptor.digest)
            .map_err(|source| StoreError::Content { source }.into())
    }
}

/// Why an artifact was not read or pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    /// The layout on disk.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The manifest.
    #[error("the artifact cannot be used")]
    Manifest(#[from] ManifestError),
    /// A file named on the command line.
    #[error(transparent)]
    File(#[from] FileError),
    /// https without an authority to trust.
    #[error("registry {registry}: name the authority of its certificate with --registry-ca, or use --plain-http")]
    NoAuthority { registry: String },
    /// The registry's name is no address.
    #[error("registry {registry} has no address that can be used")]
    Origin { registry: String, source: OriginError },
    /// The authority cannot be used.
    #[error("{} holds no certificate authority", path.display())]
    Authority { path: PathBuf, source: TlsRootsError },
    /// A reference by digest cannot be chosen by whoever pushes.
    #[error("{reference}: pushing needs a tag or nothing; the digest follows from the content")]
    PushByDigest { reference: String },
    /// A blob is not what its digest says.
    #[error("a layer is damaged")]
    Content { source: DigestMismatch },
    /// Reading a blob failed.
    #[error("reading a layer")]
    Read { source: io::Error },
    /// What takes the pieces failed.
    #[error("writing a layer")]
    Sink {
        #[from]
        source: io::Error,
    },
    /// A blob of the artifact was not transferred.
    #[error("{what}")]
    Blob { what: String, source: Box<StoreError> },
    /// The note of an unfinished push.
    #[error("the note of an unfinished push cannot be kept")]
    Note { source: io::Error },
    /// A file system without enough room.
    #[error("{} has room for {free} more bytes, {needed} are needed", path.display())]
    Room { path: PathBuf, free: u64, needed: u64 },
    /// Nobody to ask.
    #[error("there is no registry to ask")]
    NoSource,
    /// Asked to end.
    #[error("stopped; run the same command again to go on")]
    Stopped,
}

const CHUNK: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_layouts_or_references() {
        assert_eq!("oci:a/b".parse(), Ok(Location::Layout(PathBuf::from("a/b"))));
        let reference = "localhost:5000/demo:v1".parse::<Location>().unwrap();
        assert_eq!(reference.to_string(), "localhost:5000/demo:v1");
        assert!("demo".parse::<Location>().is_err());
        assert!("docker://localhost:5000/demo".parse::<Location>().is_err());
    }

    #[test]
    fn plain_http_is_for_this_machine_unless_asked_for() {
        let access = Access::default();
        for name in ["localhost:5000", "localhost", "127.0.0.1:5000", "[::1]:5000"] {
            assert!(access.registry(name).is_ok(), "{name}");
        }
        assert!(matches!(
            access.registry("r.example:5000"),
            Err(StoreError::NoAuthority { .. })
        ));
        assert!(
            Access {
                plain_http: true,
                ..Access::default()
            }
            .registry("r.example")
            .is_ok()
        );
        let missing = Access {
            registry_ca: Some("/nonexistent".into()),
            ..Access::default()
        };
        assert!(matches!(missing.registry("localhost"), Err(StoreError::File(_))));
    }
}
