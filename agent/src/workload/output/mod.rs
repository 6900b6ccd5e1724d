//! What a job leaves behind: sealed here, pushed as a new version of an artifact, and recorded.
//!
//! ```text
//!           keys came          the job starts        it ends with 0         frozen, sealed, pushed
//!  waiting ───────────▶ open ────────────────▶ writing ─────────────▶ pushing ────────────────────▶ pushed: the key is gone
//!                        ▲                        │ another status, killed    │ any failure
//!                        └────────────────────────┴───────────────────────────┘ folder and content are gone
//! ```
//! A folder is a memory file system of its own: bounded, never swapped, seen by one container, owned by its user. Each run of
//! the job begins with an empty one. Nothing of it leaves the guest but sealed: each file under a key of its own, drawn
//! for each try, wrapped by the policy's key, bound to the artifact's name, its path and the version. The manifest goes last, so
//! that what was pushed in part has no name.

mod collect;
mod desk;
mod error;
mod folder;
mod pipe;
mod push;
mod record;
mod seal;

#[cfg(test)]
mod tests;

pub use error::OutputError;

pub(crate) use desk::Desk;

use std::{error::Error, path::PathBuf};

use crate::untrusted;

/// A folder to be mounted into a container, writable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputMount {
    /// The agent's directory: the root of a file system.
    pub source: PathBuf,
    /// Where the container sees it.
    pub destination: PathBuf,
}

/// What became of a run's output.
#[derive(Debug)]
pub enum OutputEnd {
    /// The run has none.
    None,
    /// The job did not end with status 0: its files are gone.
    Discarded,
    /// It is in the registry, under this reference by digest.
    Pushed(String),
    /// The job ended with status 0, and nothing was pushed.
    NotPushed(OutputError),
}

/// `error` and what it comes from, in one printable line.
pub(crate) fn one_line(error: &OutputError) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some errors repeat their source.
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        next = cause.source();
    }
    untrusted::one_line(&line)
}
