//! Evidence of AMD SEV-SNP guests: what it looks like, how it is fetched in the guest, how it is verified anywhere else.
//!
//! Whose bytes: everything in here is parsed from a peer that may lie, a guest for the broker and the host for the guest.
//! Lengths are checked first, reports are verified over the bytes that came and never over a re-encoding, and no input
//! makes a function of this crate panic. [`snp::Report::parse`] and [`Evidence::from_json`] are pure and take bytes: they are
//! the entries of the fuzz targets.
//!
//! What is not checked, because nothing in a confidential guest or on a broker without a network can: certificate
//! validity times and AMD's revocation lists.
//!
//! | feature | adds |
//! |---|---|
//! | (none) | [`verify()`], [`Evidence`], [`snp`], [`configfs`] |
//! | `measure` | module `measure`: the launch digest of a firmware, kernel, initrd and command line |
//! | `sim-issue` | module `sim`: development roots, and reports signed under them |

mod anchors;
pub mod cert_table;
mod chain;
pub mod configfs;
mod evidence;
mod hex_bytes;
#[cfg(feature = "measure")]
pub mod measure;
#[cfg(feature = "sim-issue")]
pub mod sim;
pub mod snp;
mod vek;
mod verify;

#[cfg(test)]
#[path = "../tests/vectors/mod.rs"]
mod vectors;

pub use anchors::{Anchor, AnchorError, Anchors};
pub use chain::{CertRole, ChainError};
pub use evidence::{Evidence, EvidenceError};
pub use hex_bytes::Hex;
pub use vek::VekError;
pub use verify::{Expected, Verified, VerifyError, VerifyOptions, verify, verify_with};
