//! The note beside a layout that a push was interrupted: where the registry goes on with each blob.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cella_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::files::{self, MAX_TEXT, parent};
use crate::store::StoreError;

/// Uploads under way, on disk in `.LAYOUT.push.json`, mode 0600: whoever knows the places could add to them.
pub(super) struct Note {
    path: PathBuf,
    content: Mutex<Content>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    registry: String,
    repository: String,
    uploads: BTreeMap<String, String>,
}

impl Note {
    /// The note of an earlier push of the layout to the same repository, or an empty one. A note that cannot be read is worth
    /// nothing: what it would have saved is sent again.
    pub(super) fn open(layout: &Path, to: &Reference) -> Self {
        let name = layout.file_name().unwrap_or_default().to_string_lossy();
        let path = parent(layout).join(format!(".{name}.push.json"));
        let empty = Content {
            registry: to.registry.clone(),
            repository: to.repository.clone(),
            uploads: BTreeMap::new(),
        };
        let read = files::read_text(&path, MAX_TEXT).ok();
        let earlier = read.and_then(|text| serde_json::from_str::<Content>(&text).ok());
        let content =
            earlier.filter(|earlier| (&earlier.registry, &earlier.repository) == (&to.registry, &to.repository));
        Self {
            path,
            content: Mutex::new(content.unwrap_or(empty)),
        }
    }

    /// Where the upload of a blob goes on.
    pub(super) fn place(&self, digest: &Digest) -> Option<String> {
        self.lock().uploads.get(&digest.to_string()).cloned()
    }

    /// Notes it, or that there is none any more.
    pub(super) fn set(&self, digest: &Digest, place: Option<&str>) -> Result<(), StoreError> {
        let mut content = self.lock();
        let before = match place {
            Some(place) => content.uploads.insert(digest.to_string(), place.to_owned()),
            None => content.uploads.remove(&digest.to_string()),
        };
        if before.as_deref() == place {
            return Ok(());
        }
        self.write(&content).map_err(|source| StoreError::Note { source })
    }

    /// Everything is there: the note goes.
    pub(super) fn remove(self) {
        // Left behind, it does no harm.
        let _ = std::fs::remove_file(&self.path);
    }

    fn write(&self, content: &Content) -> io::Result<()> {
        // Temporary files are made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(parent(&self.path))?;
        file.write_all(&serde_json::to_vec(content)?)?;
        file.persist(&self.path)?;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
