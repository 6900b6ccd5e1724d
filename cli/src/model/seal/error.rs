//! Why a model was not sealed.

use std::io;
use std::path::PathBuf;

use cella_oci::modelpack::ModelError;
use cella_oci::{ManifestError, RegistryError};
use cella_seal::RandomError;
use cella_seal::packet::PacketError;
use cella_seal::place::PlaceError;
use cella_seal::stream::SealError;

use super::super::files::FilesError;
use super::super::key::KeyError;
use crate::layout::LayoutError;
use crate::staging::StagingError;
use crate::store::StoreError;

/// Why a model was not sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SealModelError {
    /// The files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The layout's place.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nowhere to seal to.
    #[error("name a place for the sealed model: --out or --push")]
    NoPlace,
    /// A reference by digest cannot be chosen by whoever pushes.
    #[error("{reference}: pushing needs a tag or nothing; the digest follows from the content")]
    PushByDigest { reference: String },
    /// Something that is written would lie in what is sealed.
    #[error("{} would lie in {}, the folder that is sealed; name a place outside", path.display(), folder.display())]
    Inside { path: PathBuf, folder: PathBuf },
    /// Another format than asked for.
    #[error("the weights are {found}, --format says {wanted}")]
    Format { wanted: &'static str, found: &'static str },
    /// A file cannot be opened.
    #[error("opening {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// A file was not sealed.
    #[error("sealing {}", path.display())]
    Seal { path: PathBuf, source: SealError },
    /// The registry lost the upload again and again.
    #[error(
        "{} was not uploaded: the registry does not go on with uploads in chunks; seal with --out and push from there",
        path.display()
    )]
    Upload { path: PathBuf, source: Box<RegistryError> },
    /// Name or path cannot be bound.
    #[error("the model's name or a path in it cannot be bound")]
    Place(#[from] PlaceError),
    /// No random bytes.
    #[error("drawing a file's key")]
    Random(#[from] RandomError),
    /// The key could not be wrapped.
    #[error("wrapping a file's key")]
    Packet(#[from] PacketError),
    /// The files do not make a model.
    #[error("the files do not make a model")]
    Model(#[from] ModelError),
    /// The manifest could not be written.
    #[error("writing the manifest")]
    Manifest { source: ManifestError },
    /// Asked to end.
    #[error("stopped; nothing is left of what was sealed")]
    Stopped,
}
