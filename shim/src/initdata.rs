//! The pod's initdata: from its annotation into the VM's launch.
//!
//! The document is the workload owner's; the shim only carries it. What makes it trusted is its digest in HOST_DATA, which
//! the agent compares with the hardware's report. A shim that carries another document starts a VM that gets no keys.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cella_policy::initdata::{self, InitdataError};

/// Annotation with base64(gzip(initdata)), the name that the Confidential Containers project uses.
pub const ANNOTATION: &str = "io.katacontainers.config.hypervisor.cc_init_data";

/// What the launch of a VM needs of the initdata.
#[derive(Clone, Debug)]
pub struct Initdata {
    /// Digest for the TEE's host-data field.
    pub host_data: [u8; 32],
    /// SHA-256 of the document, which the agent repeats in its first answer.
    pub sha256: [u8; 32],
    device: Vec<u8>,
}

/// Initdata that cannot be carried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarryError {
    /// The pod has none: the agent would refuse everything.
    #[error("the pod has no initdata: set the annotation {ANNOTATION} (make it with `cellactl policy`)")]
    Missing,
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
    /// Decodes the annotation's value. CPU work for at most 1 MiB; call it off the async threads.
    ///
    /// # Errors
    /// No annotation, or one that is not base64, gzip or a document with a known algorithm.
    pub fn from_annotation(value: Option<&str>) -> Result<Self, CarryError> {
        let bad = |source| CarryError::Bad { source };
        let value = value.filter(|value| !value.is_empty()).ok_or(CarryError::Missing)?;
        let document = initdata::inflate_annotation(value).map_err(bad)?;
        Ok(Self {
            host_data: initdata::host_data(&document).map_err(bad)?,
            sha256: initdata::digests(&document).sha256,
            device: initdata::encode_device(&document),
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

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &[u8] = b"version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"cella.toml\" = \"version = 1\"\n";

    #[test]
    fn the_device_holds_the_document_and_the_digest_is_its_own() {
        let initdata = Initdata::from_annotation(Some(&initdata::encode_annotation(DOCUMENT))).unwrap();
        assert_eq!(initdata.host_data, initdata.sha256);
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
        assert!(matches!(Initdata::from_annotation(None), Err(CarryError::Missing)));
        assert!(matches!(Initdata::from_annotation(Some("")), Err(CarryError::Missing)));
        assert!(matches!(
            Initdata::from_annotation(Some("%%%")),
            Err(CarryError::Bad { .. })
        ));
        assert!(matches!(
            Initdata::from_annotation(Some("aGVsbG8=")),
            Err(CarryError::Bad { .. })
        ));
    }
}
