//! Certificates and revocation lists, as far as the short chains of AMD and Intel need them.
//!
//! Whose bytes: a peer's. Every signature is verified over the bytes that came, never over a re-encoding. Chains have one form for each vendor
//! (leaf, intermediate, root), so nothing here searches for a path.

mod certificate;
mod crl;
mod pem;

pub(crate) use certificate::{Cert, Scheme, valid_between};
pub use certificate::{CertRole, ChainError};
pub(crate) use crl::Crl;
pub use crl::{CrlError, CrlRole};
pub(crate) use pem::chain as pem_chain;
