//! The database as of one moment.
//!
//! A decision reads a rule, floors, a resource, its owners and their approvals. They must be what stood there together: a rule of before a change and a
//! resource of after it may never have been meant for one another.

use cella_kbs_client::wire::ResourcePath;
use zeroize::Zeroizing;

use super::backend::{Table, View};
use super::seal::KeyRing;
use super::{Resource, Storage, StorageError, rule, versioned};
use crate::rule::Rule;

/// What the database holds, whatever is changed meanwhile.
pub struct Moment<'a> {
    view: Box<dyn View + 'a>,
    keys: &'a KeyRing,
}

impl Storage {
    /// The database as it is now.
    pub fn now(&self) -> Result<Moment<'_>, StorageError> {
        Ok(Moment {
            view: self.backend.view()?,
            keys: &self.keys,
        })
    }
}

impl Moment<'_> {
    /// A resource's version and bytes.
    pub fn resource(&self, path: &ResourcePath) -> Result<Option<Resource>, StorageError> {
        self.read(Table::Resources, path.as_str())?
            .map(|value| {
                let (version, bytes) = versioned(path.as_str(), &value)?;
                Ok(Resource {
                    version,
                    bytes: Zeroizing::new(bytes.to_vec()),
                })
            })
            .transpose()
    }

    /// A resource's rule.
    pub fn rule(&self, path: &ResourcePath) -> Result<Option<Rule>, StorageError> {
        self.read(Table::Rules, path.as_str())?
            .map(|value| Ok(rule(path.as_str(), &value)?.1))
            .transpose()
    }

    /// Whether a resource or a rule has this name.
    pub fn contains(&self, path: &ResourcePath) -> Result<bool, StorageError> {
        for table in [Table::Resources, Table::Rules] {
            if self.view.read(table, path.as_str())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A value, opened.
    pub(super) fn read(&self, table: Table, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StorageError> {
        self.view
            .read(table, key)?
            .map(|sealed| self.keys.unseal(table, key, &sealed))
            .transpose()
    }
}
