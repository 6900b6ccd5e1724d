//! Why a guest does not serve a pod.

use std::io;

use cella_attest::Bound;
use cella_policy::initdata::InitdataError;

use crate::{cmdline::CmdlineError, entropy::EntropyError, evidence::EvidenceError, initdata::DiskError};

/// Why a guest does not serve a pod. All but [`BootError::ModelsTooLarge`] end it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The kernel does not tell about itself.
    #[error("reading {what} failed")]
    Kernel {
        /// What was being read.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The command line is not one of ours.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// No randomness that the host does not choose.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// No initdata disk, or more than one.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The disk or the document is malformed.
    #[error(transparent)]
    Initdata(#[from] InitdataError),
    /// No evidence to compare with.
    #[error("this guest's own evidence is not to be had")]
    Evidence(#[from] EvidenceError),
    /// The document is not what the guest was launched with.
    #[error(
        "initdata is not what this guest was launched with: its SHA-256 is {}, {} is {}",
        hex::encode(sha256),
        launched.field(),
        hex::encode(launched.as_bytes())
    )]
    NotBound {
        /// The document's digest.
        sha256: [u8; 32],
        /// What the processor says.
        launched: Bound,
    },
    /// The document is not UTF-8.
    #[error("initdata is not UTF-8")]
    NotText,
    /// No key for the boot record.
    #[error(transparent)]
    RecordKey(#[from] cella_record::KeyError),
    /// The kernel does not say how much memory there is.
    #[error("the kernel does not say how much memory there is")]
    MemoryUnknown,
    /// The models do not fit.
    #[error(
        "model larger than guest memory: {names} needs {} MiB and the guest itself {} MiB, this guest has {} MiB; \
         give it more memory",
        models.div_ceil(1 << 20),
        reserve >> 20,
        total >> 20
    )]
    ModelsTooLarge {
        /// The models of the policy.
        names: String,
        /// Their plaintext bytes together.
        models: u64,
        /// What is kept for everything else, in bytes.
        reserve: u64,
        /// What the guest has, in bytes.
        total: u64,
    },
}

impl BootError {
    /// Whether the guest must not go on.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::ModelsTooLarge { .. })
    }
}
