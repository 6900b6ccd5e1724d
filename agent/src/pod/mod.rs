//! What a pod's containers have in common.

mod events;

use std::path::PathBuf;

pub use events::{Event, EventKind, Events};

use crate::volume::Volumes;

/// A pod. Clones share it.
#[derive(Clone, Debug)]
pub struct Pod {
    volumes: Volumes,
    events: Events,
}

impl Pod {
    /// A pod that keeps what it has in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            volumes: Volumes::new(dir.join("volumes")),
            events: Events::new(),
        }
    }

    /// Its volumes.
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// What happened in it.
    pub fn events(&self) -> &Events {
        &self.events
    }
}
