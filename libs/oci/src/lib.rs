//! What OCI registries serve: references, manifests, blobs, and the two kinds of artifact that Cella reads from them.
//!
//! - [`Digest`], [`Verifier`], [`Reference`]: names of content.
//! - [`Manifest`], [`Index`], [`Descriptor`]: what lists content.
//! - [`Registry`]: fetches and pushes it over `cella-http`.
//! - [`image`]: container images, plain or encrypted. [`modelpack`]: CNCF ModelPack artifacts, plain or sealed.
//!
//! A registry is not trusted. Content is fetched by digest, its length is bounded and its digest checked **before** it
//! is parsed; what streams (layers) is checked by the caller with a [`Verifier`] or by the AEAD that it is sealed with. Tags
//! are for `cellactl` on its owner's desk, never for the guest.
#![forbid(unsafe_code)]

pub mod image;
pub mod modelpack;

mod digest;
mod manifest;
mod reference;
mod registry;

pub use digest::{Digest, DigestError, DigestMismatch, Verifier};
pub use manifest::{Descriptor, Index, MAX_LAYERS, MAX_MANIFEST, Manifest, ManifestError, Platform, media_type};
pub use reference::{Reference, ReferenceError, check_repository};
pub use registry::{BlobReader, BlobStream, ErrorCode, Operation, Registry, RegistryError, SentBlob, Upload};
