//! What a snapshot is.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::snapshotter::image::ImageName;

/// What a snapshot may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A layer, and everything below it.
    Committed,
    /// A container's root.
    Active,
    /// A root to look at.
    View,
}

/// A snapshot as it is stored. It has no content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Snapshot {
    /// What it may be used for.
    pub kind: Kind,
    /// The committed snapshot it stands on.
    pub parent: Option<String>,
    /// containerd's labels.
    pub labels: BTreeMap<String, String>,
    /// Of a committed one: the images that it was asked for as a layer of; the most recent first, at most eight, each
    /// once.
    pub images: Vec<ImageName>,
    /// Unix time in milliseconds.
    pub created_ms: u64,
    /// Unix time in milliseconds.
    pub updated_ms: u64,
}

impl Snapshot {
    pub(crate) fn new(kind: Kind, parent: Option<String>, labels: BTreeMap<String, String>, now_ms: u64) -> Self {
        Self {
            kind,
            parent,
            labels,
            images: Vec::new(),
            created_ms: now_ms,
            updated_ms: now_ms,
        }
    }

    /// Puts an image first.
    pub(crate) fn remember(&mut self, image: ImageName) {
        self.images.retain(|known| *known != image);
        self.images.insert(0, image);
        self.images.truncate(MAX_IMAGES);
    }
}

/// What containerd gives the shim for a container's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// File system type, or `bind`.
    pub fs_type: String,
    /// What is mounted.
    pub source: String,
    /// Options, among them those for the shim alone.
    pub options: Vec<String>,
}

/// How many images a layer remembers.
pub(crate) const MAX_IMAGES: usize = 8;
