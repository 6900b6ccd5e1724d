//! Evidence of AMD SEV-SNP and Intel TDX guests: what it looks like, how it is fetched in the guest, how it is verified anywhere else.
//!
//! Whose bytes: everything in here is parsed from a peer that may lie, a guest for the broker and the host for the guest.
//! Lengths are checked first, reports and quotes are verified over the bytes that came and never over a re-encoding, and no input
//! makes a function of this crate panic. The parsers are pure and take bytes: they are the entries of the fuzz targets.
//!
//! Verifiers do no I/O: certificates, revocation lists, Intel's documents and the time are arguments, so they work without a network.
//!
//! | feature | adds |
//! |---|---|
//! | (none) | [`GuestEvidence`], [`snp`] and [`tdx`] reports, [`trustee`]'s forms, [`configfs`]: all that a guest needs |
//! | `verify` | `verify()` for SEV-SNP, `tdx::verify()`, module `conditions`: verifiers, with X.509. Never in the guest |
//! | `measure` | module `measure`: launch digest, MRTD and RTMRs of a firmware, kernel, initrd and command line |
//! | `verify` or `measure` | module `reference`: what a publisher signed that its images measure as |
//! | `sim-issue` | module `sim`: development roots, and reports signed under them |

#[cfg(feature = "verify")]
mod anchors;
pub mod cert_table;
#[cfg(feature = "verify")]
mod chain;
#[cfg(feature = "verify")]
pub mod conditions;
pub mod configfs;
#[cfg(any(feature = "verify", feature = "measure"))]
mod digest;
mod evidence;
mod guest;
mod hex_bytes;
mod launch;
#[cfg(feature = "measure")]
pub mod measure;
mod reader;
#[cfg(any(feature = "verify", feature = "measure"))]
pub mod reference;
#[cfg(feature = "sim-issue")]
pub mod sim;
pub mod snp;
pub mod tdx;
pub mod trustee;
#[cfg(feature = "verify")]
mod vek;
#[cfg(feature = "verify")]
mod verify;
#[cfg(feature = "verify")]
mod x509;

#[cfg(feature = "verify")]
#[cfg(test)]
#[path = "../tests/vectors/mod.rs"]
mod vectors;

#[cfg(feature = "verify")]
pub use anchors::{Anchor, AnchorError, Anchors};
#[cfg(feature = "verify")]
pub use chain::check_amd_crl;
pub use evidence::{Evidence, EvidenceError, MAX_EVENT_LOG, MAX_QUOTE, TdEvidence};
pub use guest::{Bound, GuestEvidence, GuestEvidenceError, Launched, Tee};
pub use hex_bytes::Hex;
pub use launch::td_launch_digest;
#[cfg(feature = "verify")]
pub use snp::VerifyOptions;
#[cfg(feature = "verify")]
pub use vek::VekError;
#[cfg(feature = "verify")]
pub use verify::{Expected, Verified, VerifyError, verify, verify_with};
#[cfg(feature = "verify")]
pub use x509::{CertRole, ChainError, CrlError, CrlRole};
