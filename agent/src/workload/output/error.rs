//! Why a job's output was not pushed.

use std::io;

use cella_oci::{
    RegistryError,
    modelpack::{MAX_CONFIG, ModelError},
};
use cella_seal::{
    RandomError,
    packet::PacketError,
    place::PlaceError,
    stream::{LayoutError, SealError},
};

use super::collect::MAX_FILES;
use crate::{untrusted::shown, workload::WorkloadError};

/// Why a job that ended with status 0 has no output. One line for an operator: it names paths of files as the manifest would have, and
/// no byte of content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// Nothing was written.
    #[error("the job left no file in its output folder")]
    Empty,
    /// A link, which means something in the container only.
    #[error("{} in the output folder is a symbolic link: leave the file itself", shown(path))]
    Link {
        /// Its path.
        path: String,
    },
    /// A socket, a pipe, a device.
    #[error("{} in the output folder is neither a file nor a folder", shown(path))]
    Special {
        /// Its path.
        path: String,
    },
    /// A name that no manifest can hold.
    #[error("{} in the output folder has a name that is not UTF-8", shown(path))]
    NotText {
        /// Its path, as far as it is text.
        path: String,
    },
    /// A name that no artifact may hold.
    #[error(
        "{} in the output folder has a name that a file of an artifact cannot have",
        shown(path)
    )]
    Path {
        /// Its path.
        path: String,
        /// The rule.
        #[source]
        source: ModelError,
    },
    /// More than the policy allows.
    #[error("the output folder holds more than the {limit} bytes that the policy allows")]
    TooLarge {
        /// `max-bytes`.
        limit: u64,
    },
    /// More files than an artifact here may have.
    #[error("the output folder holds more than {MAX_FILES} files")]
    TooMany,
    /// A process has a file open for writing.
    #[error("something still writes to the output folder after the job's end")]
    Busy {
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The folder cannot be read.
    #[error("reading the output folder")]
    Read {
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// A file was not as long as before, although nobody can write.
    #[error("{} changed while it was being sealed", shown(path))]
    Changed {
        /// Its path.
        path: String,
    },
    /// A file is too long.
    #[error("{} cannot be sealed", shown(path))]
    Layout {
        /// Its path.
        path: String,
        /// The rule.
        #[source]
        source: LayoutError,
    },
    /// Sealing failed.
    #[error("sealing a file")]
    Seal(#[source] SealError),
    /// Nothing to draw keys from.
    #[error("drawing a file's key")]
    Random(#[from] RandomError),
    /// Name, path and version cannot be bound.
    #[error("binding a file to its place")]
    Place(#[from] PlaceError),
    /// The file's key cannot be wrapped.
    #[error("wrapping a file's key")]
    Packet(#[from] PacketError),
    /// The files are not those of an artifact.
    #[error("the files do not make an artifact")]
    Artifact(#[source] ModelError),
    /// The configuration is larger than any reader takes.
    #[error("the artifact's configuration has {found} bytes, {MAX_CONFIG} is the most")]
    Config {
        /// Its length.
        found: u64,
    },
    /// The registry did not take it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Its certificate was not valid.
    #[error("the registry's certificate")]
    Dates(#[source] cella_http::HttpError),
    /// The key is not there: the guest is ending.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// Somebody has killed the container meanwhile.
    #[error("the container was killed while its output was being pushed")]
    Killed,
    /// A thread of the agent ended.
    #[error("the guest failed at sealing")]
    Interrupted,
}
