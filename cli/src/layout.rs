//! OCI image layouts: a directory with one manifest and its blobs, as other tools read and write them.
//!
//! A new layout becomes readable in one step, when its index is written last. A layout that is read may come from
//! anywhere: lengths are bounded and digests checked before bytes are handed out.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cella_oci::{Descriptor, Digest, DigestMismatch, MAX_MANIFEST, Manifest, ManifestError, Verifier, media_type};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::files::PUBLIC;

/// A layout on disk.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes a layout in a directory that is absent or empty.
    pub(crate) fn create(root: &Path) -> Result<Self, LayoutError> {
        let layout = Self { root: root.to_owned() };
        let failed = |source| LayoutError::Write {
            path: root.to_owned(),
            source,
        };
        fs::create_dir_all(root).map_err(failed)?;
        if fs::read_dir(root).map_err(failed)?.next().is_some() {
            return Err(LayoutError::NotEmpty { path: root.to_owned() });
        }
        fs::create_dir_all(layout.blobs()).map_err(failed)?;
        fs::write(root.join("oci-layout"), LAYOUT_VERSION).map_err(failed)?;
        Ok(layout)
    }

    /// A layout in the making, with what an earlier run left in it.
    pub(crate) fn resume(root: &Path) -> Result<Self, LayoutError> {
        let layout = Self { root: root.to_owned() };
        let failed = |source| LayoutError::Write {
            path: root.to_owned(),
            source,
        };
        fs::create_dir_all(layout.blobs()).map_err(failed)?;
        fs::write(root.join("oci-layout"), LAYOUT_VERSION).map_err(failed)?;
        Ok(layout)
    }

    /// A layout that exists.
    pub(crate) fn open(root: &Path) -> Result<Self, LayoutError> {
        let layout = Self { root: root.to_owned() };
        layout.index().map(|_| layout)
    }

    /// Its only manifest, or index of manifests.
    pub(crate) fn entry(&self) -> Result<Descriptor, LayoutError> {
        let mut manifests = self.index()?.manifests;
        match (manifests.pop(), manifests.len()) {
            (Some(entry), 0) => Ok(entry),
            (None, _) => Err(LayoutError::Manifests {
                path: self.root.clone(),
                found: 0,
            }),
            (Some(_), others) => Err(LayoutError::Manifests {
                path: self.root.clone(),
                found: others + 1,
            }),
        }
    }

    /// A whole small blob, its length and digest checked.
    pub(crate) fn bytes(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, LayoutError> {
        let digest = descriptor.digest;
        if descriptor.size > limit {
            return Err(LayoutError::TooLong {
                digest,
                size: descriptor.size,
                limit,
            });
        }
        let mut bytes = Vec::new();
        let mut file = self.file(descriptor)?.take(descriptor.size);
        file.read_to_end(&mut bytes).map_err(|source| LayoutError::Read {
            path: self.path(&digest),
            source,
        })?;
        digest.check(&bytes).map_err(|source| LayoutError::Digest {
            path: self.path(&digest),
            source,
        })?;
        Ok(bytes)
    }

    /// A blob to stream from; its length is checked, its digest is the caller's to check.
    pub(crate) fn file(&self, descriptor: &Descriptor) -> Result<File, LayoutError> {
        let path = self.path(&descriptor.digest);
        let failed = |source| LayoutError::Read {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        if found != descriptor.size {
            return Err(LayoutError::Length {
                path,
                found,
                expected: descriptor.size,
            });
        }
        Ok(file)
    }

    /// A new blob, to be written to.
    pub(crate) fn stage(&self) -> Result<Staged, LayoutError> {
        let directory = self.blobs();
        let file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(PUBLIC))
            .tempfile_in(&directory)
            .map_err(|source| LayoutError::Write {
                path: directory.clone(),
                source,
            })?;
        Ok(Staged {
            directory,
            file,
            verifier: Verifier::new(),
        })
    }

    /// A new blob, whole.
    pub(crate) fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, LayoutError> {
        let mut staged = self.stage()?;
        staged.write_all(bytes).map_err(|source| LayoutError::Write {
            path: self.blobs(),
            source,
        })?;
        staged.commit(media_type)
    }

    /// Writes the manifest and makes the layout readable.
    pub(crate) fn publish(&self, manifest: &Manifest, name: Option<&str>) -> Result<Descriptor, LayoutError> {
        let bytes = manifest.to_json().map_err(|source| LayoutError::Manifest {
            path: self.root.clone(),
            source,
        })?;
        self.publish_bytes(media_type::OCI_MANIFEST, &bytes, name)
    }

    /// [`Layout::publish`] for a manifest's very bytes.
    pub(crate) fn publish_bytes(
        &self,
        media_type: &str,
        bytes: &[u8],
        name: Option<&str>,
    ) -> Result<Descriptor, LayoutError> {
        let descriptor = self.put(media_type, bytes)?;
        let mut entry = descriptor.clone();
        if let Some(name) = name {
            entry.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        }
        let index = IndexFile {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests: vec![entry],
        };
        let path = self.root.join(INDEX);
        let json = serde_json::to_vec_pretty(&index).map_err(|source| LayoutError::Index {
            path: path.clone(),
            source,
        })?;
        crate::files::write(&path, &json).map_err(|error| LayoutError::Write {
            path,
            source: io::Error::other(error),
        })?;
        Ok(descriptor)
    }

    fn index(&self) -> Result<IndexFile, LayoutError> {
        let path = self.root.join(INDEX);
        let failed = |source| LayoutError::NoIndex {
            path: self.root.clone(),
            source,
        };
        let mut bytes = Vec::new();
        let limit = MAX_MANIFEST as u64 + 1;
        File::open(&path)
            .map_err(failed)?
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() > MAX_MANIFEST {
            let source = ManifestError::TooLong { length: bytes.len() };
            return Err(LayoutError::Manifest { path, source });
        }
        serde_json::from_slice(&bytes).map_err(|source| LayoutError::Index { path, source })
    }

    /// Takes a blob of another layout over: the same file where the file system can, else a copy. Nobody writes to a blob.
    pub(crate) fn take_over(&self, other: &Self, descriptor: &Descriptor) -> Result<(), LayoutError> {
        let (from, to) = (other.path(&descriptor.digest), self.path(&descriptor.digest));
        other.file(descriptor)?;
        fs::hard_link(&from, &to)
            .or_else(|_| fs::copy(&from, &to).map(drop))
            .map_err(|source| LayoutError::Write { path: to, source })
    }

    /// Where the layout is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob is, or will be.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// The folder of the blobs.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }
}

/// A blob in the making: hashed as it is written, in place under its digest when committed, gone when dropped.
pub(crate) struct Staged {
    directory: PathBuf,
    file: NamedTempFile,
    verifier: Verifier,
}

impl Staged {
    /// The file below, for a writer that hashes by itself; see [`Staged::commit_as`].
    pub(crate) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Puts it in place under the digest of what was written through `Write`.
    pub(crate) fn commit(self, media_type: &str) -> Result<Descriptor, LayoutError> {
        let size = self.verifier.length();
        let digest = self.verifier.clone().digest();
        self.commit_as(media_type, digest, size)
    }

    /// Puts it in place under a digest that the caller computed while writing to [`Staged::file`].
    pub(crate) fn commit_as(self, media_type: &str, digest: Digest, size: u64) -> Result<Descriptor, LayoutError> {
        let path = self.directory.join(digest.hex());
        // The index says soon that it is there: also after a power cut.
        self.file.as_file().sync_data().map_err(|source| LayoutError::Write {
            path: path.clone(),
            source,
        })?;
        self.file.persist(&path).map_err(|error| LayoutError::Write {
            path,
            source: error.error,
        })?;
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: std::collections::BTreeMap::new(),
            platform: None,
        })
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        if let Some(bytes) = bytes.get(..written) {
            self.verifier.update(bytes);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Why a layout cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LayoutError {
    /// It would be mixed with something else.
    #[error("{} is not empty; name a new directory, or remove this one first", path.display())]
    NotEmpty { path: PathBuf },
    /// No layout at all.
    #[error("{} is not an OCI layout: it has no index.json", path.display())]
    NoIndex { path: PathBuf, source: io::Error },
    /// The index is malformed.
    #[error("{} is not an index of OCI", path.display())]
    Index { path: PathBuf, source: serde_json::Error },
    /// None, or not only one, manifest.
    #[error("the OCI layout {} holds {found} manifests, exactly one is expected", path.display())]
    Manifests { path: PathBuf, found: usize },
    /// A manifest that cannot be used.
    #[error("the manifest of {}", path.display())]
    Manifest { path: PathBuf, source: ManifestError },
    /// More than is read whole.
    #[error("blob {digest} has {size} bytes, more than {limit}")]
    TooLong { digest: Digest, size: u64, limit: u64 },
    /// A blob is not as long as its descriptor says.
    #[error("{} has {found} bytes, its descriptor says {expected}", path.display())]
    Length { path: PathBuf, found: u64, expected: u64 },
    /// A blob is not what its name says.
    #[error("{} is damaged", path.display())]
    Digest { path: PathBuf, source: DigestMismatch },
    /// Reading failed.
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Writing failed.
    #[error("writing {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// `index.json`. Unlike an index from a registry, its entries carry names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexFile {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
}

const INDEX: &str = "index.json";
const LAYOUT_VERSION: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(config: Descriptor) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers: vec![],
            annotations: Default::default(),
        }
    }

    #[test]
    fn what_is_published_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        assert!(
            matches!(Layout::open(dir.path()), Err(LayoutError::NoIndex { .. })),
            "not before it is complete"
        );
        let config = layout.put(media_type::OCI_CONFIG, b"{}").unwrap();
        let published = layout.publish(&manifest(config.clone()), Some("demo:v1")).unwrap();
        let read = Layout::open(dir.path()).unwrap();
        let entry = read.entry().unwrap();
        assert_eq!(
            (entry.digest, entry.annotations[REF_NAME].as_str()),
            (published.digest, "demo:v1")
        );
        let bytes = read.bytes(&entry, 1 << 20).unwrap();
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest(config));
        assert_eq!(
            fs::read_dir(read.blobs()).unwrap().count(),
            2,
            "no temporary file is left"
        );
    }

    #[test]
    fn damaged_blobs_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let blob = layout.put("x", b"content").unwrap();
        assert!(matches!(
            layout.bytes(&blob, 6),
            Err(LayoutError::TooLong { size: 7, limit: 6, .. })
        ));
        fs::write(layout.path(&blob.digest), b"contenu").unwrap();
        assert!(matches!(layout.bytes(&blob, 100), Err(LayoutError::Digest { .. })));
        fs::write(layout.path(&blob.digest), b"con").unwrap();
        assert!(matches!(
            layout.bytes(&blob, 100),
            Err(LayoutError::Length {
                found: 3,
                expected: 7,
                ..
            })
        ));
        fs::remove_file(layout.path(&blob.digest)).unwrap();
        assert!(matches!(layout.bytes(&blob, 100), Err(LayoutError::Read { .. })));
    }

    #[test]
    fn full_directories_and_odd_indexes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), b"").unwrap();
        assert!(matches!(Layout::create(dir.path()), Err(LayoutError::NotEmpty { .. })));
        let index = dir.path().join(INDEX);
        fs::write(&index, b"[]").unwrap();
        assert!(matches!(Layout::open(dir.path()), Err(LayoutError::Index { .. })));
        fs::write(&index, br#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        assert!(matches!(layout.entry(), Err(LayoutError::Manifests { found: 0, .. })));
    }
}
