//! The simulated platform's keys, reports and quotes: AMD's and Intel's formats under roots that anybody can make.
//!
//! What comes out of here verifies with the code that verifies AMD's reports and Intel's quotes, once a verifier has been told to believe the root
//! ([`crate::Anchors::with_simulated`], [`crate::tdx::Roots::with_simulated`]). It proves nothing about hardware: whoever holds the files of a [`Chip`] or a [`TdAuthority`] can sign anything.
//!
//! The SNP processor is a Genoa, whose root is an RSA-2048 key instead of RSA-4096: pure-Rust key generation is slow. The TDX platform is one of a
//! family that Intel has none of.

mod authority;
mod certificate;
mod chip;
mod claims;
mod td;

pub use authority::Authority;
pub use chip::{Chip, ChipSpec};
pub use claims::Claims;
pub use td::{TdAuthority, TdJudgement, TdPaths, TdRevoked};

use std::{io, path::PathBuf};

/// Why a simulated platform cannot be made, kept or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// A key could not be made.
    #[error("making the {what} key")]
    Key {
        /// Whose key.
        what: &'static str,
        /// Cause.
        #[source]
        source: rsa::Error,
    },
    /// A certificate or key could not be encoded.
    #[error("encoding the {what}")]
    Encode {
        /// What was being encoded.
        what: &'static str,
        /// Cause.
        #[source]
        source: x509_cert::der::Error,
    },
    /// A signature could not be made.
    #[error("signing the {what}")]
    Sign {
        /// What was being signed.
        what: &'static str,
        /// Cause.
        #[source]
        source: rsa::signature::Error,
    },
    /// A file of the platform's state could not be read or written.
    #[error("{doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A file of the platform's state does not hold what it should.
    #[error("{} holds no usable {what}; remove its folder and make the platform again", path.display())]
    State {
        /// What it should hold.
        what: &'static str,
        /// Which file.
        path: PathBuf,
    },
}
