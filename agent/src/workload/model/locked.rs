//! A model file that is complete: read-only and locked, and the kernel's word for it.
//!
//! mlock(2) that returns 0 is not taken for enough: the mapping's figures are read back from smaps before anybody else maps
//! the file. `Locked` there counts shared pages by their share, so it equals `Size` only as long as the agent is alone.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use cella_oci::Digest;
use cella_seal::tree::Blake3Digest;

use super::region::{FreezeError, Frozen, Region};
use crate::workload::proc::{self, FileId, Mapping};

/// How often smaps are read until they say what they must: the kernel unmaps pages for a moment when it moves them.
const LOOKS: usize = 5;

/// One file of a loaded model.
#[derive(Debug)]
pub(crate) struct LockedFile {
    /// Path in the model.
    pub(crate) path: String,
    /// Digest of the plaintext, as the model's configuration has it, which the manifest's digest covers.
    pub(crate) digest: Option<Digest>,
    /// BLAKE3 of the plaintext, where the policy asks for it.
    pub(crate) blake3: Option<Blake3Digest>,
    /// Length in bytes.
    pub(crate) bytes: u64,
    /// Length of the mapping.
    pub(crate) mapped: u64,
    /// Bytes that were locked when it was checked.
    pub(crate) locked: u64,
    /// Bytes in 2 MiB pages when it was checked.
    pub(crate) huge: u64,
    /// What other processes' mappings are recognised by.
    pub(crate) id: FileId,
    memory: Frozen,
}

impl LockedFile {
    /// Locks `region`, the memory of the file at `at`, and checks that it is so. Blocks.
    pub(crate) fn lock(
        path: &str,
        digest: Option<Digest>,
        blake3: Option<Blake3Digest>,
        at: &Path,
        region: Region,
    ) -> Result<Self, LockError> {
        let memory = region.freeze().map_err(LockError::Freeze)?;
        fs::set_permissions(at, Permissions::from_mode(0o444)).map_err(LockError::File)?;
        let id = FileId::of(&fs::metadata(at).map_err(LockError::File)?);
        let bytes = u64::try_from(memory.len()).unwrap_or(u64::MAX);
        let (mapped, locked, huge) = if memory.range().is_empty() {
            (0, 0, 0)
        } else {
            verified(&memory, id)?
        };
        Ok(Self {
            path: path.to_owned(),
            digest,
            blake3,
            bytes,
            mapped,
            locked,
            huge,
            id,
            memory,
        })
    }

    /// The agent's own mapping among `mappings`.
    pub(crate) fn own<'m>(&self, mappings: &'m [Mapping]) -> Option<&'m Mapping> {
        mappings.iter().find(|mapping| mapping.range == self.memory.range())
    }

    /// The content.
    #[cfg(test)]
    pub(crate) fn content(&self) -> &[u8] {
        self.memory.bytes()
    }
}

/// Size, locked and huge bytes of a mapping that is as it must be.
pub(super) fn verified(memory: &Frozen, id: FileId) -> Result<(u64, u64, u64), LockError> {
    let mut problem = LockError::NotMapped;
    for _ in 0..LOOKS {
        let mappings = proc::mappings(Path::new("/proc/self")).map_err(LockError::Smaps)?;
        let Some(mapping) = mappings.iter().find(|mapping| mapping.range == memory.range()) else {
            continue;
        };
        problem = if mapping.file != id {
            LockError::NotMapped
        } else if mapping.locked != mapping.size || mapping.rss != mapping.size {
            LockError::NotLocked {
                size: mapping.size,
                resident: mapping.rss,
                locked: mapping.locked,
            }
        } else if mapping.writable || !["lo", "dd", "dc"].iter().all(|flag| mapping.has(flag)) {
            LockError::Flags {
                flags: mapping.flags.join(" "),
            }
        } else {
            return Ok((mapping.size, mapping.locked, mapping.huge));
        };
        std::thread::yield_now();
    }
    Err(problem)
}

/// Why a file's memory is not locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LockError {
    /// It could not be made so.
    #[error("the memory cannot be locked")]
    Freeze(#[source] FreezeError),
    /// The file does not take its mode.
    #[error("the file cannot be made read-only")]
    File(#[source] io::Error),
    /// The kernel's figures are not to be had.
    #[error("smaps cannot be read")]
    Smaps(#[source] io::Error),
    /// smaps do not have the mapping.
    #[error("smaps do not show the mapping")]
    NotMapped,
    /// Not all of it is locked.
    #[error("of {size} bytes {resident} are in memory and {locked} locked")]
    NotLocked {
        /// Length of the mapping.
        size: u64,
        /// What is in memory.
        resident: u64,
        /// What is locked.
        locked: u64,
    },
    /// The mapping does not have the flags that it was given.
    #[error("the mapping has the flags {flags}: lo, dd and dc must be among them and wr not")]
    Flags {
        /// What the kernel shows.
        flags: String,
    },
}
