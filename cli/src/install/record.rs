//! What was installed, and what stood there before.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::target::{Target, TargetError};

/// `/var/lib/cella/installed.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    /// The release that wrote it.
    cellactl: String,
    /// In the order in which they were written.
    pub(super) entries: Vec<Entry>,
    /// Directories that were made, outermost first.
    pub(super) directories: Vec<PathBuf>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    /// Its text before the first install; none where there was no file.
    pub(super) before: Option<String>,
    /// Its text after the last.
    pub(super) written: String,
    /// Whether it is the operator's to change from then on.
    pub(super) is_first_draft: bool,
}

impl Record {
    pub(super) fn new(entries: Vec<Entry>, directories: Vec<PathBuf>) -> Self {
        Self {
            version: VERSION,
            cellactl: env!("CARGO_PKG_VERSION").to_owned(),
            entries,
            directories,
        }
    }

    /// The record of the last install; none where there was none.
    pub(super) fn read(target: &Target) -> Result<Option<Self>, RecordError> {
        let Some(text) = target.read(Path::new(PATH))? else {
            return Ok(None);
        };
        let record: Self = serde_json::from_str(&text).map_err(|source| RecordError::Form { source })?;
        if record.version != VERSION {
            return Err(RecordError::Version {
                version: record.version,
                cellactl: record.cellactl,
            });
        }
        Ok(Some(record))
    }

    pub(super) fn write(&self, target: &Target) -> Result<(), RecordError> {
        let text = serde_json::to_string_pretty(self).map_err(|source| RecordError::Form { source })?;
        Ok(target.write(Path::new(PATH), &format!("{text}\n"))?)
    }

    pub(super) fn remove(target: &Target) -> Result<(), RecordError> {
        Ok(target.remove(Path::new(PATH))?)
    }

    pub(super) fn entry(&self, path: &Path) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }
}

/// A record that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RecordError {
    /// The file.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Not ours.
    #[error("{PATH} is not a record of an install")]
    Form { source: serde_json::Error },
    /// Of a later release.
    #[error("{PATH} has version {version}, written by cellactl {cellactl}: use that one")]
    Version { version: u32, cellactl: String },
}

const VERSION: u32 = 1;
/// The record itself, which is no entry.
pub(super) const PATH: &str = "/var/lib/cella/installed.json";
