//! Versions that only grow: of what is stored, and of what guests run (threat T5).
//!
//! | floor | is compared with |
//! |---|---|
//! | `resource/<repo>/<type>` | the tag, a decimal number, of each resource below it: `demo/image-kek/1` is version 1 |
//! | `model/<name>` | the lowest version under which the guest's measured policy names a model, dataset or output |
//! | `policy/<name>` | the revision of the guest's measured policy, if that is its name |
//!
//! A floor is raised by an admin and never lowered, not even by removing what it is about. Beside these, each resource and
//! each rule has a version of its own, and what is stored next must have a higher one.

use std::fmt;
use std::str::FromStr;

use cella_kbs_client::wire::ResourcePath;

use super::backend::Table;
use super::moment::Moment;
use super::transaction::Transaction;
use super::{Storage, StorageError, last_key};
use crate::workload::Workload;

/// Longest name in a floor.
const MAX_NAME: usize = 256;

/// What a floor is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FloorName {
    kind: FloorKind,
    name: String,
}

/// What kind of thing has versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FloorKind {
    /// Resources that share repository and type, by their tags.
    Resource,
    /// A model.
    Model,
    /// A policy.
    Policy,
}

impl FloorKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Model => "model",
            Self::Policy => "policy",
        }
    }
}

impl fmt::Display for FloorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

impl FromStr for FloorName {
    type Err = FloorNameError;

    fn from_str(text: &str) -> Result<Self, FloorNameError> {
        let (kind, name) = text.split_once('/').ok_or(FloorNameError)?;
        let kind = [FloorKind::Resource, FloorKind::Model, FloorKind::Policy]
            .into_iter()
            .find(|known| known.as_str() == kind)
            .ok_or(FloorNameError)?;
        let segment = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        let segments = name.split('/').count();
        let wanted = match kind {
            FloorKind::Resource => segments == 2,
            FloorKind::Model => true,
            FloorKind::Policy => segments == 1,
        };
        if wanted && name.len() <= MAX_NAME && name.split('/').all(segment) {
            Ok(Self {
                kind,
                name: name.to_owned(),
            })
        } else {
            Err(FloorNameError)
        }
    }
}

/// Not the name of a floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a floor is named resource/<repo>/<type>, model/<name> or policy/<name>")]
pub struct FloorNameError;

/// Something older than what was there, or than what is wanted. The texts go to admins and to guests: both versions are
/// in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rollback {
    /// A resource whose tag is below its floor.
    #[error("rollback: version {version} of {name} is below the floor {floor}")]
    Resource {
        /// Repository and type.
        name: String,
        /// The tag.
        version: u64,
        /// The least.
        floor: u64,
    },
    /// A resource whose tag is no number, where numbers are compared.
    #[error("rollback: {path} has no version in its name, and {floor} is the floor")]
    Unversioned {
        /// The resource.
        path: String,
        /// The least.
        floor: u64,
    },
    /// A model below its floor.
    #[error("rollback: the policy names model {name} at version {version}, the floor is {floor}")]
    Model {
        /// The model.
        name: String,
        /// In the guest's policy.
        version: u64,
        /// The least.
        floor: u64,
    },
    /// A policy below its floor.
    #[error("rollback: policy {name} is revision {version}, the floor is {floor}")]
    Policy {
        /// The policy.
        name: String,
        /// The guest's.
        version: u64,
        /// The least.
        floor: u64,
    },
    /// An older resource or rule than the one that is or was there.
    #[error("rollback: {name} is at version {have}, version {offered} was offered")]
    Stored {
        /// What it would replace.
        name: String,
        /// The last version.
        have: u64,
        /// The version offered.
        offered: u64,
    },
    /// The same version with other contents.
    #[error("{name} is at version {have} with other contents: give a higher version")]
    Differs {
        /// What it would replace.
        name: String,
        /// The last version.
        have: u64,
    },
    /// Reference values that were not signed after those that are there.
    #[error("rollback: the reference values {name} were issued at {have}, others issued at {offered} were offered")]
    Reference {
        /// What they are called.
        name: String,
        /// When those that are there were issued, in Unix seconds.
        have: u64,
        /// When those offered were.
        offered: u64,
    },
    /// Reference values under the name of another signer's.
    #[error("the reference values {name} are another trusted signer's: choose another name")]
    OtherSigner {
        /// What they are called.
        name: String,
    },
    /// A floor is not lowered.
    #[error("rollback: the floor of {name} is {have}, {offered} was offered")]
    Lowered {
        /// The floor.
        name: String,
        /// As it is.
        have: u64,
        /// As it was to be.
        offered: u64,
    },
}

impl Storage {
    /// A floor; 0 where none was set.
    pub fn floor(&self, name: &FloorName) -> Result<u64, StorageError> {
        self.now()?.floor(name)
    }

    /// Every floor, in order of names.
    pub fn floors(&self) -> Result<Vec<(FloorName, u64)>, StorageError> {
        let mut floors = Vec::new();
        for cell in self.backend.snapshot(&[Table::Floors])? {
            let Ok(name) = cell.key.parse::<FloorName>() else {
                continue;
            };
            let value = self
                .keys
                .unseal(Table::Floors, &cell.key, &cell.value.unwrap_or_default())?;
            floors.push((name, number(&cell.key, &value)?));
        }
        floors.sort();
        Ok(floors)
    }

    /// Raises a floor. The same number again changes nothing.
    pub fn raise_floor(&self, name: &FloorName, to: u64) -> Result<(), StoreError> {
        let key = name.to_string();
        self.transact(|transaction| {
            let have = last(transaction, &key)?;
            if to < have {
                return Err(StoreError::Rollback(Rollback::Lowered {
                    name: key.clone(),
                    have,
                    offered: to,
                }));
            }
            transaction.put(Table::Floors, &key, &to.to_be_bytes())?;
            Ok(())
        })
    }

    pub(super) fn next_version(&self, table: Table, path: &ResourcePath) -> Result<u64, StorageError> {
        let key = last_key(table, path);
        let last = self
            .read(Table::Floors, &key)?
            .map_or(Ok(0), |value| number(&key, &value))?;
        Ok(last.saturating_add(1))
    }
}

impl Moment<'_> {
    /// A floor; 0 where none was set.
    pub fn floor(&self, name: &FloorName) -> Result<u64, StorageError> {
        let key = name.to_string();
        self.read(Table::Floors, &key)?
            .map_or(Ok(0), |value| number(&key, &value))
    }

    /// Whether a resource may go to a guest with this workload as far as versions are concerned.
    pub fn check_floors(&self, path: &ResourcePath, workload: &Workload) -> Result<(), StoreError> {
        let floor = |kind, name: &str| {
            self.floor(&FloorName {
                kind,
                name: name.to_owned(),
            })
        };
        if let Some((name, tag)) = path.as_str().rsplit_once('/') {
            let floor = floor(FloorKind::Resource, name)?;
            if floor > 0 {
                let version = tag.parse::<u64>().map_err(|_| Rollback::Unversioned {
                    path: path.to_string(),
                    floor,
                })?;
                if version < floor {
                    let name = name.to_owned();
                    return Err(Rollback::Resource { name, version, floor }.into());
                }
            }
        }
        for (name, &version) in &workload.models {
            let floor = floor(FloorKind::Model, name)?;
            if version < floor {
                let name = name.clone();
                return Err(Rollback::Model { name, version, floor }.into());
            }
        }
        if let Some(policy) = &workload.policy {
            let (name, version) = (policy.name.clone(), policy.revision);
            let floor = floor(FloorKind::Policy, &name)?;
            if version < floor {
                return Err(Rollback::Policy { name, version, floor }.into());
            }
        }
        Ok(())
    }
}

/// The next version of something that only grows; remembers it.
///
/// `offered` is what the admin calls it; without, it is one more than the last. `same` says whether what is there is what is
/// offered: then storing it under its own version again changes nothing, so that an admin may ask twice. `None`: nothing is
/// to be done.
pub(super) fn next(
    transaction: &mut Transaction<'_>,
    key: &str,
    offered: Option<u64>,
    same: bool,
) -> Result<(u64, bool), StoreError> {
    let have = last(transaction, key)?;
    let name = || key.split_once(' ').map_or(key, |(_, name)| name).to_owned();
    let version = match offered {
        Some(offered) if offered < have || offered == 0 => {
            let name = name();
            return Err(Rollback::Stored { name, have, offered }.into());
        }
        Some(offered) if offered == have && same => return Ok((have, false)),
        Some(offered) if offered == have => return Err(Rollback::Differs { name: name(), have }.into()),
        Some(offered) => offered,
        None => have
            .checked_add(1)
            .ok_or_else(|| Rollback::Differs { name: name(), have })?,
    };
    transaction.put(Table::Floors, key, &version.to_be_bytes())?;
    Ok((version, true))
}

fn last(transaction: &mut Transaction<'_>, key: &str) -> Result<u64, StorageError> {
    transaction
        .get(Table::Floors, key)?
        .map_or(Ok(0), |value| number(key, &value))
}

fn number(key: &str, value: &[u8]) -> Result<u64, StorageError> {
    value
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| StorageError::NotAuthentic { path: key.to_owned() })
}

/// Something is not stored, or not released: too old, or the database failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Too old.
    #[error("{0}")]
    Rollback(#[from] Rollback),
    /// The database.
    #[error("storage failed")]
    Storage(#[from] StorageError),
}
