//! Why a volume is refused or cannot be made. Host text in it is escaped and cut.

use std::{io, path::PathBuf};

use cella_policy::{VolumeKind, check::Denial};

use super::content::{MAX_FILES, MAX_NAME, MAX_PARTS, MAX_PATH, MAX_TOTAL_BYTES, MAX_VOLUMES};

/// Why a volume is refused or cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// Not a name.
    #[error("{name} is not the name of a volume: 1 to {MAX_NAME} of a-z, 0-9, - and ., not beginning with .")]
    Name {
        /// What was given.
        name: String,
    },
    /// The policy says no.
    #[error("{0}")]
    Denied(#[source] Denial),
    /// Not a kind.
    #[error("volume kind {kind} cannot be served in a confidential guest")]
    Kind {
        /// What was given.
        kind: String,
    },
    /// A path that a volume's file cannot have.
    #[error(
        "volume file {path}: a path is relative, plain, at most {MAX_PATH} bytes and {MAX_PARTS} parts, and its first part does \
         not begin with .."
    )]
    Path {
        /// What was given.
        path: String,
    },
    /// Two files of one path, or a file that is another one's directory.
    #[error("volume file {path} is there twice, or is a directory too")]
    Overlap {
        /// What was given.
        path: String,
    },
    /// Permission bits beyond those that a file has.
    #[error("volume file {path}: mode {mode:o} is more than permission bits")]
    Mode {
        /// The file.
        path: String,
        /// What was given.
        mode: u32,
    },
    /// Files for a kind that has none, a size for one that has none, or a directory for a kind that is one file.
    #[error("a volume of kind {kind} {rule}")]
    Form {
        /// The kind.
        kind: VolumeKind,
        /// What it has to be.
        rule: &'static str,
    },
    /// A line that the file's readers would not understand, or understand as something else.
    #[error("line {line} of a volume of kind {kind} is not of the right form")]
    Line {
        /// The kind.
        kind: VolumeKind,
        /// Which, from 1.
        line: usize,
    },
    /// More files than a volume has.
    #[error("{count} files in a volume; {MAX_FILES} are allowed")]
    TooManyFiles {
        /// How many.
        count: usize,
    },
    /// More volumes than a pod has.
    #[error("the pod has {MAX_VOLUMES} volumes already")]
    TooManyVolumes,
    /// More bytes than volumes may take.
    #[error("the pod's volumes would hold {bytes} bytes of files; {MAX_TOTAL_BYTES} are allowed")]
    TooLarge {
        /// How many.
        bytes: u64,
    },
    /// A volume of that name is something else.
    #[error("volume {name} is there already, as {kind}")]
    Exists {
        /// The name.
        name: String,
        /// What it is.
        kind: VolumeKind,
    },
    /// There is none of that name and kind.
    #[error("the pod has no volume {name} of kind {kind}")]
    Unknown {
        /// The name.
        name: String,
        /// The kind that was looked for.
        kind: VolumeKind,
    },
    /// The kernel refused.
    #[error("{what} {} of a volume failed", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    /// `map_err(VolumeError::io("writing", &path))`.
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
