//! OCI bundles as containerd writes them: what of a specification a confidential guest is asked for, and what its bind mounts
//! are.
//!
//! For the shim, which asks, and for tools that say beforehand what the guest would answer. Nothing here decides: the words are
//! the host's, and the guest compares them with its policy.
#![forbid(unsafe_code)]

mod isolation;
pub mod oci;
mod source;

pub use isolation::{Namespaces, Neighbours, host_namespaces, namespaces, privileged};
pub use source::{Foreign, Source, classify, derived_name};
