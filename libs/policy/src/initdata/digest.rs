//! The document's digest and the forms in which evidence carries it.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, SHA384, SHA512, digest};

use super::InitdataError;
use crate::names::shown;

/// Hash algorithm of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// What Cella uses on SEV-SNP.
    Sha256,
    /// What fits TDX's MRCONFIGID.
    Sha384,
    /// Legal; always cut.
    Sha512,
}

impl FromStr for Algorithm {
    type Err = InitdataError;

    fn from_str(text: &str) -> Result<Self, InitdataError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha384" => Ok(Self::Sha384),
            "sha512" => Ok(Self::Sha512),
            _ => Err(InitdataError::UnknownAlgorithm { found: shown(text) }),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        })
    }
}

/// A document's digest under each algorithm: computed without reading which one it claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// SHA-256.
    pub sha256: [u8; 32],
    /// SHA-384.
    pub sha384: [u8; 48],
    /// SHA-512.
    pub sha512: [u8; 64],
}

/// Digests all bytes of a document, as they are.
pub fn digests(document: &[u8]) -> Digests {
    Digests {
        sha256: fitted(digest(&SHA256, document).as_ref()),
        sha384: fitted(digest(&SHA384, document).as_ref()),
        sha512: fitted(digest(&SHA512, document).as_ref()),
    }
}

impl Digests {
    /// The algorithm under which SEV-SNP's HOST_DATA binds the document. All zero means "nothing bound" and never
    /// matches. Takes the same time whatever differs.
    pub fn matches_host_data(&self, host_data: &[u8; 32]) -> Option<Algorithm> {
        self.matching(host_data)
    }

    /// The same for TDX's MRCONFIGID.
    pub fn matches_mr_config_id(&self, mr_config_id: &[u8; 48]) -> Option<Algorithm> {
        self.matching(mr_config_id)
    }

    /// The digest under `algorithm` in a field of `N` bytes: cut at the end, or padded with zeros.
    pub fn field<const N: usize>(&self, algorithm: Algorithm) -> [u8; N] {
        match algorithm {
            Algorithm::Sha256 => fitted(&self.sha256),
            Algorithm::Sha384 => fitted(&self.sha384),
            Algorithm::Sha512 => fitted(&self.sha512),
        }
    }

    fn matching<const N: usize>(&self, field: &[u8; N]) -> Option<Algorithm> {
        let mut found = None;
        for algorithm in [Algorithm::Sha512, Algorithm::Sha384, Algorithm::Sha256] {
            if differing_bits(&self.field::<N>(algorithm), field) == 0 {
                found = Some(algorithm);
            }
        }
        found.filter(|_| field.iter().fold(0, |bits, byte| bits | byte) != 0)
    }
}

/// HOST_DATA for a document: its digest under the algorithm that it claims. For whoever launches a guest: this parses.
pub fn host_data(document: &[u8]) -> Result<[u8; 32], InitdataError> {
    Ok(digests(document).field(super::algorithm(document)?))
}

/// MRCONFIGID for a document, likewise.
pub fn mr_config_id(document: &[u8]) -> Result<[u8; 48], InitdataError> {
    Ok(digests(document).field(super::algorithm(document)?))
}

/// Zero when equal. No branch depends on the bytes.
fn differing_bits<const N: usize>(left: &[u8; N], right: &[u8; N]) -> u8 {
    left.iter()
        .zip(right)
        .fold(0, |bits, (left, right)| bits | (left ^ right))
}

fn fitted<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut field = [0; N];
    field.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    field
}
