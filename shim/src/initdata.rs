//! The pod's initdata: from its annotation into the VM's launch.
//!
//! The document is the workload owner's; the shim only carries it. What makes it trusted is its digest in HOST_DATA or
//! MRCONFIGID, which the agent compares with the hardware's report. A shim that carries another document starts a VM that gets no keys.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cella_policy::initdata::{self, InitdataError};

/// Annotation with base64(gzip(initdata)), the name that the Confidential Containers project uses.
pub const ANNOTATION: &str = "io.katacontainers.config.hypervisor.cc_init_data";

/// What the launch of a VM needs of the initdata.
#[derive(Clone, Debug)]
pub struct Initdata {
    /// Digest for SNP's field.
    pub host_data: [u8; 32],
    /// Digest for TDX's field.
    pub mr_config_id: [u8; 48],
    /// SHA-256 of the document, which the agent repeats in its first answer.
    pub sha256: [u8; 32],
    device: Vec<u8>,
}

/// Initdata that cannot be carried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarryError {
    /// The pod has none: the agent would refuse everything.
    #[error(
        "the pod has no initdata: set the annotation {ANNOTATION} (make it with `cellactl policy`), or name a document for \
         such pods with default-initdata in the shim's configuration"
    )]
    Missing,
    /// The node's document for pods that bring none cannot be read.
    #[error("cannot read {path}, which default-initdata names")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The node's document is none.
    #[error("{path}, which default-initdata names, is no usable initdata document")]
    BadDefault {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: InitdataError,
    },
    /// The annotation does not decode.
    #[error("annotation {ANNOTATION} holds no usable initdata")]
    Bad {
        /// What is wrong with it.
        #[source]
        source: InitdataError,
    },
    /// The device image could not be written.
    #[error("cannot write the initdata device {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl Initdata {
    /// The pod's own, from its annotation; where it has none, the document at `default`. CPU work and a read of at most
    /// 1 MiB; call it off the async threads.
    ///
    /// # Errors
    /// Neither is there, or what is there is not base64, gzip or a document with a known algorithm.
    pub fn of_pod(annotation: Option<&str>, default: Option<&Path>) -> Result<Self, CarryError> {
        match (annotation.filter(|value| !value.is_empty()), default) {
            (None, Some(path)) => {
                let document = read(path)?;
                Self::of_document(&document).map_err(|source| CarryError::BadDefault {
                    path: path.to_owned(),
                    source,
                })
            }
            (None, None) => Err(CarryError::Missing),
            (Some(value), _) => {
                let document = initdata::inflate_annotation(value);
                let carried = document.and_then(|document| Self::of_document(&document));
                carried.map_err(|source| CarryError::Bad { source })
            }
        }
    }

    fn of_document(document: &[u8]) -> Result<Self, InitdataError> {
        Ok(Self {
            host_data: initdata::host_data(document)?,
            mr_config_id: initdata::mr_config_id(document)?,
            sha256: initdata::digests(document).sha256,
            device: initdata::encode_device(document),
        })
    }

    /// Writes the block device's image to `path`, which must not exist; mode 0600.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write_device(&self, path: &Path) -> Result<(), CarryError> {
        use std::io::Write;
        let open = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        open.and_then(|mut file| file.write_all(&self.device))
            .map_err(|source| CarryError::Write {
                path: path.to_owned(),
                source,
            })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CarryError> {
    use std::io::Read;
    let failed = |source| CarryError::Read {
        path: path.to_owned(),
        source,
    };
    let max = u64::try_from(initdata::MAX_DOCUMENT).unwrap_or(u64::MAX);
    let mut document = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(max.saturating_add(1))
        .read_to_end(&mut document)
        .map_err(failed)?;
    if document.len() > initdata::MAX_DOCUMENT {
        return Err(failed(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            "an initdata document has at most 1 MiB",
        )));
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &[u8] = b"version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"cella.toml\" = \"version = 1\"\n";

    #[test]
    fn the_device_holds_the_document_and_the_digest_is_its_own() {
        let initdata = Initdata::of_pod(Some(&initdata::encode_annotation(DOCUMENT)), None).unwrap();
        assert_eq!(initdata.host_data, initdata.sha256);
        // A field of another length is filled up with zeros.
        assert_eq!(
            initdata.mr_config_id,
            [initdata.sha256.as_slice(), &[0; 16]].concat()[..]
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("initdata.img");
        initdata.write_device(&path).unwrap();
        let device = std::fs::read(&path).unwrap();
        assert_eq!(device.len() % 512, 0);
        assert_eq!(initdata::inflate_device(&device).unwrap(), DOCUMENT);
        assert!(
            matches!(initdata.write_device(&path), Err(CarryError::Write { .. })),
            "an existing file is not touched"
        );
    }

    #[test]
    fn absent_and_broken_annotations_are_told_apart() {
        for none in [None, Some("")] {
            assert!(matches!(Initdata::of_pod(none, None), Err(CarryError::Missing)));
        }
        for broken in ["%%%", "aGVsbG8="] {
            // A broken annotation is not a missing one: the default does not stand in for it.
            let refused = Initdata::of_pod(Some(broken), Some(Path::new("/nonexistent")));
            assert!(matches!(refused, Err(CarryError::Bad { .. })));
        }
    }

    #[test]
    fn the_default_is_for_pods_that_bring_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("initdata.toml");
        let absent = Initdata::of_pod(None, Some(&path));
        assert!(matches!(absent, Err(CarryError::Read { .. })));
        std::fs::write(&path, DOCUMENT).unwrap();
        let default = Initdata::of_pod(None, Some(&path)).unwrap();
        assert_eq!(default.sha256, initdata::digests(DOCUMENT).sha256);
        let other = [DOCUMENT, b"# mine\n"].concat();
        let own = Initdata::of_pod(Some(&initdata::encode_annotation(&other)), Some(&path)).unwrap();
        assert_eq!(own.sha256, initdata::digests(&other).sha256);
        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(
            Initdata::of_pod(None, Some(&path)),
            Err(CarryError::BadDefault { .. })
        ));
        std::fs::write(&path, vec![b' '; initdata::MAX_DOCUMENT + 1]).unwrap();
        assert!(matches!(
            Initdata::of_pod(None, Some(&path)),
            Err(CarryError::Read { .. })
        ));
    }
}
