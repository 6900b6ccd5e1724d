//! Intel's collateral, by the family of platforms that it is for.

use std::path::{Path, PathBuf};

use cella_attest::tdx::{Collateral, CollateralError};

use super::TrustError;
use crate::files;

/// Most files in the folder.
pub const MAX_FILES: usize = 64;

/// Collateral for any number of families.
#[derive(Debug, Default)]
pub struct Collaterals(Vec<([u8; 6], Collateral)>);

impl Collaterals {
    /// Any number of them, each by the family that it says to be for.
    pub fn new(collateral: Vec<Collateral>) -> Result<Self, CollateralError> {
        let named = |collateral: Collateral| Ok((collateral.fmspc()?, collateral));
        collateral.into_iter().map(named).collect::<Result<_, _>>().map(Self)
    }

    /// Reads a file, or every file of a folder whose name ends in `.json`.
    pub(super) fn load(path: &Path) -> Result<Self, TrustError> {
        let paths = if path.is_dir() {
            listed(path)?
        } else {
            vec![path.to_owned()]
        };
        paths.iter().map(|path| read(path)).collect::<Result<_, _>>().map(Self)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is there for a family; for a quote that does not name its own, whatever brings the certificate of a platform.
    pub(crate) fn of(&self, fmspc: Option<[u8; 6]>) -> impl Iterator<Item = &Collateral> {
        let fits = move |(family, collateral): &&([u8; 6], Collateral)| match fmspc {
            Some(fmspc) => *family == fmspc,
            None => collateral.pck_chain.is_some(),
        };
        self.0.iter().filter(fits).map(|(_, collateral)| collateral)
    }
}

fn read(path: &Path) -> Result<([u8; 6], Collateral), TrustError> {
    let json = files::read_bytes(path, Collateral::MAX_JSON as u64)?;
    let wrong = |source| TrustError::Collateral {
        path: path.to_owned(),
        source,
    };
    let collateral = Collateral::from_json(&json).map_err(wrong)?;
    Ok((collateral.fmspc().map_err(wrong)?, collateral))
}

/// In order of names, so that it does not depend on the file system which of two comes first.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, TrustError> {
    let failed = |source| TrustError::Folder {
        path: folder.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
        if paths.len() > MAX_FILES {
            return Err(TrustError::TooManyFiles {
                path: folder.to_owned(),
            });
        }
    }
    if paths.is_empty() {
        return Err(TrustError::NoCollateral {
            path: folder.to_owned(),
        });
    }
    paths.sort();
    Ok(paths)
}
