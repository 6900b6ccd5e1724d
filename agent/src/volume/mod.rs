//! The pod's volumes: memory that its containers share, and files that the host hands over.
//!
//! The host has no file system in common with the guest. What a pod mounts is made here: an `empty-dir` is a tmpfs of the
//! guest's, everything else is a set of small files in one RPC. Names, paths, sizes and numbers come from the host and are
//! bounded and checked (`content`); what the bytes say is for the program that reads them, except for the three files
//! that every C library reads ([`text`]). Where a container may mount what is the policy's business, not ours.
//!
//! Files are replaced as kubelet does it (`writer`): a container sees all of the old or all of the new. Containers see
//! them read-only; nobody but the agent writes to their directories, so nothing moves under its feet.

mod content;
mod error;
mod last_words;
mod store;
pub mod text;
mod writer;

pub use content::{Content, FileContent, MAX_FILES, MAX_TOTAL_BYTES, MAX_VOLUMES, VolumeName};
pub use error::VolumeError;
pub use last_words::LastWords;
pub use store::{VolumeSource, Volumes};
