//! Why there is no record, or none that is believed.

use std::path::PathBuf;

use cella_attest::AnchorError;
use cella_attest::tdx::CollateralError;
use cella_record::{ParseError, Refusal};

use crate::files::FileError;
use crate::status::StatusError;
use crate::store::StoreError;

/// Why a record was not fetched or is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RecordError {
    /// The agent.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// None yet, or never.
    #[error(
        "the guest has no boot record: it is made when every image and model of the policy is there, and never for a policy without keys"
    )]
    NotThere,
    /// None yet, or never.
    #[error("the guest has no run record: it is made when the job whose output the policy keeps has ended")]
    NoRun,
    /// An output is expected of a boot.
    #[error("--output-digest is about a run, and this is the record of a boot: fetch it with cellactl record --run")]
    NotARun,
    /// No record, or one that was changed.
    #[error("this is no record that anybody has signed")]
    Parse(#[source] ParseError),
    /// Bytes that are no text.
    #[error("the record is not text")]
    NotText,
    /// The simulated root.
    #[error("{} is no root certificate", path.display())]
    Root { path: PathBuf, source: AnchorError },
    /// The collateral.
    #[error("{} is not Intel's collateral", path.display())]
    Collateral { path: PathBuf, source: CollateralError },
    /// Not believed, or not as expected.
    #[error("the record is refused")]
    Refused(#[source] Box<Refusal>),
}
