//! What evidence and reference values are judged by: roots, revocation lists, Intel's collateral, signers.
//!
//! All of it stands in files that the configuration names. It is read as a whole, at the start and again on request, and takes the place of what
//! was read before only if every file is good: a file that was damaged while the broker runs changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cella_attest::tdx::{CollateralError, Roots, TdxOptions};
use cella_attest::{AnchorError, Anchors, CrlError, VerifyOptions, check_amd_crl};

use crate::admin::{PublicKeyError, public_key};
use crate::config::Config;
use crate::files::{self, FileError};

mod collateral;

pub use collateral::{Collaterals, MAX_FILES};

/// Longest revocation list, in bytes.
const MAX_CRL: u64 = 1 << 20;

/// Everything that verification takes as given.
pub struct Trust {
    /// Roots of SEV-SNP platforms.
    pub anchors: Anchors,
    /// What is tolerated of SEV-SNP evidence; AMD's revocation lists are in it.
    pub snp: VerifyOptions,
    /// Roots of TDX platforms.
    pub roots: Roots,
    /// What is tolerated of TDX evidence.
    pub tdx: TdxOptions,
    /// Intel's word about TDX platforms.
    pub collateral: Collaterals,
    /// Ed25519 keys of those whose reference values count.
    pub signers: Vec<[u8; 32]>,
}

impl Default for Trust {
    /// The vendors' roots, no lists, no collateral, no signers.
    fn default() -> Self {
        Self {
            anchors: Anchors::amd(),
            snp: VerifyOptions::default(),
            roots: Roots::intel(),
            // Which status is good enough is each rule's to say.
            tdx: TdxOptions::default().any_status(),
            collateral: Collaterals::default(),
            signers: Vec::new(),
        }
    }
}

impl Trust {
    /// Reads every file that the configuration names. Blocks.
    pub fn load(config: &Config) -> Result<Self, TrustError> {
        let vendors = Self::default();
        let (mut anchors, mut roots) = (vendors.anchors, vendors.roots);
        if let Some(path) = &config.simulated_root {
            anchors = anchors
                .with_simulated_pem(&files::read_text(path)?)
                .map_err(|source| TrustError::root(path, source))?;
        }
        if let Some(path) = &config.tdx.simulated_root {
            roots = roots
                .with_simulated_pem(&files::read_text(path)?)
                .map_err(|source| TrustError::root(path, source))?;
        }
        let crls = config.snp.crls.iter().map(|path| crl(path));
        let signers = config.reference_signers.iter().map(|path| {
            public_key(&files::read_text(path)?).map_err(|source| TrustError::Signer {
                path: path.clone(),
                source,
            })
        });
        Ok(Self {
            anchors,
            snp: vendors
                .snp
                .allow_milan(config.allow_milan)
                .crls(crls.collect::<Result<_, _>>()?, config.snp.require_crl),
            roots,
            tdx: vendors.tdx.max_collateral_age(Duration::from_secs(
                config.tdx.collateral_max_age_hours.saturating_mul(3600),
            )),
            collateral: match &config.tdx.collateral {
                Some(path) => Collaterals::load(path)?,
                None => Collaterals::default(),
            },
            signers: signers.collect::<Result<_, _>>()?,
        })
    }
}

fn crl(path: &Path) -> Result<Vec<u8>, TrustError> {
    let der = files::read_bytes(path, MAX_CRL)?;
    check_amd_crl(&der).map_err(|source| TrustError::Crl {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    Ok(der)
}

/// A file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// It cannot be read.
    #[error("a file cannot be read")]
    File(#[from] FileError),
    /// Not a root certificate.
    #[error("the simulated root {} is not valid", path.display())]
    Root {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: AnchorError,
    },
    /// Not a revocation list.
    #[error("{} is not a revocation list of AMD's", path.display())]
    Crl {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<CrlError>,
    },
    /// Not collateral.
    #[error("{} is not TDX collateral", path.display())]
    Collateral {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CollateralError,
    },
    /// The folder of collateral cannot be listed.
    #[error("listing the folder {}", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A folder without collateral: a mistake more likely than a wish.
    #[error("{} has no file *.json with TDX collateral", path.display())]
    NoCollateral {
        /// Which folder.
        path: PathBuf,
    },
    /// More files than there are families of platforms.
    #[error("{} has more than {MAX_FILES} files of TDX collateral", path.display())]
    TooManyFiles {
        /// Which folder.
        path: PathBuf,
    },
    /// Not a public key.
    #[error("the reference signer {} is not valid", path.display())]
    Signer {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: PublicKeyError,
    },
}

impl TrustError {
    fn root(path: &Path, source: AnchorError) -> Self {
        Self::Root {
            path: path.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests;
